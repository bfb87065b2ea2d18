"""Every method of a benchmark on a scene, by name: our samplers, deepinv's, the classical ones."""

from __future__ import annotations

import time

from ..config import construct
from ..grids import GRIDS
from ..posteriors import POSTERIORS, Active, Ensemble, Posterior
from ..sampling import sample
from ..solvers import SOLVERS
from .answer import Answer
from .classical import CLASSICAL
from .peers import PEERS
from .plan import Cell, MethodSpec
from .scenes import Scene


def solve(scene: Scene, cell: Cell) -> Answer:
    """The method of ``cell`` on ``scene``. Raises what the method raises."""
    spec = cell.spec
    for others in (PEERS, CLASSICAL):
        if spec.sampler in others:
            return others[spec.sampler](scene, cell.calls, cell.samples, cell.seed, **spec.options)
    return ours(scene, cell)


def ours(scene: Scene, cell: Cell) -> Answer:
    """By `recon.sample`, with the most steps that ``cell.calls`` network calls allow."""
    spec, started = cell.spec, time.monotonic()
    sampler = build(scene, spec)
    solver = construct(SOLVERS[str(cell.solver)], spec.solver_options, f"The solver {cell.solver}")
    prior, calls = scene.prior, 20 if cell.calls is None else cell.calls
    top = spec.sigma_start or getattr(prior, "sigma_max", 80.0)
    end = min(spec.sigma_end or getattr(prior, "sigma_min", 0.002), top / 2)
    steps = sampler.steps_for(solver, calls, end)
    warm = spec.start == "fit"
    result = sample(
        scene.problem,
        prior,
        sampler,
        solver,
        steps,
        cell.samples,
        cell.seed,
        grid=GRIDS[spec.grid](steps, top, end),
        init=scene.start if warm else None,
        images=(scene.index,),
    )
    notes: dict[str, float | str] = {"steps": steps}
    if result.ess is not None:
        notes |= {"ess": float(result.ess[0])}
    if result.ancestors is not None:
        notes |= {"ancestors": int(result.ancestors[0])}
    if result.acquired is not None:
        notes |= {"acquired": int(result.acquired.mask.sum())}
    spread = result.magnitude_std if result.weights is not None else None
    return Answer(
        samples=result.samples[0].cpu(),
        mean=result.mean[0].cpu(),
        network_calls=result.network_calls,
        seconds=time.monotonic() - started,
        std=None if spread is None else spread[0].cpu(),
        notes=notes,
    )


def build(scene: Scene, spec: MethodSpec) -> Posterior:
    """The sampler with what is around it."""
    sampler: Posterior = POSTERIORS[spec.sampler](scene.prior, **spec.options)
    if spec.ensemble is not None:
        sampler = Ensemble(sampler, **spec.ensemble)
    if spec.active is not None:
        sampler = Active(sampler, measure=scene.measure, **spec.active)
    return sampler
