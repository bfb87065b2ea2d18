"""``recon.sample``: from a problem and a prior to samples, their mean, and their standard deviation."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor

from . import grids
from .errors import ConfigError, SamplingError, unknown
from .noise import Noise
from .pairing import refuse_pair
from .posteriors import Posterior
from .posteriors.usual import FORMS_OF_A_SAMPLER, PAPER, Usual
from .priors import about, for_images
from .problem import Problem, refuse_no_numbers, working_dtype
from .registry.objects import make_grid, make_sampler, make_solver, usual_of
from .registry.recipe import Recipe, build
from .result import Result
from .solvers import Solver
from .solvers.base import as_solver
from .state import State


class Counted:
    """A prior that counts its calls; everything else is the prior's own."""

    def __init__(self, prior):
        self.prior, self.calls = prior, 0

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.calls += 1
        clean = self.prior(x, sigma)
        if clean.shape != x.shape or clean.dtype != x.dtype:
            raise ConfigError(
                f"The prior was given {tuple(x.shape)} {x.dtype} and returned {tuple(clean.shape)} {clean.dtype}.",
                "A prior returns the clean image in the shape and dtype of its input.",
                "Wrap it: recon.priors.as_complex for complex images, slicewise for volumes.",
            )
        return clean

    def __getattr__(self, name: str) -> Any:
        if name == "prior":
            raise AttributeError(name)
        return getattr(self.prior, name)


def sample(
    problem: Problem,
    prior,
    posterior: str | Posterior = "dds",
    solver: str | Solver | None = None,
    steps: int = 20,
    samples: int = 4,
    seed: int = 0,
    grid: str | Sequence[float] | None = None,
    init: Tensor | None = None,
    sigma_start: float | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    form: str = "usual",
    images: Sequence[int] | None = None,
    watch: Callable[[int, State, float], None] | None = None,
) -> Result:
    """Draw ``samples`` images a measurement from p(x0 | y), all rows in one batch.

    ``prior``: a `recon.priors.Denoiser`; a network of images denoises volumes slice by slice. ``posterior``: a sampler by name, with ``options`` of its constructor; or as an
    object, which is not changed, built with this prior or with none (one of another prior is refused), of this
    problem or any.

    A name stands for the sampler's recipe (`posteriors.usual.Usual`, printed by ``recon list samplers``): options, solver,
    grid and first level are those that were measured best; what is given here goes first. ``form="paper"``, and an
    object, have no recipe: its constructor's defaults, the solver dpm++2m, pure noise at ``prior.sigma_max`` (80
    without) and a Karras grid to ``prior.sigma_min`` (.002), then 0. ``init`` (B, *domain): start from it plus noise
    of ``sigma_start``. A prior with a ``start`` of its
    own (`recon.restoration`) begins there instead of at pure noise. ``grid``: a name of
    `recon.grids`, or the levels themselves. ``images`` identify the images to the noise (default
    0, 1, ...), so that an image's samples do not depend on its batch. ``watch(step, state, residual)``
    sees every step. With a `recon.latent.LatentPrior` the walk and ``watch`` are in the latent space, and the
    samples are decoded. Raises `ConfigError` before the first network call, `SamplingError` at the first
    state that is not finite.
    """
    if samples < 1:
        raise ConfigError(f"samples is {samples}.", do="Ask for at least one.")
    batch = len(problem.y)
    refuse_other_images(prior, batch)
    images = tuple(range(batch)) if images is None else tuple(images)
    if len(images) != batch:
        raise ConfigError(f"images names {len(images)} images.", f"The problem holds {batch}.")
    known, pixels = about(prior), problem
    problem = known.space.pose(pixels)
    usual = recipe_of(posterior, form, options)
    levels = noise_levels(prior, steps, grid, init, sigma_start, usual)
    if solver is None:
        solver = make_solver(usual.solver, usual.solver_options)
    else:
        solver = make_solver(solver) if isinstance(solver, str) else as_solver(solver)
    rows = problem.precomputed().repeated(samples)
    counted = Counted(for_images(prior, problem.A.domain))
    if isinstance(posterior, str):
        sampler = make_sampler(posterior, counted, rows, {**usual.options, **(options or {})})
    else:
        refuse_other_prior(posterior, prior)
        sampler = posterior.given(rows).with_prior(counted)
    refuse_pair(sampler, solver, levels, working_dtype(problem.y))
    refuse_second_start(sampler, prior, init)
    noise = Noise(seed, images, samples)
    z = noise(zeros(problem, batch * samples), -1, "start")
    if init is not None:
        check_init(init, pixels)
        clean = known.space.encoded(init.to(zeros(pixels, 1)), problem)
        start = levels[0] * z + clean.to(z).repeat_interleave(samples, dim=0)
    elif known.start is not None:
        sampler.prepared(solver, levels, samples)  # for what it refuses, before the start asks the network
        with torch.no_grad():
            start, _ = known.start(z, levels[0], counted)
    else:
        start = levels[0] * z
    trace: list[dict[str, float]] = []
    with torch.no_grad():
        state = State(start, levels[0])
        for index, state, entry in readings(sampler, sampler.run(solver, levels, start, noise)):
            if math.isnan(entry["residual"]):
                refuse_divergence(state, index, sampler, solver)
            trace.append(entry)
            if watch is not None:
                watch(index, state, entry["residual"])
        drawn = known.space.decoded(state.x)
    drawn = drawn.reshape(batch, samples, *drawn.shape[1:])
    return Result(drawn, counted.calls, trace, **sampler.outcome(state, samples))


