"""The method of a cell on the scene of that cell: a sampler of ours by `recon.sample`, any other by its function."""

from __future__ import annotations

import time

from ...posteriors import Active, Ensemble, Posterior
from ...registry.objects import make_grid, make_sampler, make_solver
from ...sampling import sample
from ..answer import Answer
from ..cells import Cell
from ..scene import Scene
from ..specs import MethodSpec
from .kinds import other_method

DEFAULT_CALLS = 20  # of a sampler of ours whose budget is left open


def solve(scene: Scene, cell: Cell) -> Answer:
    """The answer of the method of ``cell``; raises what the method raises."""
    method = other_method(cell.spec.sampler)
    if method is None:
        return by_recon(scene, cell)
    return method(scene, cell.calls, cell.samples, cell.seed, **cell.spec.options)


def by_recon(scene: Scene, cell: Cell) -> Answer:
    """By `recon.sample`, with the most steps that ``cell.calls`` network calls allow."""
    spec, started = cell.spec, time.monotonic()
    sampler = build_sampler(scene, spec)
    solver = make_solver(str(cell.solver), spec.solver_options)
    prior, calls = scene.prior, DEFAULT_CALLS if cell.calls is None else cell.calls
    high, low = spec.usual.levels(prior)
    top = spec.sigma_start or high
    end = min(spec.sigma_end or low, top / 2)
    steps = sampler.steps_for(solver, calls, end)
    result = sample(
        scene.problem,
        prior,
        sampler,
        solver,
        steps,
        cell.samples,
        cell.seed,
        grid=make_grid(str(spec.grid), steps, top, end),
        init=scene.start if spec.start == "fit" else None,
        images=(scene.index,),
    )
    notes: dict[str, float | str] = {"steps": steps}
    if result.ess is not None:
        notes |= {"ess": float(result.ess[0])}
    if result.least_ess is not None:
        notes |= {"least_ess": float(result.least_ess[0])}
    if result.ancestors is not None:
        notes |= {"ancestors": int(result.ancestors[0])}
    if result.acquired is not None:
        notes |= {"acquired": int(result.acquired.mask.sum())}
    return Answer(
        samples=result.samples[0].cpu(),
        mean=result.mean[0].cpu(),
        network_calls=result.network_calls,
        seconds=time.monotonic() - started,
        weights=None if result.weights is None else result.weights[0].cpu(),
        notes=notes,
    )


def build_sampler(scene: Scene, spec: MethodSpec) -> Posterior:
    """The sampler of ``spec``, inside the `Ensemble` and the `Active` that it asks for."""
    sampler = make_sampler(spec.sampler, scene.prior, options=spec.options)
    if spec.ensemble is not None:
        sampler = Ensemble(sampler, **spec.ensemble)
    if spec.active is not None:
        sampler = Active(sampler, measure=scene.measure, **spec.active)
    return sampler
