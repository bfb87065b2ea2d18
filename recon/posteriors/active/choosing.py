"""What to measure next: policies that score actions by what an image's particles disagree about."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...errors import ConfigError, SamplingError
from .disagreement import blocks, covariances, entropies, grams, information, variances

TINY = 1e-30
ENTROPY_FORMS = ("element", "line", "official")


@dataclass(frozen=True)
class Belief:
    """The particles of one image as predicted measurements ``z`` (S, n, E): n actions of E numbers each.

    ``weights`` (S,) add up to 1. ``sigma``: noise of the measurements, per real component. ``open`` (n,): what can
    still be measured; ``first_open``: what could be at the start. ``places`` (n, d): where the actions lie.
    ``total``: how many are measured in the whole walk, ``done`` of them so far. ``image``: its number in the
    batch. ``uniform()``: (n,) random numbers.
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
    """Chooses the open action with the largest of ``scores`` (n,), the first of equal ones.

    Where several are chosen at one step, each multiplies its neighbours' scores by ``1 - exp(-r^2 / 2)``, r the
    distance in actions (zea's greedy entropy), since they tell nearly the same. A policy of your own overrides
    ``scores``, or ``pick``.
    """

    looks = True  # at the particles, of which it then needs at least two
    damps = True  # the scores of what lies near a chosen action

    def check_noise(self, sigma: float) -> None:
        """Raise `ConfigError` for measurements with this noise (standard deviation per real component)."""

    def scores(self, belief: Belief) -> Tensor:
        """The worth of each action (n,); an open one whose score is not finite stops the walk."""
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
    """The first of the largest scores (n,) among the free actions; raises `SamplingError` for one not finite."""
    if not torch.isfinite(scores[free]).all():
        raise SamplingError(
            "The scores of what to measure next are not finite.", "The particles have diverged."
        )
    return int(torch.where(free, scores, -math.inf).eq(scores[free].max()).nonzero()[0])


@dataclass(frozen=True)
class Entropy(Policy):
    """Entropy of the mixture of Gaussians around the predictions, with the sign that bounds information.

    ``H = -sum_i w_i ln sum_j w_j exp(-d_ij / (2 s^2))``, ``d_ij = |z_i - z_j|^2`` (Hershey and Olsen's form).
    ``form``: "element", H of every number of an action, summed: it does not saturate at ln S; "line", H
    of the action as one vector; "official", ``sum_i ln sum_j exp(+d_ij / (2 s^2))`` as published, which
    the farthest pair dominates. A complex number is one element. ``bandwidth`` s in the units of y:
    default ``s^2 = sigma^2 + mean d``, over the pairs of particles and what is open, so that few particles
    rank actions by how far they are apart, and many near ones do not saturate; the published numbers are of this
    size (50 for k-space of range 100).
    Source: Nolan, Stevens, van Nierop, van Sloun, TMLR 2025; Hershey, Olsen 2007.
    """

    form: str = "element"
    bandwidth: float | None = None

    def __post_init__(self):
        if self.form not in ENTROPY_FORMS:
            raise ConfigError(
                f"The entropy's form is {self.form!r}.", f"It is one of {', '.join(ENTROPY_FORMS)}."
            )
        if self.bandwidth is not None and not self.bandwidth > 0:
            raise ConfigError(f"bandwidth is {self.bandwidth}.", "It is a standard deviation in the units of y.")  # fmt: skip

    def scores(self, belief: Belief) -> Tensor:
        """H of each action (n,), float64."""
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
        """``sum_e Var z_e`` of each action (n,), float64."""
        return variances(belief.z, belief.weights)


@dataclass(frozen=True)
class LogDet(Policy):
    """Information in nats of Gaussian beliefs: ``ln det(1 + Cov_l / s^2) / 2`` with the particles' covariance.

    By the Gram matrix of the particles, so that long lines cost no more; several at one step are
    chosen one by one, given those before, which is exact for Gaussians. ``noise``: s in the units of y,
    default the problem's sigma.
    """

    noise: float | None = None
    damps = False

    def check_noise(self, sigma: float) -> None:
        """Refuses measurements without noise."""
        if not (sigma if self.noise is None else self.noise) > 0:
            raise ConfigError(
                "Log-determinants of measurements without noise.",
                "They are infinite.",
                "State the problem's sigma, or choose=LogDet(noise=...).",
            )

    def variance(self, belief: Belief) -> float:
        """``s^2``."""
        return (belief.sigma if self.noise is None else self.noise) ** 2

    def scores(self, belief: Belief) -> Tensor:
        """Nats of each action (n,), float64."""
        return information(covariances(belief.z, belief.weights) / self.variance(belief))

    def pick(self, belief: Belief, amount: int) -> tuple[list[int], Tensor]:
        """Several one by one, each given those before; scores as before the first was chosen."""
        if amount == 1:
            return super().pick(belief, amount)
        gram = (grams(belief.z, belief.weights) / self.variance(belief)).cpu()
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
        """The belief's uniform numbers (n,)."""
        return belief.uniform()


@dataclass(frozen=True)
class Equispaced(Policy):
    """Evenly spaced among what was open at the start, from left to right, without looking."""

    looks = False
    damps = False

    def scores(self, belief: Belief) -> Tensor:
        """1 at evenly spaced actions, else 0 (n,)."""
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
        """Zeros (n,): a record says what, not why."""
        return torch.zeros(len(belief.open), dtype=torch.float64)

    def pick(self, belief: Belief, amount: int) -> tuple[list[int], Tensor]:
        """The next ``amount`` of the record; raises `ConfigError` where it has none that can be measured."""
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