def sample_by(recipe: Recipe, problem: Problem, prior, **rest: Any) -> Result:
    """`sample` with the sampler, solver, steps, samples and seed of a recipe; ``rest`` is passed on."""
    return sample(problem, prior, *build(recipe, prior), recipe.steps, recipe.samples, recipe.seed, **rest)


def recipe_of(posterior: str | Posterior, form: str, options: Mapping[str, Any] | None) -> Usual:
    """The recipe of a sampler that is called by name; raises `ConfigError` for a form or options that do not apply."""
    if form not in FORMS_OF_A_SAMPLER:
        raise unknown("form", form, FORMS_OF_A_SAMPLER)
    if isinstance(posterior, str):
        return PAPER if form == "paper" else usual_of(posterior)
    if options:
        raise ConfigError(
            f"{type(posterior).__name__} was given as an object, and options beside it.",
            "An object has its options.",
            'Give its name, posterior="dds", or build it with them.',
        )
    return PAPER


def refuse_other_prior(sampler: Posterior, prior) -> None:
    """Raise `ConfigError` where ``sampler`` was built with another prior: one of the two would be lost."""
    own = sampler.prior
    same = own is prior or (isinstance(own, MethodType) and own == prior)  # a method is made at each look-up
    if own is not None and not same:
        raise ConfigError(
            f"{type(sampler).__name__} was built with another prior than sample was given.",
            "Only one of the two could be used.",
            "Give both the same, or build the sampler without one: posterior(None, ...), posterior(...).",
        )


def refuse_second_start(sampler: Posterior, prior, init: Tensor | None) -> None:
    """Of a sampler that makes its own start: another one would be lost."""
    if sampler.own_start and (init is not None or about(prior).start is not None):
        raise ConfigError(
            f"{type(sampler).__name__} makes its own start, and was given {'an init' if init is not None else 'a prior with one'}.",
            "One of the two would be lost.",
            'Tell the sampler to keep the start it is given: init="noise".',
        )


def refuse_other_images(prior, batch: int) -> None:
    """A restoration prior knows its images one by one: they are the problem's."""
    degraded = about(prior).degraded
    images = batch if degraded is None else len(degraded)
    if images != batch:
        raise ConfigError(
            f"The prior restores {images} degraded images, the problem holds {batch}.",
            do="Build the prior for the images of this problem.",
        )


