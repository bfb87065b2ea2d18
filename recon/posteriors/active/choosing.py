"""What to measure next: policies that score actions by what an image's particles disagree about.

The particles ``z_i`` (S, n, E) are predicted measurements: n actions of E numbers each, weights w.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...errors import ConfigError, SamplingError

FORMS = ("element", "line", "official")
BLOCK = 2**21  # differences at a time
TINY = 1e-30


@dataclass(frozen=True)
class Belief:
    """What a policy knows of one image: ``z`` (S, n, E) and ``weights`` (S,), which add up to 1, and beside it:

    ``sigma`` of the measurements; ``open`` (n,), what can still be measured, and ``first_open`` what could
    at the start; ``places`` (n, d); ``total``, how many are measured in the whole walk, and ``done`` of
    them so far; ``image``, its number in the batch; ``uniform()`` (n,) random numbers.
    """

    z: Tensor
    weights: Tensor
    sigma: float
    open: Tensor
    first_open: Tensor
    places: Tensor
    total: int
    done: int
    image: int
    uniform: Callable[[], Tensor]


class Policy:
    """The action with the largest of ``scores`` (n,), the first of equal ones.

    Of several at one step each chosen one dampens its neighbours' scores by ``1 - exp(-r^2 / 2)``, r the
    distance in actions (zea's greedy entropy), since they tell nearly the same.
    """

    looks = True  # at the particles, so that one is not enough
    damps = True

    def admit(self, sigma: float) -> None:
        """Refuse measurements of this noise."""

    def scores(self, belief: Belief) -> Tensor:
        raise NotImplementedError

    def pick(self, belief: Belief, amount: int) -> tuple[list[int], Tensor]:
        """``amount`` different open actions, and the scores before the first was chosen, on the CPU in float64."""
        scores = self.scores(belief).double().cpu()
        picked, current, free = [], scores, belief.open.clone()
        for _ in range(amount):
            best = largest(current, free)
            picked.append(best)
            free[best] = False
            if self.damps:
                distance = (belief.places - belief.places[best]).double().square().sum(1)
                current = current * -torch.expm1(-distance / 2)
        return picked, scores


def largest(scores: Tensor, free: Tensor) -> int:
    """The first of the largest scores among the free actions."""
    if not torch.isfinite(scores[free]).all():
        raise SamplingError(
            "The scores of what to measure next are not finite.", "The particles have diverged."
        )
    return int(torch.where(free, scores, -math.inf).eq(scores[free].max()).nonzero()[0])


@dataclass(frozen=True)
class Entropy(Policy):
    """Entropy of the mixture of Gaussians around the predictions: ADS, with the sign that bounds information.

    ``H = -sum_i w_i ln sum_j w_j exp(-d_ij / (2 s^2))``, ``d_ij = |z_i - z_j|^2`` (Hershey-Olsen's form).
    ``form``: "element", H of every number of an action, summed: it does not saturate at ln S; "line", H
    of the action as one vector; "official", ``sum_i ln sum_j exp(+d_ij / (2 s^2))`` as published, which
    the farthest pair dominates. A complex number is one element. ``bandwidth`` s in the units of y:
    default ``s^2 = sigma^2 + mean d``, over the pairs of particles and what is open, so that few particles
    rank by how far they are apart and many near ones do not saturate; the published numbers are of this
    size (50 for k-space of range 100).
    Source: Nolan, Stevens, van Nierop, van Sloun, TMLR 2025; Hershey, Olsen 2007.
    """

    form: str = "element"
    bandwidth: float | None = None

    def __post_init__(self):
        if self.form not in FORMS:
            raise ConfigError(f"The entropy's form is {self.form!r}.", f"It is one of {', '.join(FORMS)}.")
        if self.bandwidth is not None and not self.bandwidth > 0:
            raise ConfigError(f"bandwidth is {self.bandwidth}.", "It is a standard deviation in the units of y.")  # fmt: skip

    def scores(self, belief: Belief) -> Tensor:
        z, w = belief.z, belief.weights
        if self.bandwidth is not None:
            square = torch.tensor(self.bandwidth**2, dtype=torch.float64, device=z.device)
        else:
            far = 2 * variances(z, w)[belief.open.to(z.device)]  # mean over the pairs of d
            per = 1 if self.form != "element" else z.shape[2]
            square = belief.sigma**2 + far.mean() / per if len(far) else far.new_tensor(1.0)
        square = square.clamp_min(TINY)
        if self.form == "element":
            return torch.cat([entropies(b[..., None], w, square).sum(1) for b in blocks(z)])
        if self.form == "line":
            return torch.cat([entropies(b[:, :, None], w, square).sum(1) for b in blocks(z)])
        return torch.cat([-entropies(b[:, :, None], w, -square).sum(1) for b in blocks(z)])


@dataclass(frozen=True)
class Variance(Policy):
    """The sum of the variances of an action's numbers, over the particles."""

    def scores(self, belief: Belief) -> Tensor:
        return variances(belief.z, belief.weights)


@dataclass(frozen=True)
class LogDet(Policy):
    """Information in nats of Gaussian beliefs: ``ln det(1 + Cov_l / s^2) / 2`` with the particles' covariance.

    By the Gram matrix of the particles, so that long lines cost nothing more; several at one step are
    chosen one by one, given those before, which is exact for Gaussians. ``noise``: s in the units of y,
    default the problem's sigma.
    """

    noise: float | None = None
    damps = False

    def admit(self, sigma: float) -> None:
        if not (sigma if self.noise is None else self.noise) > 0:
            raise ConfigError(
                "Log-determinants of measurements without noise.",
                "They are infinite.",
                "State the problem's sigma, or choose=LogDet(noise=...).",
            )

    def square(self, belief: Belief) -> float:
        return (belief.sigma if self.noise is None else self.noise) ** 2

    def scores(self, belief: Belief) -> Tensor:
        return information(covariances(belief.z, belief.weights) / self.square(belief))

    def pick(self, belief: Belief, amount: int) -> tuple[list[int], Tensor]:
        if amount == 1:
            return super().pick(belief, amount)
        gram = (grams(belief.z, belief.weights) / self.square(belief)).cpu()
        scores = current = information(gram)
        picked, free, known = [], belief.open.clone(), torch.zeros_like(gram[0])
        for _ in range(amount):
            best = largest(current, free)
            picked.append(best)
            free[best] = False
            known = known + gram[best]
            current = information(gram + known) - information(known)
        return picked, scores


@dataclass(frozen=True)
class Random(Policy):
    """Uniformly at random, without looking; an image's choice does not depend on its batch."""

    looks = False
    damps = False

    def scores(self, belief: Belief) -> Tensor:
        return belief.uniform()


@dataclass(frozen=True)
class Equispaced(Policy):
    """Evenly spaced among what was open at the start, from left to right, without looking."""

    looks = False
    damps = False

    def scores(self, belief: Belief) -> Tensor:
        scores = torch.zeros(len(belief.open), dtype=torch.float64)
        places = belief.first_open.nonzero()[:, 0]
        share = (torch.arange(belief.total, dtype=torch.float64) + 0.5) / max(belief.total, 1)
        scores[places[(share * len(places)).long()]] = 1.0
        return scores


@dataclass(frozen=True)
class Replay(Policy):
    """What an earlier run chose, in its order: ``chosen[b]`` lists the actions of image b."""

    chosen: tuple[tuple[int, ...], ...] = field(repr=False)
    looks = False

    def scores(self, belief: Belief) -> Tensor:
        return torch.zeros(len(belief.open), dtype=torch.float64)

    def pick(self, belief: Belief, amount: int) -> tuple[list[int], Tensor]:
        picked = list(self.chosen[belief.image][belief.done : belief.done + amount])
        if len(picked) < amount or not belief.open[picked].all() or len(set(picked)) < amount:
            raise ConfigError(
                f"The record to replay does not say what to measure next for image {belief.image}.",
                "It belongs to another problem or budget.",
            )
        return picked, self.scores(belief)


POLICIES: dict[str, Callable[[], Policy]] = {
    "entropy": Entropy,
    "variance": Variance,
    "logdet": LogDet,
    "random": Random,
    "equispaced": Equispaced,
}


def blocks(z: Tensor) -> list[Tensor]:
    """Some actions at a time."""
    return list(z.split(max(1, BLOCK // max(1, z.shape[0] * z.shape[2])), dim=1))


def entropies(z: Tensor, w: Tensor, square: Tensor) -> Tensor:
    """``-sum_i w_i ln sum_j w_j exp(-d_ij / (2 square))`` (n, groups), float64; z (S, n, groups, E).

    The largest exponent is the particle's own, 0, so nothing overflows, nor does a sum vanish. For a negative
    ``square`` the far pairs lead, and only the logarithms of the exponentials are formed.
    """
    total = torch.zeros(z.shape[1:3], dtype=torch.float64, device=z.device)
    for weight, distance in zip(w, distances(z, square.abs()), strict=True):
        if square < 0:
            near = (w.log()[:, None, None] + distance.double()).logsumexp(0)
        else:
            kernel = torch.einsum("s,sng->ng", w.to(distance), distance.neg_().exp_())
            near = kernel.clamp_min(torch.finfo(kernel.dtype).tiny).log()
        total -= weight * near
    return total


def distances(z: Tensor, square: Tensor) -> Iterator[Tensor]:
    """``d_ij / (2 square)`` (S, n, groups) in the precision of z, for one particle i after another."""
    scale = (2 * square).rsqrt().to(z.real.dtype)
    parts = [p.contiguous() * scale for p in ((z.real, z.imag) if z.is_complex() else (z,))]
    if z.shape[3] == 1:
        parts = [p[..., 0] for p in parts]
    for i in range(len(z)):
        distance = sum((p - p[i]).square_() for p in parts)
        yield distance if z.shape[3] == 1 else distance.sum(-1)  # pyright: ignore[reportAttributeAccessIssue, reportReturnType]


def variances(z: Tensor, w: Tensor) -> Tensor:
    """``sum_i w_i |z_i - mean|^2`` (n,), float64."""
    return torch.cat([torch.einsum("s,sne->n", w, squares(centred(b, w))) for b in blocks(z)])


def grams(z: Tensor, w: Tensor) -> Tensor:
    """``sqrt(w_i w_j) Re <z_i - mean, z_j - mean>`` (n, S, S), float64: its eigenvalues are those of the covariance."""
    rows = [torch.einsum("ine,jne->nij", c, c) for c in (weighed(block, w) for block in blocks(z))]
    return torch.cat(rows)


def covariances(z: Tensor, w: Tensor) -> Tensor:
    """Of every action's real numbers (n, E, E), or its Gram matrix where that is smaller."""
    if z.shape[2] * (2 if z.is_complex() else 1) >= len(z):
        return grams(z, w)
    c = weighed(z, w)
    return torch.einsum("sni,snj->nij", c, c)


def weighed(z: Tensor, w: Tensor) -> Tensor:
    """``sqrt(w_i) (z_i - mean)``, real components, float64."""
    c = centred(z, w)
    c = torch.view_as_real(c).flatten(2) if c.is_complex() else c
    return c.double() * w.sqrt()[:, None, None]


def centred(z: Tensor, w: Tensor) -> Tensor:
    """Without the weighted mean; exactly 0 where all particles are equal."""
    z = z - z[:1]
    return z - torch.einsum("s,sne->ne", w.to(z.dtype), z)


def information(gram: Tensor) -> Tensor:
    """``ln det(1 + G) / 2`` (...,)."""
    return (
        torch.linalg.slogdet(gram + torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)).logabsdet
        / 2
    )


def squares(z: Tensor) -> Tensor:
    """``|z|^2``, float64."""
    if z.is_complex():
        return z.real.double().square() + z.imag.double().square()
    return z.double().square()
