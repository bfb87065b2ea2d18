"""Worlds with every answer in closed form: Gaussians and Gaussian mixtures, their denoisers, flows and posteriors.

Everything is dense linear algebra in float64 over the flattened real view, written independently of
`recon.priors`. ``affine_walk`` reads off the exact affine map of a whole walk on a Gaussian world.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

import operators as op
from recon.state import Estimate


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_complex(*shape: int, seed: int = 0) -> Tensor:
    return torch.view_as_complex(random(*shape, 2, seed=seed))


def flat(x: Tensor) -> Tensor:
    """(rows, ...) -> (rows, n) real."""
    return (torch.view_as_real(x) if x.is_complex() else x).flatten(1)


def unflat(v: Tensor, domain: tuple[int, ...], is_complex: bool = False) -> Tensor:
    if is_complex:
        return torch.view_as_complex(v.reshape(len(v), *domain, 2).contiguous())
    return v.reshape(len(v), *domain)


@dataclass(frozen=True, eq=False)
class Matrix(op.Linear):
    """``A x`` for a dense (m, n) matrix, real or complex."""

    matrix: Tensor

    @property
    def domain(self) -> tuple[int, ...]:
        return (self.matrix.shape[1],)

    @property
    def complex_domain(self) -> bool:
        return self.matrix.is_complex()

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix.T

    def adjoint(self, y: Tensor) -> Tensor:
        return y @ self.matrix.conj()


def dense(A: op.Linear) -> Tensor:
    """The real-view matrix of an operator, column by column."""
    n = math.prod(A.domain) * (2 if A.complex_domain else 1)
    basis = unflat(torch.eye(n, dtype=torch.float64), tuple(A.domain), A.complex_domain)
    return flat(A.forward(basis)).T


def identity_denoiser(D: Callable[[Tensor, float], Tensor]) -> Callable[[Tensor, float], Estimate]:
    """What a solver sees of a bare denoiser."""
    return lambda x, sigma: Estimate.keep_state(x, sigma, D(x, sigma))


@dataclass(frozen=True, eq=False)
class GaussianWorld:
    """``x0 ~ N(mean, covariance)`` over the real view of images of shape ``domain``."""

    mean: Tensor  # (n,)
    covariance: Tensor  # (n, n)
    domain: tuple[int, ...]
    is_complex: bool = False

    @cached_property
    def data_var(self) -> float:
        return float(self.covariance.diagonal().mean())

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        return torch.linalg.eigh(self.covariance)

    def gain(self, sigma: float) -> Tensor:
        """``K = C (C + s^2 I)^-1``."""
        noisy = self.covariance + sigma**2 * torch.eye(len(self.mean), dtype=torch.float64)
        return torch.linalg.solve(noisy, self.covariance)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """``D = m + K (x - m)``."""
        v = self.mean + (flat(x) - self.mean) @ self.gain(sigma).T
        return unflat(v, self.domain, self.is_complex)

    def flow(self, x: Tensor, sigma: float, target: float) -> Tensor:
        """Exact probability-flow ODE: ``m + ((C + t^2) (C + s^2)^-1)^(1/2) (x - m)``."""
        values, basis = self.spectrum
        scale = ((values + target**2) / (values + sigma**2)).sqrt()
        v = self.mean + ((flat(x) - self.mean) @ basis * scale) @ basis.T
        return unflat(v, self.domain, self.is_complex)

    def marginal(self, sigma: float) -> Tensor:
        """Covariance of ``x0 + s eps``."""
        return self.covariance + sigma**2 * torch.eye(len(self.mean), dtype=torch.float64)

    def posterior(self, A: op.Linear, y: Tensor, sigma_y: float) -> GaussianWorld:
        """``P = (C^-1 + A^H A / s_y^2)^-1``, mean ``P (C^-1 m + A^H y / s_y^2)``; y (1, *codomain)."""
        matrix, precision = dense(A), torch.linalg.inv(self.covariance)
        covariance = torch.linalg.inv(precision + matrix.T @ matrix / sigma_y**2)
        mean = covariance @ (precision @ self.mean + matrix.T @ flat(y)[0] / sigma_y**2)
        return GaussianWorld(mean, (covariance + covariance.T) / 2, self.domain, self.is_complex)


@dataclass(frozen=True, eq=False)
class MixtureWorld:
    """``x0 ~ sum_k w_k N(m_k, C_k)`` on real images of shape (n,)."""

    weights: Tensor  # (K,)
    means: Tensor  # (K, n)
    covariances: Tensor  # (K, n, n)

    def log_density(self, x: Tensor, sigma: float) -> Tensor:
        """``ln p_s(x)`` (rows,) of ``x0 + s eps``."""
        noisy = self.covariances + sigma**2 * torch.eye(self.means.shape[1], dtype=torch.float64)
        parts = MultivariateNormal(self.means, noisy).log_prob(x[:, None]) + self.weights.log()
        return parts.logsumexp(1)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """Tweedie: ``D = x + s^2 grad ln p_s(x)``, by autograd."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (score,) = torch.autograd.grad(self.log_density(x, sigma).sum(), x)
        return x.detach() + sigma**2 * score

    def distribution(self, x: Tensor, sigma: float) -> Tensor:
        """One dimension: ``P(x_s <= x)``, x (rows, 1)."""
        std = (self.covariances[:, 0, 0] + sigma**2).sqrt()
        return (self.weights * torch.special.ndtr((x - self.means[:, 0]) / std)).sum(1, keepdim=True)

    def flow(self, x: Tensor, sigma: float, target: float) -> Tensor:
        """One dimension: the ODE keeps quantiles, so ``F_t(x_t) = F_s(x_s)``; solved by bisection."""
        share = self.distribution(x, sigma)
        low, high = torch.full_like(x, -1e3), torch.full_like(x, 1e3)
        for _ in range(80):
            middle = (low + high) / 2
            below = self.distribution(middle, target) < share
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def posterior(self, A: op.Linear, y: Tensor, sigma_y: float) -> MixtureWorld:
        """Each component's own posterior, weighed by ``N(y; A m_k, A C_k A^T + s_y^2 I)``."""
        matrix, y = dense(A), y[0]
        noise = sigma_y**2 * torch.eye(len(y), dtype=torch.float64)
        evidence = MultivariateNormal(self.means @ matrix.T, matrix @ self.covariances @ matrix.T + noise)
        weights = torch.softmax(self.weights.log() + evidence.log_prob(y), 0)
        parts = [
            GaussianWorld(m, C, tuple(A.domain)).posterior(A, y[None], sigma_y)
            for m, C in zip(self.means, self.covariances, strict=True)
        ]
        return MixtureWorld(
            weights, torch.stack([p.mean for p in parts]), torch.stack([p.covariance for p in parts])
        )


