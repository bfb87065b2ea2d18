"""Weighed particles: an ensemble around any sampler, which corrects its bias by weights and resampling."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from ...errors import ConfigError, unknown
from ...noise import Draw
from ...problem import Problem
from ...solvers.base import Solver
from ...state import Move, State
from ..around import Around
from ..base import Posterior
from .kernels import refuse_solver, refuse_steps, refuse_unweighable
from .particles import Particles, by_image, by_row, distinct, effective, log_mean, tempering
from .potential import Each, Potential
from .resampling import SCHEMES, resampled
from .target import ANNEALINGS, Target
from .weights import WEIGHINGS

LONE_PARTICLE = 1.05  # effective particles, of a weight that one has


class Ensemble(Around):
    """Weighs by ``K / K_G exp(-(alpha(t) mu(x') - alpha(s) mu(x)))`` a step: sequential Monte Carlo around a sampler.

    A step goes from x at s to x' at t; ``mu(x) = ||A x - y||^2 / (2 sigma_y^2)`` at the noisy point. K_G(x' | x) is
    the solver's kernel guided by ``inner``, K the same kernel shown the prior's estimate at the same x: no further
    network call. The target at level s is ``p_s(x) exp(-alpha(s) mu(x))``, ``alpha(0) = 1``. So the weighed particles
    have the law of the solver's unguided chain, conditioned on y, for any guidance and any number of steps. The
    step to 0 is unguided. Around an unguided sampler a deterministic solver is admitted too (K = K_G): importance
    sampling, never resampled unless ``langevin`` separates the copies. A sampler that moves the state
    between steps, or runs a loop of its own, is refused.

    ``resample``: "systematic", "stratified", "residual", "multinomial", of an image's particles where
    fewer than a share ``ess`` of them are effective, and where the copies part again: not before the last step.
    ``annealing``: "matched", ``alpha = sigma_y^2 / (sigma_y^2 + c s^2)``; "linear", ``1 - s / s_0``; or
    alpha(s) itself, 1 at 0. ``c``: default ``||A||^2`` (``lipschitz^2`` of nonlinear operators). ``initial``: "tilted"
    draws from ``N(x; 0, s_0^2) exp(-alpha mu)`` exactly (linear operators), "prior" keeps the start and
    weighs it; default tilted where possible. ``langevin``: unadjusted steps on the target after each
    step, of size ``.3 / (1 / s^2 + alpha ||A||^2 / sigma_y^2)``, a network call each; they widen it by a
    share of their size, which the evidence feels. ``weights="feynman-kac"``: the paper's drift and
    weights of continuous time, for an unguided inner sampler; they need the Laplacian of mu (a linear A), and
    are right for small steps only. ``temper`` raises the weights to the power, 1 at most, that leaves that share of
    the particles effective: biased towards ``inner``, and without an evidence (nan), but no worse than ``inner`` by
    more than as many fewer samples. ``temper=0`` for exact weights and many particles.

    Traps: weights are exponentials of sums over all measurements, and their logarithms spread like the root
    of that number: untempered, one of a few particles soon has all the weight; ``result.least_ess`` and
    ``result.ancestors`` say so, ``result.ess`` of the end does not, and a warning where one took all. A deterministic solver
    without ``langevin`` is warned of: what the prior never proposes is never found. DDS with its noise kept (its default) pulls by a share a step, so that its
    ensemble's weights spread the more the more steps; ``keep="state"`` proposes better. What an over-confident
    guidance never proposes, the weights cannot bring back.
    Source: Chen, Ren, Min, Ying, Izzo 2025 (AFDPS); path weights by Girsanov's formula in discrete time.
    """

    def __init__(
        self,
        inner: Posterior,
        problem: Problem | None = None,
        *,
        resample: str = "systematic",
        ess: float = 0.5,
        weights: str = "path",
        annealing: str | Callable[[float], float] = "matched",
        c: float | None = None,
        initial: str | None = None,
        langevin: int = 0,
        temper: float = 0.8,
    ):
        if resample not in SCHEMES:
            raise unknown("resampling", resample, SCHEMES)
        for name, share in (("ess", ess), ("temper", temper)):
            if not 0 <= share <= 1:
                raise ConfigError(f"{name} is {share}.", "It is a share of the particles, between 0 and 1.")
        if weights not in WEIGHINGS:
            raise unknown("kind of weights", weights, WEIGHINGS)
        if not callable(annealing) and annealing not in ANNEALINGS:
            raise unknown("annealing", annealing, ANNEALINGS)
        if initial not in (None, "tilted", "prior"):
            raise ConfigError(f"initial is {initial!r}.", 'It is "tilted" or "prior".')
        if c is not None and not c > 0:
            raise ConfigError(f"c is {c}.", "alpha = sigma_y^2 / (sigma_y^2 + c s^2) falls with s.", "Leave it out: ||A||^2.")  # fmt: skip
        if langevin < 0:
            raise ConfigError(f"langevin is {langevin}.", "It is a number of steps.", "Use 0 for none.")
        self.resample, self.ess, self.temper = resample, ess, temper
        self.weights, self.weighing = weights, WEIGHINGS[weights]
        self.annealing, self.c, self.initial, self.langevin = annealing, c, initial, langevin
        self.still = False  # whether the steps of a walk have no noise: `prepared`
        self.last = 0.0  # the walk's last level above 0
        super().__init__(inner, problem)

    @property
    def guided(self) -> bool:
        """Whether the solver sees anything but the prior."""
        return type(self.inner).denoise is not Posterior.denoise

    # --- checks ------------------------------------------------------------------------------------------

    def check_inner(self) -> None:
        """Refuses an ensemble, what acts beside ``denoise``, and guidance under Feynman-Kac weights."""
        if isinstance(self.inner, Ensemble):
            raise ConfigError(
                f"Ensemble was given {type(self.inner).__name__}.",
                "It is an ensemble already.",
                "Put it around the prior, DDS, DPS or PiGDM.",
            )
        refuse_unweighable(self.inner)
        if self.weights == "feynman-kac" and self.guided:
            raise ConfigError(
                f"Feynman-Kac weights around {type(self.inner).__name__}.",
                "They hold for their own drift -V^2 alpha grad mu(x) only.",
                'Use weights="path", which admits any guidance.',
            )

    def check_problem(self, problem: Problem) -> None:
        """Refuses measurements without noise, and options that need a linear operator; makes the `Target`."""
        super().check_problem(problem)
        if problem.sigma == 0:
            raise ConfigError(
                "The problem's sigma is 0.",
                "An ensemble weighs by exp(-||A x - y||^2 / (2 sigma^2)).",
                "State the noise of the measurements; a small number acts as a temperature.",
            )
        if not problem.A.linear and (self.initial == "tilted" or self.weights == "feynman-kac"):
            raise ConfigError(
                f"{problem.A!r} is not linear.",
                "The tilted start solves normal equations, Feynman-Kac weights need a constant Laplacian.",
                'Use initial="prior" and weights="path".',
            )
        known: Target | None = vars(self).get("target")
        top = math.nan if known is None else known.top
        potential = Potential(problem) if known is None else known.potential.given(problem)
        self.target = Target(potential, self.annealing, self.c, top)

    def pair(self, solver: Solver) -> None:
        """Refuses solvers without a transition density, or with several evaluations a step."""
        super().pair(solver)
        refuse_solver(type(self).__name__, self.inner, self.guided, solver)

    def prepared(self, solver: Solver, grid: list[float], samples: int) -> Ensemble:
        """A copy that knows its particles and levels; refuses grids with steps that cannot be weighed."""
        self.pair(solver)
        other = cast(Ensemble, super().prepared(solver, grid, samples))
        other.still, other.last = not solver.stochastic, grid[-2] if grid[-1] == 0 else 0.0
        other.target = replace(self.target, top=grid[0])
        _ = other.target.potential.largest_norm_squared  # computed once, so that no step waits for it
        if self.weights == "feynman-kac":
            _ = other.target.potential.laplacian
        refuse_steps(solver, grid, self.guided, other.pull)
        if other.still and not self.langevin:
            warnings.warn(
                f"{type(self).__name__} with {type(solver).__name__}: importance sampling. The particles are drawn from the "
                "prior alone and one usually gets all the weight. Take a stochastic solver, sde-dpm++1, or langevin=1.",
                stacklevel=2,
            )
        return other

    def network_calls(self, solver: Solver, steps: int, lowest: float | None = None) -> int:
        """The inner sampler's, and one a Langevin step."""
        return super().network_calls(solver, steps, lowest) + self.langevin * (steps - 1)

    def pull(self, s: float, kept: float, std: float) -> Each:
        """What explicit guidance takes off ``x' = kept x`` in the best measured direction."""
        return std**2 * self.target.alpha(s) * self.target.precision if self.weights == "feynman-kac" else 0.0

    # --- the seams ---------------------------------------------------------------------------------------

    def start(self, state: State, draw: Draw) -> State:
        """The weighed start: the state with ``log_w = -alpha mu``, or the tilted draw, whose weights are equal."""
        inner = self.inner.start(state, draw)
        alpha = self.target.alpha(state.sigma)
        potential = alpha * self.target.potential(state.x)
        log_w, log_z, x = -potential, torch.zeros_like(potential), state.x
        tilted = self.initial == "tilted" or (self.initial is None and self.target.potential.problem.A.linear)
        if tilted and (isinstance(alpha, Tensor) or alpha > 0):
            log_z = by_row(log_mean(by_image(log_w, self.samples)), self.samples)
            x = self.target.tilted(x, alpha, state.sigma, draw)
            log_w, potential = torch.zeros_like(log_w), alpha * self.target.potential(x)
        slot = torch.arange(len(x), device=x.device) % self.samples
        ess = self.effective(log_w)
        memo = Particles(potential, log_z, ess, ess, slot, inner=inner.memo)
        return replace(state, x=x, log_w=log_w, memo=memo)

    def correct(self, state: State, move: Move, draw: Draw) -> State:
        """The step's weights, then tempering, resampling and Langevin steps, each where it is asked for."""
        state = super().correct(state, move, draw)
        if move.target == 0 and self.guided:  # the last step is the prior's
            state = replace(state, x=move.step.est.prior, x0=move.step.est.prior)
        state = self.weighing.weighed(self.target, state, move, self.guided, draw)
        ess = self.effective(cast(Tensor, state.log_w))
        state = replace(state, memo=replace(state.memo, ess=ess, least=torch.minimum(ess, state.memo.least)))
        if self.temper > 0:
            state = self.tempered(state)
        if self.separates(move.target):
            state = resampled(state, self.samples, self.ess, SCHEMES[self.resample], draw)
        return self.explored(state, draw) if self.langevin and move.target > 0 else state

    def tempered(self, state: State) -> State:
        """Weights to the power that keeps a share ``temper`` effective; below 1 there is no evidence (nan)."""
        log_w = cast(Tensor, state.log_w)
        power = by_row(tempering(by_image(log_w, self.samples), self.temper), self.samples)
        log_z = torch.where(power < 1, math.nan, state.memo.log_z)
        return replace(state, log_w=log_w * power, memo=replace(state.memo, log_z=log_z))

    def separates(self, target: float) -> bool:
        """Whether copies of a particle at this level would part again; else resampling only loses some."""
        return target > 0 and (self.langevin > 0 or (target != self.last and not self.still))

    def explored(self, state: State, draw: Draw) -> State:
        """After Langevin steps on the target, which keep it, and so the weights; the solver's memory restarts."""
        x = self.target.explored(self.prior, state.x, state.sigma, self.langevin, draw)
        memo = replace(state.memo, potential=self.target.energy(x, state.sigma), past=())
        return replace(state, x=x, past=(), memo=memo)

    def effective(self, log_w: Tensor) -> Tensor:
        """Effective particles of each row's image (rows,)."""
        return by_row(effective(by_image(log_w, self.samples)), self.samples)

    # --- what a walk tells -------------------------------------------------------------------------------

    def diagnostics(self, state: State) -> dict[str, Tensor]:
        """The trace's "ess", before tempering and resampling: of the image with the fewest."""
        return {**super().diagnostics(state), "ess": state.memo.ess.min()}

    def outcome(self, state: State, samples: int) -> dict[str, Any]:
        """Log-weights (B, S), the least effective number (B,), distinct ancestors (B,) and log-evidence (B,).

        Warns where one particle took all: the weight at the end, or all descend from it.
        """
        log_w = by_image(cast(Tensor, state.log_w), samples)
        ancestors = distinct(by_image(state.memo.ancestors, samples))
        alone = (ancestors == 1) | (effective(log_w) < LONE_PARTICLE)
        if samples > 1 and bool(alone.any()):
            warnings.warn(
                f"One of {samples} particles took all in {int(alone.sum())} of {len(alone)} images: they say nothing of the "
                "uncertainty. Take more particles, a better inner sampler, or tempered weights (temper=0.8).",
                stacklevel=2,
            )
        return {
            **super().outcome(state, samples),
            "log_weights": log_w,
            "least_ess": by_image(state.memo.least, samples)[:, 0],
            "ancestors": ancestors,
            "log_evidence": by_image(state.memo.log_z, samples)[:, 0]
            + log_w.logsumexp(1)
            - math.log(samples),
        }
