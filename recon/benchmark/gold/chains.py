"""Random walks whose denoiser is exact: sums of independent increments, by forward-backward on a lattice of values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.distributions import Gamma

from ...priors import Prior

LENGTH = 32
STEP_VARIANCE = 2 / (LENGTH + 1)  # of an increment: the mean variance of x_1, ..., x_n is 1
LATTICE_END = 6.0  # the lattice spans -6 to 6
DEGREES = 4.0  # of freedom, of Student's t
JUMPS = 0.1  # probability that an increment of the walk with spikes is not 0
CHAIN_LEVELS = (0.02, 80.0)  # noise levels that the lattices hold


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's random numbers from this seed; its state before is restored."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        yield


Scales = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RandomWalk:
    """``x_k = u_1 + ... + u_k``, k up to `LENGTH`, with independent increments u of mean 0 and variance `STEP_VARIANCE`.

    An increment is not 0 with probability ``jumps``, the first surely, and then has the ``density`` f, of variance
    ``STEP_VARIANCE / jumps``: a scale mixture of Gaussians, u | w ~ N(0, w). ``scales(like)`` draws w from its law,
    ``scales_given(u)`` from p(w | u). ``kink``: ``-f'(0+) / f(0)``. ``spacing`` of the lattice of values.
    """

    density: Callable[[Tensor], Tensor]
    scales: Scales
    scales_given: Scales
    jumps: float = 1.0
    kink: float = 0.0
    spacing: float = 0.075

    @cached_property
    def values(self) -> Tensor:
        """The lattice (M,), float64, symmetric about 0."""
        half = round(LATTICE_END / self.spacing)
        return self.spacing * torch.arange(-half, half + 1, dtype=torch.float64)

    @cached_property
    def slab(self) -> Tensor:
        """Probabilities (M, M) of going from value to value by an increment that is not 0.

        By the trapezoidal rule, ``h f``; a kink takes the share ``h kink / 6`` off the middle weight.
        """
        steps = self.values[:, None] - self.values
        middle = torch.eye(len(self.values), dtype=torch.float64)
        return self.spacing * self.density(steps) * (1 - self.kink * self.spacing / 6 * middle)

    @property
    def mean_variance(self) -> float:
        """Of x_1, ..., x_n: ``STEP_VARIANCE (1 / jumps + (n - 1) / 2)``."""
        return STEP_VARIANCE * (1 / self.jumps + (LENGTH - 1) / 2)

    @cached_property
    def factors(self) -> tuple[Tensor, Tensor]:
        """``slab = U V`` from its eigenvalues that are not lost in float32; (M, M) and the identity where all are needed."""
        values, basis = torch.linalg.eigh(self.slab)
        kept = values.abs() > 1e-9 * values.abs().max()
        if 2 * kept.sum() > len(values):
            return self.slab, torch.eye(0)
        return basis[:, kept] * values[kept], basis[:, kept].T

    def moved(self, message: Tensor) -> Tensor:
        """Probabilities (..., M) after one increment."""
        left, right = (part.to(message.dtype) for part in self.factors)
        jumped = message @ left @ right if len(right) else message @ left
        return jumped if self.jumps == 1 else self.jumps * jumped + (1 - self.jumps) * message

    def draw(self, count: int, seed: int) -> Tensor:
        """Walks (count, n), float64."""
        with seeded(seed):
            like = torch.empty(count, LENGTH, dtype=torch.float64)
            jumped = torch.rand_like(like) < self.jumps
            jumped[:, 0] = True
            return (self.scales(like).sqrt() * torch.randn_like(like) * jumped).cumsum(1)

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """``E[x0 | x0 + sigma eps = x]``, (rows, 1, 1, n) to the same; differentiable, in the precision of x."""
        away = x.flatten(1)[:, :, None] - self.values.to(x.dtype)
        return self.means(-away.square() / (2 * sigma**2)).view_as(x)

    def means(self, log_seen: Tensor) -> Tensor:
        """Posterior means (rows, n) from the log-likelihoods (rows, n, M) of every value at every place."""
        return self.marginals(log_seen) @ self.values.to(log_seen.dtype)

    def marginals(self, log_seen: Tensor) -> Tensor:
        """Posterior probabilities (rows, n, M) of every value at every place.

        Messages run from both ends at once: ``m_k(v) = sum_u K(v, u) m_{k-1}(u) p(seen_{k-1} | u)``, and the
        marginal of x_k is the product of both and its own likelihood.
        """
        seen = (log_seen - log_seen.detach().amax(2, keepdim=True)).exp()
        first = self.slab[len(self.values) // 2].to(seen.dtype).expand(len(seen), -1)
        message = torch.stack([first, torch.ones_like(first)])
        messages = [message]
        for k in range(LENGTH - 1):
            message = self.moved(message * torch.stack([seen[:, k], seen[:, -1 - k]]))
            message = message / message.sum(2, keepdim=True)
            messages.append(message)
        both = torch.stack(messages, 2)
        marginal = both[0] * both[1].flip(1) * seen
        return marginal / marginal.sum(2, keepdim=True)


@dataclass(frozen=True)
class GaussianWalk(RandomWalk):
    """Gaussian increments: ``D = C (C + sigma^2)^-1 x``, ``C_jk = STEP_VARIANCE min(j, k)``, without a lattice."""

    @cached_property
    def covariance(self) -> Tensor:
        """C (n, n), float64."""
        place = torch.arange(1, LENGTH + 1, dtype=torch.float64)
        return STEP_VARIANCE * torch.minimum(place[:, None], place)

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """``E[x0 | x0 + sigma eps = x]``."""
        noisy = self.covariance + sigma**2 * torch.eye(LENGTH, dtype=torch.float64)
        return x @ torch.linalg.solve(noisy, self.covariance).to(x.dtype)


def normal_density(variance: float) -> Callable[[Tensor], Tensor]:
    """``N(u; 0, variance)``."""
    return lambda u: torch.exp(-u.square() / (2 * variance)) / math.sqrt(2 * math.pi * variance)


def laplace_density(u: Tensor) -> Tensor:
    """``exp(-|u| / b) / (2 b)``, of variance ``2 b^2``."""
    return torch.exp(-u.abs() / LAPLACE_WIDTH) / (2 * LAPLACE_WIDTH)


def student_density(u: Tensor) -> Tensor:
    """Student's t with `DEGREES` of freedom and the square of its scale `STUDENT_SQUARE`."""
    log_peak = math.lgamma((DEGREES + 1) / 2) - math.lgamma(DEGREES / 2)
    peak = math.exp(log_peak) / math.sqrt(DEGREES * math.pi * STUDENT_SQUARE)
    return peak * (1 + u.square() / (DEGREES * STUDENT_SQUARE)) ** (-(DEGREES + 1) / 2)