ANISOTROPIC = GaussianWorld(
    torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64),
    torch.tensor([0.04, 0.5, 2.0], dtype=torch.float64).diag(),
    (3,),
)
CORRELATED = GaussianWorld(
    torch.tensor([0.3, -0.7, 1.1, 0.2], dtype=torch.float64),
    (lambda b: b @ torch.tensor([2.0, 1.0, 0.5, 0.2], dtype=torch.float64).diag() @ b.T)(
        torch.linalg.qr(random(4, 4, seed=7))[0]
    ),
    (4,),
)
BIMODAL = MixtureWorld(
    torch.tensor([0.3, 0.7], dtype=torch.float64),
    torch.tensor([[-1.0], [0.8]], dtype=torch.float64),
    torch.tensor([[[0.25]], [[0.16]]], dtype=torch.float64),
)


def isotropic(domain: tuple[int, ...], variance: float, is_complex: bool = False) -> GaussianWorld:
    n = math.prod(domain) * (2 if is_complex else 1)
    return GaussianWorld(random(n, seed=11), variance * torch.eye(n, dtype=torch.float64), domain, is_complex)


# --- levels of the variance-preserving schedule with linear beta from .1 to 20 -----------------------------


def vp_scale(t: float) -> float:
    """``a_t``."""
    return math.exp(-(t**2) * 19.9 / 4 - t * 0.1 / 2)


def vp_sigma(t: float) -> float:
    """``sigma_t / a_t``: the same level where the state is ``x0 + sigma eps``."""
    a = vp_scale(t)
    return math.sqrt(1 - a * a) / a


def levels(kind: str, steps: int, start: float = 0.9, end: float = 0.05) -> list[float]:
    """``steps`` intervals from VP time ``start`` to ``end``, uniform in half log-SNR, t, sqrt(t), flow time or sigma."""
    share = [i / steps for i in range(steps + 1)]
    if kind == "sigma":  # between the times .4 and .2, whatever start and end
        high, low = vp_sigma(0.4), vp_sigma(0.2)
        return [high + s * (low - high) for s in share]
    if kind == "lam":
        high, low = math.log(vp_sigma(start)), math.log(vp_sigma(end))
        return [math.exp(high + s * (low - high)) for s in share]
    if kind == "flow":
        high, low = (vp_sigma(t) / (1 + vp_sigma(t)) for t in (start, end))
        return [1 / (1 / (high + s * (low - high)) - 1) for s in share]
    power = {"t": 1.0, "quadratic": 0.5}[kind]
    return [vp_sigma((start**power + s * (end**power - start**power)) ** (1 / power)) for s in share]


