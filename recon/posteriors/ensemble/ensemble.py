"""Weighed particles: an ensemble around any sampler, which corrects its bias by weights and resampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from operators.base import Linear
from operators.krylov import cg

from ...errors import ConfigError, unknown
from ...noise import Draw, Noise
from ...problem import Problem, inner64
from ...state import Estimate, Move, Past, State, permuted
from ..base import Around, Posterior
from .potential import Each, Potential, times
from .resampling import SCHEMES

WEIGHTS = ("path", "feynman-kac")
ANNEALINGS = ("matched", "linear")
INITIALS = (None, "tilted", "prior")


@dataclass(frozen=True)
class Particles:
    """What an ensemble carries beside the state; every tensor has a row a particle.

    ``potential``: ``alpha mu`` as it was last weighed, so that measurements that come later are weighed
    against it. ``log_z``: evidence collected so far. ``ess``: effective particles of the row's image
    before it was resampled. ``ancestors``: the slot its line started from. ``past``: the unguided memory
    of a multistep solver. ``inner``: the memo of the sampler inside.
    """

    potential: Tensor
    log_z: Tensor
    ess: Tensor
    ancestors: Tensor
    past: Past = ()
    inner: Any = None

    def take(self, rows: Tensor) -> Particles:
        inner = self.inner.take(rows) if hasattr(self.inner, "take") else self.inner
        own = {f.name: permuted(getattr(self, f.name), rows) for f in fields(self) if f.name != "inner"}
        return Particles(**own, inner=inner)


class Ensemble(Around):
    """Sequential Monte Carlo around a sampler: particles weighed by what it left out, and resampled.

    The target at level s is ``p_s(x) exp(-alpha(s) mu(x))``, ``mu(x) = ||A x - y||^2 / (2 sigma_y^2)``
    at the noisy point, ``alpha(0) = 1``. A step from x at s to x' at t multiplies the weight by

        K(x' | x) / K_G(x' | x) * exp(-(alpha(t) mu(x') - alpha(s) mu(x)))

    where K_G is the solver's kernel guided by ``inner``, and K the same kernel shown the prior's
    estimate at the same x: no network call more. So the weighed particles have the law of the solver's
    unguided chain, conditioned on y, for any guidance and any number of steps. The step to 0 is
    unguided. Around an unguided sampler a deterministic solver is admitted too (K = K_G): importance
    sampling, never resampled unless ``langevin`` separates the copies. A sampler that moves the state
    between steps, or runs a loop of its own, is refused.

    ``resample``: "systematic", "stratified", "residual", "multinomial", of an image's particles where
    fewer than a share ``ess`` of them count, and where the copies part again: not before the last step.
    ``annealing``: "matched", ``alpha = sigma_y^2 / (sigma_y^2 + c s^2)``; "linear", ``1 - s / s_0``; or
    alpha(s) itself, 1 at 0. ``c``: default ``||A||^2`` (1 for nonlinear operators). ``initial``: "tilted"
    draws from ``N(x; 0, s_0^2) exp(-alpha mu)`` exactly (linear operators), "prior" keeps the start and
    weighs it; default tilted where possible. ``langevin``: unadjusted steps on the target after each
    move, of size ``.3 / (1 / s^2 + alpha ||A||^2 / sigma_y^2)``, a network call each; they widen it by a
    share of their size, which the evidence feels. ``weights="feynman-kac"``: the paper's drift and
    weights of continuous time, for an unguided inner; they need the Laplacian of mu (a linear A), and
    are right for small steps only.

    Weights are exponentials of sums over all measurements, and their logarithms spread like the root
    of that number: on images one of a few particles soon has all the weight. ``result.ess`` and
    ``result.ancestors`` say so. ``temper`` raises the weights to the power, 1 at most, that leaves that
    share of the particles effective: biased towards ``inner``, and without an evidence (nan). For images
    ``temper=0.8``; for exact weights 0 and many particles.

    Traps: DDS with its noise kept (its default) pulls by a share a step, so that its ensemble's weights
    spread the more the more steps; ``keep="state"`` proposes better. A guidance that is too sure of
    itself leaves out what the weights cannot bring back.
    Source: Chen, Ren, Min, Ying, Izzo 2025 (AFDPS); path weights by Girsanov's formula in discrete time.
    """

    needs_problem = True

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
        temper: float = 0.0,
    ):
        refuse_inner(inner)
        if resample not in SCHEMES:
            raise unknown("resampling", resample, SCHEMES)
        for name, share in (("ess", ess), ("temper", temper)):
            if not 0 <= share <= 1:
                raise ConfigError(f"{name} is {share}.", "It is a share of the particles, between 0 and 1.")
        if weights not in WEIGHTS:
            raise unknown("kind of weights", weights, WEIGHTS)
        if not callable(annealing) and annealing not in ANNEALINGS:
            raise unknown("annealing", annealing, ANNEALINGS)
        if initial not in INITIALS:
            raise ConfigError(f"initial is {initial!r}.", 'It is "tilted" or "prior".')
        if c is not None and not c > 0:
            raise ConfigError(f"c is {c}.", "alpha = sigma_y^2 / (sigma_y^2 + c s^2) falls with s.", "Leave it out: ||A||^2.")  # fmt: skip
        if langevin < 0:
            raise ConfigError(f"langevin is {langevin}.", "It is a number of steps.", "Use 0 for none.")
        self.inner, self.resample, self.ess, self.weights = inner, resample, ess, weights
        self.annealing, self.c, self.initial, self.langevin = annealing, c, initial, langevin
        self.temper = temper
        self.calls = inner.calls
        self.particles = 1  # a walk of its own knows better: `prepared`
        self.top, self.still, self.last = math.nan, False, 0.0
        if weights == "feynman-kac" and self.guided:
            raise ConfigError(
                f"Feynman-Kac weights around {type(inner).__name__}.",
                "They hold for their own drift -V^2 alpha grad mu(x) only.",
                'Use weights="path", which admits any guidance.',
            )
        self.problem = inner.problem if problem is None else problem
        if self.problem is not None:
            self.admit(self.problem)

    @property
    def guided(self) -> bool:
        """Whether the solver sees anything but the prior."""
        return type(self.inner).denoise is not Posterior.denoise

    # --- what is refused ---------------------------------------------------------------------------------

    def admit(self, problem: Problem) -> None:
        self.inner = self.inner.given(problem)
        if problem.sigma == 0:
            raise ConfigError(
                "The problem's sigma is 0.",
                "An ensemble weighs by exp(-||A x - y||^2 / (2 sigma^2)).",
                "State the noise of the measurements; a small number acts as a temperature.",
            )
        needed = {"tilted": self.initial == "tilted", "feynman-kac": self.weights == "feynman-kac"}
        if any(needed.values()) and not problem.A.linear:
            raise ConfigError(
                f"{problem.A!r} is not linear.",
                "The tilted start solves normal equations, Feynman-Kac weights need a constant Laplacian.",
                'Use initial="prior" and weights="path".',
            )
        known = vars(self).get("potential")
        self.potential = Potential(problem)
        same = known is not None and known.problem.A is problem.A and "norm_squared" in vars(known)
        if same and isinstance(known.norm_squared, float):
            vars(self.potential)["norm_squared"] = known.norm_squared

    def pair(self, solver) -> None:
        super().pair(solver)
        name = type(solver).__name__
        if not solver.kernel:
            raise ConfigError(
                f"{type(self).__name__} was given {name}.",
                "It weighs by transition densities, and this solver adds noise inside its step.",
                "Choose a solver that draws once a step: ddpm, sde-dpm++1, sde-dpm++2m.",
            )
        if not solver.stochastic and self.guided:
            raise ConfigError(
                f"{type(self).__name__} around {type(self.inner).__name__} was given {name}.",
                "A guided deterministic step has no density to weigh with.",
                "Choose a stochastic solver: ddpm, sde-dpm++1, sde-dpm++2m.",
            )
        if solver.stochastic and max(solver.evals, *solver.warmup, 1) > 1:
            raise ConfigError(
                f"{type(self).__name__} was given {name}.",
                "Its unguided kernel needs evaluations at points that the guided step does not visit.",
                "Choose a solver with one evaluation a step: ddpm, sde-dpm++1, sde-dpm++2m.",
            )

    def prepared(self, solver, grid: list[float], samples: int) -> Ensemble:
        """For one walk: its particles an image, its first level, and whether its steps are random."""
        self.pair(solver)
        other = self.copied(
            inner=self.inner.prepared(solver, grid, samples),
            particles=samples,
            top=grid[0],
            still=not solver.stochastic,
            last=grid[-2] if grid[-1] == 0 else 0.0,
        )
        _ = self.potential.largest_norm_squared  # asked for once, so that no step waits for it
        if self.weights == "feynman-kac":
            _ = self.potential.laplacian
        other.check_kernels(solver, grid)
        return other

    def network_calls(self, solver, steps: int, lowest: float | None = None) -> int:
        return super().network_calls(solver, steps, lowest) + self.langevin * (steps - 1)

    def check_kernels(self, solver, grid: list[float]) -> None:
        """Every step has noise where densities are compared; explicit guidance at the noisy point is stable."""
        for s, t, kept, std in kernels(solver, grid):
            if self.guided and std == 0:
                raise ConfigError(
                    f"{solver!r} adds no noise from sigma {s:.4g} to {t:.4g}.",
                    "A guided deterministic step has no density to weigh with.",
                    "Raise its eta.",
                )
            gains = torch.as_tensor(kept - self.pull(s, kept, std)).flatten()
            gain = float(gains[gains.abs().argmax()])
            if abs(gain) > max(1.0, abs(kept)) + 1e-6:  # by the guidance, not by the solver
                raise ConfigError(
                    f"The step from sigma {s:.4g} to {t:.4g} is too long for its explicit guidance.",
                    f"It multiplies deviations in a measured direction by {gain:.3g}.",
                    'Use annealing="matched", more steps, or a larger c.',
                )

    def pull(self, s: float, kept: float, std: float) -> Each:
        """What explicit guidance takes off ``x' = kept x`` in the best measured direction."""
        if self.weights == "path":
            return 0.0
        return std**2 * self.alpha(s) * self.potential.norm_squared / self.sigma_y**2

    # --- the target --------------------------------------------------------------------------------------

    @property
    def sigma_y(self) -> float:
        return self.potential.problem.sigma

    @property
    def scale(self) -> Each:
        """c."""
        return self.potential.norm_squared if self.c is None else self.c

    def alpha(self, sigma: float) -> Each:
        """The share of the likelihood that counts at this level."""
        if callable(self.annealing):
            return float(self.annealing(sigma))
        if self.annealing == "linear":
            return 1 - sigma / self.top
        return self.sigma_y**2 / (self.sigma_y**2 + self.scale * sigma**2)

    # --- the two seams -----------------------------------------------------------------------------------

    def start(self, state: State, draw: Draw) -> State:
        inner = self.inner.start(state, draw)
        alpha = self.alpha(state.sigma)
        potential = alpha * self.potential(state.x)
        log_w, log_z, x = -potential, torch.zeros_like(potential), state.x
        tilted = self.initial == "tilted" or (self.initial is None and self.potential.problem.A.linear)
        if tilted and (isinstance(alpha, Tensor) or alpha > 0):
            log_z = self.spread(self.log_mean(log_w))
            x = self.tilted(x, alpha, state.sigma, draw)
            log_w, potential = torch.zeros_like(log_w), alpha * self.potential(x)
        slot = torch.arange(len(x), device=x.device) % self.particles
        memo = Particles(potential, log_z, torch.zeros_like(log_w), slot, (), inner.memo)
        return replace(state, x=x, log_w=log_w, memo=replace(memo, ess=self.spread(self.effective(log_w))))

    def tilted(self, x: Tensor, alpha: Each, sigma: float, draw: Draw) -> Tensor:
        """From ``x ~ N(m, s^2)`` to a draw of ``N(m, s^2) exp(-alpha mu)``: by perturbed measurements, exactly.

        ``(A^H A + l I) x' = A^H (y + sigma_y / sqrt(alpha) z) + l x``, ``l = sigma_y^2 / (alpha s^2)``.
        """
        A, y, lam = cast(Linear, self.potential.problem.A), self.potential.problem.y, self.sigma_y**2
        lam = lam / (alpha * sigma**2)
        y = y + times(self.sigma_y / alpha**0.5, draw(y, "tilt"))
        pull = A.adjoint(y - A.forward(x))  # of the change: a small right side loses less to rounding
        change = None if isinstance(lam, Tensor) else A.solve_normal(pull, lam)
        if change is None:  # well conditioned: the number is 1 + ||A||^2 / c at most under matched annealing
            condition = 2.0 if isinstance(lam, Tensor) else 1 + self.potential.largest_norm_squared / lam
            steps = min(math.ceil(14 * math.sqrt(condition)), 4 * x[0].numel())
            change = cg(lambda v: A.normal(v) + times(lam, v), pull, steps=steps, tol=1e-12)
        return x + change

    def denoise(self, x: Tensor, sigma: float, memo: Any = None) -> Estimate:
        return self.inner.denoise(x, sigma, memo.inner if isinstance(memo, Particles) else memo)

    def correct(self, state: State, move: Move, draw: Draw) -> State:
        memo = move.before.memo
        inside = replace(move, before=replace(move.before, memo=memo.inner))
        memo = replace(memo, inner=self.inner.correct(replace(state, memo=memo.inner), inside, draw).memo)
        if move.target == 0 and self.guided:  # the last step is the prior's
            state = replace(state, x=move.step.est.prior, x0=move.step.est.prior)
        if move.target == 0 or self.weights == "path":
            change, memo = self.path(state, move, memo, draw)
            potential = self.alpha(move.target) * self.potential(state.x)
            change = change - (potential - memo.potential)
        else:
            state, change = self.feynman_kac(state, move)
            potential = self.alpha(move.target) * self.potential(state.x)
        log_w = cast(Tensor, state.log_w) + change
        memo = replace(memo, potential=potential, ess=self.spread(self.effective(log_w)))
        if self.temper > 0:
            log_w, memo = self.tempered(log_w, memo)
        state = replace(state, log_w=log_w, memo=memo)
        if self.separates(move.target):
            state = self.resampled(state, draw)
        return self.explored(state, draw) if self.langevin and move.target > 0 else state

    # --- what a walk tells -------------------------------------------------------------------------------

    def inside(self, state: State) -> tuple[Posterior, State]:
        return self.inner, replace(state, memo=state.memo.inner)

    def diagnostics(self, state: State) -> dict[str, Tensor]:
        """ "ess": the effective particles before resampling, of the image with the fewest."""
        return {**super().diagnostics(state), "ess": state.memo.ess.min()}

    def outcome(self, state: State, samples: int) -> dict[str, Any]:
        """Log-weights (B, S), distinct ancestors (B,) and log-evidence (B,)."""
        log_w = cast(Tensor, state.log_w).view(-1, samples)
        lines = state.memo.ancestors.view(-1, samples).sort(1).values
        return {
            **super().outcome(state, samples),
            "log_weights": log_w,
            "ancestors": 1 + (lines.diff(dim=1) > 0).sum(1),
            "log_evidence": state.memo.log_z.view(-1, samples)[:, 0] + log_w.logsumexp(1) - math.log(samples),
        }

    # --- weights -----------------------------------------------------------------------------------------

    def path(self, state: State, move: Move, memo: Particles, draw: Draw) -> tuple[Tensor | float, Particles]:
        """``ln K(x' | x) - ln K_G(x' | x)``, and the unguided memory after the step."""
        step, before = move.step, move.before
        if not self.guided or move.target == 0:
            return 0.0, memo
        free = move.solver.step(
            lambda x, sigma: Estimate.keep_state(x, sigma, step.est.prior),
            before.x,
            move.sigma,
            move.target,
            memo.past if before.past else (),  # restarts where the guided one did
            draw,
        )
        shift = step.mean - free.mean
        distance = inner64(shift, shift + 2 * (state.x - step.mean))
        return -distance / (2 * step.std**2), replace(memo, past=free.past)

    def feynman_kac(self, state: State, move: Move) -> tuple[State, Tensor]:
        """AFDPS: ``x' <- x' - v alpha grad mu(x)`` and its weight, with ``v = std^2`` for ``V^2 dt`` and ``m - x`` for b dt.

        ``ln w += v / 2 (alpha^2 |grad mu|^2 - alpha Lap mu) - alpha <b dt, grad mu> - (alpha' mu - alpha mu)``;
        v = 0 is AFDPS-ODE.
        """
        before, alpha, variance = move.before, self.alpha(move.sigma), move.step.std**2
        value, gradient = self.potential.with_gradient(before.x)
        change = -alpha * inner64(move.step.mean - before.x, gradient)
        change = change - (self.alpha(move.target) * value - before.memo.potential)
        if variance > 0:
            slope = alpha**2 * inner64(gradient, gradient) - alpha * self.potential.laplacian
            change = change + variance / 2 * slope
            state = replace(state, x=state.x - times(variance * alpha, gradient))
        return state, change

    # --- an image's particles ----------------------------------------------------------------------------

    def grouped(self, rows: Tensor) -> Tensor:
        """(rows,) -> (B, S)."""
        return rows.view(-1, self.particles)

    def spread(self, images: Tensor) -> Tensor:
        """(B,) -> (rows,)."""
        return images.repeat_interleave(self.particles)

    def log_mean(self, log_w: Tensor) -> Tensor:
        """``ln mean_i w_i`` (B,)."""
        return self.grouped(log_w).logsumexp(1) - math.log(self.particles)

    def effective(self, log_w: Tensor) -> Tensor:
        """``1 / sum_i w_i^2`` (B,), of normalised weights: how many particles count."""
        return 1 / self.grouped(log_w).softmax(1).square().sum(1)

    def tempered(self, log_w: Tensor, memo: Particles) -> tuple[Tensor, Particles]:
        """Weights to the largest power up to 1 that leaves a share ``temper`` of the particles effective, by bisection."""
        wanted = self.temper * self.particles * (1 - 1e-9)
        low, high = torch.zeros_like(self.grouped(log_w)[:, 0]), torch.ones_like(self.grouped(log_w)[:, 0])
        power = high
        for _ in range(50):
            enough = self.effective(log_w * self.spread(power)) >= wanted
            low, high = torch.where(enough, power, low), torch.where(enough, high, power)
            power = torch.where(low < 1, (low + high) / 2, 1.0)
        kept = self.spread(torch.where(low < 1, low.clamp_min(1e-15), 1.0))
        return log_w * kept, replace(memo, log_z=torch.where(kept < 1, math.nan, memo.log_z))

    def separates(self, target: float) -> bool:
        """Whether copies of a particle at this level would part again; else resampling only loses some."""
        return target > 0 and (self.langevin > 0 or (target != self.last and not self.still))

    def resampled(self, state: State, draw: Draw) -> State:
        """The images whose ESS is low with copied particles of equal weight; the others as they are."""
        log_w = cast(Tensor, state.log_w)
        low = self.effective(log_w) < self.ess * self.particles
        if self.particles == 1 or (not low.is_cuda and not low.any()):  # on a GPU, asking would wait
            return state
        u = self.uniforms(log_w, draw)
        chosen = SCHEMES[self.resample](self.grouped(log_w).softmax(1), u)
        own = torch.arange(self.particles, device=log_w.device).expand_as(chosen)
        first = torch.arange(len(chosen), device=log_w.device)[:, None] * self.particles
        rows = (torch.where(low[:, None], chosen, own) + first).flatten()
        log_z = state.memo.log_z + self.spread(torch.where(low, self.log_mean(log_w), 0.0))
        log_w = torch.where(self.spread(low), 0.0, log_w)
        return replace(state, log_w=log_w, memo=replace(state.memo, log_z=log_z)).take(rows)

    def uniforms(self, log_w: Tensor, draw: Draw) -> Tensor:
        """Uniform numbers (B, S) in [0, 1)."""
        return torch.special.ndtr(self.grouped(draw(log_w, "resample")))

    def explored(self, state: State, draw: Draw) -> State:
        """Langevin steps on the target at this level, which keep it, and so the weights."""
        x, s, alpha = state.x, state.sigma, self.alpha(state.sigma)
        size = 0.3 / (1 / s**2 + alpha * self.potential.norm_squared / self.sigma_y**2)
        for index in range(self.langevin):
            score = (self.prior(x, s) - x) * (1 / s**2) - times(alpha, self.potential.gradient(x))
            x = x + times(size, score) + times((2 * size) ** 0.5, draw(x, f"langevin{index}"))
        memo = replace(state.memo, potential=alpha * self.potential(x), past=())
        return replace(state, x=x, past=(), memo=memo)


def refuse_inner(inner: Posterior) -> None:
    """Only samplers that act through ``denoise`` alone can be weighed; one whose ``correct`` only keeps books says ``moves_state = False``."""
    kind, why = type(inner), ""
    if isinstance(inner, Ensemble):
        why = "It is an ensemble already."
    elif kind.run is not Posterior.run:
        why = "It runs a loop of its own, which has no kernels to weigh."
    elif getattr(
        kind, "moves_state", kind.start is not Posterior.start or kind.correct is not Posterior.correct
    ):
        why = "It moves the state between steps, and no density says how."
    if why:
        raise ConfigError(
            f"Ensemble was given {kind.__name__}.", why, "Put it around the prior, DDS, DPS or PiGDM."
        )


def kernels(solver, grid: list[float]) -> Iterator[tuple[float, float, float, float]]:
    """(s, t, kept, std) of every step to t > 0: ``x' = kept x + std z`` where the prior says 0."""

    def see(x: Tensor, sigma: float) -> Estimate:
        return Estimate.keep_state(x, sigma, torch.zeros_like(x))

    one, draw = torch.ones(1, 1, dtype=torch.float64), Noise(0).at(0)
    for s, t in pairwise(grid):
        if t > 0:
            step = solver.step(see, one, s, t, (), draw)
            yield s, t, float(step.mean), step.std