def noise_levels(
    prior, steps: int, grid, init, sigma_start: float | None, usual: Usual = PAPER
) -> list[float]:
    """The levels of the walk, from ``sigma_0`` down to 0, as `sample` says; raises `ConfigError` where they contradict."""
    named = grid is None or isinstance(grid, str)
    if init is not None and sigma_start is None and named:
        raise ConfigError(
            "init without sigma_start.",
            "A warm start is the image plus noise of a stated level.",
            "Give sigma_start, for example 0.3 in units of the image.",
        )
    if not named:
        levels = grids.validated(grid)
        if sigma_start is not None and not math.isclose(sigma_start, levels[0]):
            raise ConfigError(
                f"sigma_start is {sigma_start}, the grid starts at {levels[0]}.",
                "The levels of a grid say where it starts.",
                "Leave one of the two out.",
            )
        return levels
    top, low = usual.levels(prior)
    top = top if sigma_start is None else sigma_start
    return make_grid(str(grid or usual.grid), steps, top, min(low, top / 2))


def zeros(problem: Problem, rows: int) -> Tensor:
    """States of the problem: shape, dtype and device."""
    return problem.A._zeros(rows, working_dtype(problem.y), problem.y.device)


def check_init(init: Tensor, problem: Problem) -> None:
    """Raise `ConfigError` for a start that does not have the shape and kind of the problem's images."""
    wanted = (len(problem.y), *problem.A.domain)
    if tuple(init.shape) != wanted:
        raise ConfigError(f"init is {tuple(init.shape)}.", f"The problem's images are {wanted}.")
    if init.is_complex() and not problem.A.complex_domain:
        raise ConfigError(
            f"init is {init.dtype}.", "The problem's images are real.", "Take init.real or init.abs()."
        )
    refuse_no_numbers("init", init)


def readings(sampler: Posterior, states: Iterable[State]) -> Iterator[tuple[int, State, dict[str, float]]]:
    """(step, state, entry of the trace) of every state; its residual is nan where something is not finite.

    On a GPU a number is read when the next step is under way, so that no step waits for it.
    """
    waiting: deque[tuple] = deque()
    for index, state in enumerate(states):
        problem = cast(Problem, sampler.problem_at(state))
        residual = problem.residual(state.x if state.x0 is None else state.x0).median()
        x = torch.view_as_real(state.x) if state.x.is_complex() else state.x
        entries = {"residual": residual, **sampler.diagnostics(state)}
        watched = [x.sum(), *list(entries.values())[1:]]
        finite = torch.isfinite(torch.stack([number.double() for number in watched])).all()
        entries["residual"] = torch.where(finite, residual, math.nan)
        numbers = torch.stack([entry.double() for entry in entries.values()]).to("cpu", non_blocking=True)
        read = torch.cuda.Event() if state.x.is_cuda else None
        if read is not None:
            read.record()
        waiting.append((index, state, list(entries), numbers, read))
        if read is None or len(waiting) > 1:
            yield arrived(*waiting.popleft())
    for one in waiting:
        yield arrived(*one)


def arrived(
    index: int, state: State, names: list[str], numbers: Tensor, read: Any
) -> tuple[int, State, dict[str, float]]:
    """One of `readings`, once its numbers are on the processor."""
    if read is not None:
        read.synchronize()
    return index, state, {"sigma": state.sigma, **dict(zip(names, numbers.tolist(), strict=True))}


def refuse_divergence(state: State, index: int, posterior, solver) -> None:
    """Raise `SamplingError`: who diverged, where, and what to change."""
    raise SamplingError(
        f"{type(posterior).__name__} with {type(solver).__name__} diverged at step {index}, sigma {state.sigma:.4g}.",
        "The state is no longer finite.",
        posterior.knob,
    )
