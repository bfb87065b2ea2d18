"""Every method of a benchmark on a scene, by name: our samplers, deepinv's, the classical ones."""

from __future__ import annotations

import time

from ...posteriors import Active, Ensemble, Posterior
from ...registry.objects import make_grid, make_sampler, make_solver
from ...sampling import sample
from ..answer import Answer
from ..cells import Cell
from ..scenes import Scene
from ..specs import MethodSpec


def ours(scene: Scene, cell: Cell) -> Answer:
    """By `recon.sample`, with the most steps that ``cell.calls`` network calls allow."""
    spec, started = cell.spec, time.monotonic()
    sampler = build(scene, spec)
    solver = make_solver(str(cell.solver), spec.solver_options)
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
        grid=make_grid(spec.grid, steps, top, end),
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
    sampler = make_sampler(spec.sampler, scene.prior, options=spec.options)
    if spec.ensemble is not None:
        sampler = Ensemble(sampler, **spec.ensemble)
    if spec.active is not None:
        sampler = Active(sampler, measure=scene.measure, **spec.active)
    return sampler