def gamma(shape: float, like: Tensor) -> Tensor:
    """Gamma variables of rate 1."""
    return Gamma(like.new_tensor(shape), like.new_tensor(1.0)).sample(like.shape)


def inverse_gaussian(mean: Tensor, shape: float) -> Tensor:
    """Draws of the inverse Gaussian law (Michael, Schucany and Haas 1976)."""
    z = torch.randn_like(mean).square() * mean / shape
    root = mean / (1 + z / 2 + (z + z.square() / 4).sqrt())  # the smaller one, without cancellation
    return torch.where(torch.rand_like(mean) * (mean + root) <= mean, root, mean.square() / root)


LAPLACE_WIDTH = math.sqrt(STEP_VARIANCE / 2)
STUDENT_SQUARE = STEP_VARIANCE * (DEGREES - 2) / DEGREES


def fixed(variance: float) -> Scales:
    """The scale of a Gaussian."""
    return lambda like: torch.full_like(like, variance)


def laplace_scales_given(u: Tensor) -> Tensor:
    """``1 / w`` is inverse Gaussian with mean ``1 / (b |u|)`` and shape ``1 / b^2``."""
    mean = 1 / (LAPLACE_WIDTH * u.abs().clamp_min(1e-12))
    return 1 / inverse_gaussian(mean, 1 / LAPLACE_WIDTH**2)


def student_scales_given(u: Tensor) -> Tensor:
    """w is inverse gamma, of shape ``(nu + 1) / 2`` and scale ``(nu s^2 + u^2) / 2``."""
    return (DEGREES * STUDENT_SQUARE + u.square()) / 2 / gamma((DEGREES + 1) / 2, u)


CHAINS: dict[str, RandomWalk] = {
    "gaussian": GaussianWalk(normal_density(STEP_VARIANCE), fixed(STEP_VARIANCE), fixed(STEP_VARIANCE)),
    "laplace": RandomWalk(
        laplace_density,
        lambda like: STEP_VARIANCE * gamma(1.0, like),
        laplace_scales_given,
        kink=1 / LAPLACE_WIDTH,
    ),
    "student": RandomWalk(
        student_density,
        lambda like: DEGREES * STUDENT_SQUARE / 2 / gamma(DEGREES / 2, like),
        student_scales_given,
    ),
    "spikes": RandomWalk(
        normal_density(STEP_VARIANCE / JUMPS),
        fixed(STEP_VARIANCE / JUMPS),
        fixed(STEP_VARIANCE / JUMPS),
        jumps=JUMPS,
        spacing=0.03,
    ),
}


def chain_prior(name: str) -> Prior:
    """The walk of this name as a prior of images (1, 1, n), for levels of `CHAIN_LEVELS`."""
    low, high = CHAIN_LEVELS
    return Prior(CHAINS[name].denoise, data_var=CHAINS[name].mean_variance, sigma_min=low, sigma_max=high)
