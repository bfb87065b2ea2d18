"""Exponential Adams methods: the linear part exact, the denoised image (or the noise) interpolated in its past.

    data:   x' = (t/s)^(1+eta) x + (1+eta) int e^(-(1+eta)(l' - l)) D(l) dl + noise,   l = -ln sigma
    noise:  x' = x + (1+eta) int e dsigma + noise

D, or e, is the polynomial through the last ``nodes`` evaluations, in l, in sigma, or in a process's time.
DPM-Solver++ 2M and 3M, their SDE forms and DEIS differ in nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor

from ..errors import ConfigError
from ..processes import VP, Process
from ..state import Estimate, Node, Step
from .base import FORMS, Solver, differences
from .quadrature import adams_weights

VARIABLES = ("lam", "sigma", "time")
RULES = ("exact", "midpoint", "taylor", "official")


@dataclass(frozen=True)
class ExponentialAdams(Solver):
    """The family, by hand: ``nodes`` evaluations of ``form``, interpolated in ``variable``; ``eta`` adds noise.

    ``form`` "data" or "noise"; ``variable`` "lam" (half log-SNR), "sigma", or "time" of ``process``.
    Order ``nodes`` for eta = 0 once primed; the law's order is 2 at most for eta > 0. From a cold
    start a step of order one costs O(h^2) once, which caps the asymptotic order at 2.
    """

    nodes: int = 2
    form: str = "data"
    variable: str = "lam"
    eta: float = 0.0
    process: Process = field(default_factory=VP)
    reference = "Hochbruck, Ostermann 2005 (exponential Adams); Lu et al. 2022; Zhang, Chen 2023"

    def __post_init__(self):
        for name, known in (("form", FORMS), ("variable", VARIABLES)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is {getattr(self, name)!r}.", f"It is one of {', '.join(known)}.")
        if self.nodes < 1 or self.eta < 0:
            raise ConfigError(f"{self!r}.", "nodes is at least 1, eta at least 0.")

    @property
    def order(self) -> int:
        """``nodes``, at most 2 with noise."""
        return self.nodes if self.eta == 0 else min(self.nodes, 2)

    @property
    def stochastic(self) -> bool:
        """Whether eta is positive."""
        return self.eta > 0

    def advance(self, denoise, x, est, sigma, target, past, draw) -> Step:
        """The step of order one, and the weighted differences of the remembered evaluations."""
        nodes = (self.node(est, sigma), *past)[: self.nodes]
        mean, std = self.first_order(est, sigma, target)
        weights = self.weights([node.sigma for node in nodes], sigma, target)
        mean = differences(mean, [node.slope for node in nodes], weights)
        return Step(mean, std, est, nodes[: self.remembered])

    @property
    def remembered(self) -> int:
        """How many evaluations the next step needs."""
        return self.nodes - 1

    def node(self, est: Estimate, sigma: float) -> Node:
        """What is remembered of an evaluation: the image, or the noise."""
        return Node(est.slope if self.form == "data" else est.eps, sigma)

    def first_order(self, est: Estimate, sigma: float, target: float) -> tuple[Tensor, float]:
        """Mean and standard deviation with D, or e, held at its newest value."""
        if self.form == "data":
            kept = target * (target / sigma) ** self.eta
            return est.x0.add(est.eps, alpha=kept), math.sqrt(max(target**2 - kept**2, 0.0))
        moved = (1 + self.eta) * target - self.eta * sigma
        return est.x0.add(est.eps, alpha=moved), math.sqrt(self.eta * (sigma**2 - target**2))

    def weights(self, levels: Sequence[float], sigma: float, target: float) -> list[float]:
        """Of the differences to the newest evaluation, for each older one of ``levels`` (newest first)."""
        if len(levels) == 1:
            return []
        nodes = [self.clock(level) for level in levels]
        return adams_weights(nodes, self.clock(sigma), self.clock(target), self.density(target))[1:]

    def clock(self, sigma: float) -> float:
        """The variable in which the polynomial is one."""
        if self.variable == "lam":
            return -math.log(sigma)
        return sigma if self.variable == "sigma" else self.process.time(sigma)

    def density(self, target: float) -> Callable[[float], float]:
        """The integrand's weight in that variable."""
        rate, end = 1 + self.eta, self.clock(target)
        if self.form == "noise":
            slope = {"lam": lambda u: -math.exp(-u), "sigma": lambda u: 1.0, "time": self.process.sigma_rate}
            return lambda u: rate * slope[self.variable](u)
        if self.variable == "lam":
            return lambda u: rate * math.exp(-rate * (end - u))
        if self.variable == "sigma":  # dl = -dsigma / sigma
            return lambda u: -rate / u * (target / u) ** rate
        at, slope = self.process.sigma, self.process.sigma_rate
        return lambda u: -rate * slope(u) / at(u) * (target / at(u)) ** rate


@dataclass(frozen=True)
class DPMpp(ExponentialAdams):
    """DPM-Solver++ (2M, 3M; with eta > 0 SDE-DPM-Solver++): data form in half log-SNR.

    ``rule`` of the weights: "exact" integrates the polynomial; "midpoint" takes ``D1 / 2`` for the
    integral of D1 where two nodes are combined (the released 2M); "taylor" leaves a factor 2 out of the
    second difference of three nodes, as every released third order does, and so is of order 2;
    "official" does both (the released 3M).
    """

    rule: str = "exact"
    reference = "Lu et al. 2022 (DPM-Solver++), algorithm 2 and appendix"

    def __post_init__(self):
        super().__post_init__()
        if self.rule not in RULES:
            raise ConfigError(f"rule is {self.rule!r}.", f"It is one of {', '.join(RULES)}.")

    @property
    def order(self) -> int:
        """At most 2 where a rule leaves terms out, else at most 3."""
        return min(super().order, 2 if self.rule in ("official", "taylor") else 3)

    def weights(self, levels: Sequence[float], sigma: float, target: float) -> list[float]:
        """Those of the polynomial, changed as ``rule`` says."""
        h, rate = math.log(sigma / target), 1 + self.eta
        if len(levels) == 2 and self.rule in ("midpoint", "official"):
            return [math.expm1(-rate * h) * h / (2 * math.log(levels[1] / sigma))]
        exact = super().weights(levels, sigma, target)
        if len(levels) < 3 or self.rule in ("exact", "midpoint"):
            return exact
        # D2 = (d0 - d1) / (r0 + r1), d0 = (v_0 - v_1) / r0, d1 = (v_1 - v_2) / r1
        r0, r1 = (math.log(older / newer) / h for newer, older in pairwise(levels[:3]))
        if self.form == "data":
            left_out = ((math.expm1(-rate * h) / (rate * h) + 1) / (rate * h) - 0.5) / (r0 + r1)
        else:
            left_out = rate * target * ((math.expm1(h) / h - 1) / h - 0.5) / (r0 + r1)
        return [exact[0] - left_out * (1 / r0 + 1 / r1), exact[1] + left_out / r1]


@dataclass(frozen=True)
class DEIS(ExponentialAdams):
    """The noise interpolated in a process's time (tAB; ``variable="time"``) or in sigma (rhoAB; "sigma")."""

    form: str = "noise"
    variable: str = "time"
    reference = "Zhang, Chen 2023 (DEIS), eq. 14 and 15"


@dataclass(frozen=True)
class IPNDMv(DEIS):
    """iPNDM with Adams-Bashforth weights for unequal steps in sigma: the weights of rhoAB-DEIS."""

    nodes: int = 4
    variable: str = "sigma"
    reference = "Zhang, Chen 2023 (iPNDM); Zhou et al. 2024 (variable steps)"