def random_levels(steps: int, seed: int, top: float = 20.0, bottom: float = 0.05) -> list[float]:
    """An irregular grid: neighbours a random factor between 1.2 and 3 apart before scaling, no zero."""
    gaps = 0.2 + torch.rand(steps, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    place = torch.cat([torch.zeros(1, dtype=torch.float64), (gaps / gaps.sum()).cumsum(0)])
    return torch.exp(math.log(top) + place * (math.log(bottom) - math.log(top))).tolist()


# --- injected noise and the exact law of a walk ------------------------------------------------------------


class Injected:
    """A source of noise with the draws prescribed: (step, stream, count) -> (rows, n); zero elsewhere.

    ``asked`` lists what was drawn, in order, and of how many real numbers a row.
    """

    samples = 1

    def __init__(self, draws: dict[tuple[int, str, int], Tensor] | None = None):
        self.draws, self.asked = draws or {}, {}

    def at(self, step: int):
        counts: dict[str, int] = {}

        def draw(like: Tensor, stream: str = "step") -> Tensor:
            key = (step, stream, counts.get(stream, 0))
            counts[stream] = key[2] + 1
            self.asked[key] = flat(like).shape[1]
            given = self.draws.get(key)
            return (
                torch.zeros_like(like) if given is None else unflat(given, like.shape[1:], like.is_complex())
            )

        return draw


class Law(NamedTuple):
    """``x_end = matrix x_start + offset + sum_k noises[k] xi_k``, over the real view."""

    matrix: Tensor
    offset: Tensor
    noises: Tensor  # (K, n, the longest draw)

    def moments(self, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        spread = torch.einsum("kij,klj->il", self.noises, self.noises)
        return self.offset + self.matrix @ mean, self.matrix @ covariance @ self.matrix.T + spread


def affine_walk(
    posterior, solver, grid: list[float], domain: tuple[int, ...], is_complex: bool = False
) -> Law:
    """The exact affine map of a walk, by one batched probe of the start and of every draw.

    A posterior with a problem gets its measurements repeated for the rows of the probe. A row of random
    numbers asserts that the map is affine.
    """
    n = math.prod(domain) * (2 if is_complex else 1)

    def run(start: Tensor, noise: Injected) -> Tensor:
        sampler = posterior
        if posterior.problem is not None:
            sampler = posterior.given(posterior.problem.repeated(len(start)))
        return flat(last(sampler.run(solver, grid, unflat(start, domain, is_complex), noise)).x)

    dry = Injected()
    run(torch.zeros(1, n, dtype=torch.float64), dry)
    keys, longest = list(dry.asked), max(dry.asked.values(), default=n)
    rows = 2 + n + longest * len(keys)
    start = torch.zeros(rows, n, dtype=torch.float64)
    start[1 : 1 + n] = torch.eye(n, dtype=torch.float64)
    start[-1] = random(n, seed=3)
    draws, xi = {}, torch.zeros(len(keys), longest, dtype=torch.float64)
    for k, key in enumerate(keys):
        draw = torch.zeros(rows, dry.asked[key], dtype=torch.float64)
        first = 1 + n + longest * k
        draw[first : first + longest] = torch.eye(longest, dry.asked[key], dtype=torch.float64)
        draw[-1] = xi[k, : dry.asked[key]] = random(dry.asked[key], seed=4 + k)
        draws[key] = draw
    out = run(start, Injected(draws))
    offset = out[0]
    columns = out[1:-1] - offset
    law = Law(columns[:n].T, offset, columns[n:].reshape(len(keys), longest, n).transpose(1, 2))
    predicted = law.matrix @ start[-1] + offset + torch.einsum("kij,kj->i", law.noises, xi)
    torch.testing.assert_close(out[-1], predicted, rtol=1e-9, atol=1e-9)
    return law


def last(states):
    """The answer of a walk."""
    return deque(states, maxlen=1).pop()


def resume(posterior, solver, grid: list[float], state, noise, index: int):
    """Walk on from ``state`` at ``grid[index]``, with the same draws the whole walk would use."""
    for step, (s, t) in enumerate(pairwise(grid)):
        if step < index:
            continue
        draw = noise.at(step)
        move = solver.step(lambda x, sigma: posterior.denoise(x, sigma), state.x, s, t, state.past, draw)
        x = move.mean + move.std * draw(move.mean) if move.std > 0 else move.mean
        state = type(state)(x, t, move.est.x0, state.log_w, move.past, state.memo)
    return state


def slopes(errors: list[float]) -> list[float]:
    """Measured orders between neighbours of a sequence in which the number of steps doubles."""
    return [math.log2(a / b) for a, b in pairwise(errors)]


def label(value: object) -> str:
    """A parameter's name in a test's id, without addresses, which differ between processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
