"""``recon bench gold``: how far every sampler is from the posterior of random walks, under its own recipe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...errors import unknown
from ...intervals import LEVEL
from ...posteriors import POSTERIORS
from ...registry.objects import make_sampler, make_solver, usual_of
from ...result import Result
from ...sampling import sample
from ..scans.real import Say
from .chains import CHAINS, chain_prior
from .gibbs import CDF_LEVELS, ExactPosterior
from .problems import MEASUREMENTS_OF_WALKS, PROBLEMS, GoldProblem, gold_problems

GOLD_CALLS, GOLD_SAMPLES = 50, 32
BLIND = ("prior", "dds-3d", "mbir")  # samplers that do not see the measurements, or are of volumes


@dataclass(frozen=True)
class Gap:
    """One sampler on the walks of one law, measured in one way.

    ``gap`` (dB): ``10 lg (E |m - x|^2 / E |E[x | y] - x|^2) = 10 lg (1 + |m - E[x | y]|^2 / tr Cov[x | y])`` of the mean m of
    its samples; S independent exact samples have ``10 lg (1 + 1 / S)``. ``coverage``: the posterior probability of its
    intervals. ``width``: its standard deviation over the posterior's, both as root mean squares.
    """

    sampler: str
    problem: str
    gap: float
    coverage: float
    width: float
    calls: int


def measured_gap(
    problem: GoldProblem, name: str, calls: int = GOLD_CALLS, samples: int = GOLD_SAMPLES, seed: int = 0
) -> Gap:
    """The sampler ``name`` under its own recipe, with as many steps as ``calls`` network calls allow."""
    prior, usual = chain_prior(problem.chain), usual_of(name)
    solver = make_solver(usual.solver, usual.solver_options)
    sampler = make_sampler(name, prior, options=usual.options)
    steps = sampler.steps_for(solver, calls, usual.levels(prior)[1])
    result = sample(problem.problem(), prior, name, steps=steps, samples=samples, seed=seed)
    return scored_gap(result, problem, name)


def scored_gap(result: Result, problem: GoldProblem, name: str) -> Gap:
    """A result beside the posterior."""
    exact = problem.posterior
    mean, std = result.mean.flatten(1).double(), result.std
    off = (mean - exact.mean).square().sum() / exact.variance.sum()
    bounds = result.interval(LEVEL)
    coverage, width = math.nan, math.nan
    if bounds is not None and std is not None:
        low, high = (probability_below(side.flatten(1).double(), exact) for side in bounds)
        coverage = float((high - low).mean())
        width = float((std.double().square().sum() / exact.variance.sum()).sqrt())
    return Gap(name, problem.name, 10 * math.log10(1 + float(off)), coverage, width, result.network_calls)


def probability_below(value: torch.Tensor, exact: ExactPosterior) -> torch.Tensor:
    """``P(x_k < value)`` (P, n) of the posterior, linear between its quantiles, 0 and 1 outside them."""
    q, levels = exact.quantiles, CDF_LEVELS
    place = (q < value).sum(0)
    below, above = (place - 1).clamp_min(0), place.clamp(max=len(q) - 1)
    left, right = q.gather(0, below[None])[0], q.gather(0, above[None])[0]
    share = ((value - left) / (right - left).clamp_min(1e-12)).clamp(0, 1)
    inside = levels[below] + share * (levels[above] - levels[below])
    return torch.where(place == 0, 0.0, torch.where(place == len(q), 1.0, inside))


def run_gold(
    samplers: Sequence[str] = (),
    cases: Sequence[str] = (),
    calls: int = GOLD_CALLS,
    samples: int = GOLD_SAMPLES,
    say: Say = print,
) -> list[Gap]:
    """The table: a row a sampler, "gap in dB / coverage" in a column a problem. Raises `ConfigError` for unknown names.

    ``cases``: laws or operators, to take only problems that have one of each kind named.
    """
    for name in samplers:
        usual_of(name)
    for case in cases:
        if case not in (*CHAINS, *MEASUREMENTS_OF_WALKS):
            raise unknown("law or operator", case, (*CHAINS, *MEASUREMENTS_OF_WALKS))
    laws = [name for name in CHAINS if name in cases] or list(CHAINS)
    operators = [name for name in MEASUREMENTS_OF_WALKS if name in cases] or list(MEASUREMENTS_OF_WALKS)
    problems = [p for p in gold_problems() if p.chain in laws and p.operator in operators]
    say(
        f"{PROBLEMS} walks of each law, {calls} network calls, {samples} samples: gap of the mean to the posterior mean "
        f"in dB (of exact samples {10 * math.log10(1 + 1 / samples):.2f}) / posterior probability of 90 % intervals in %"
    )
    say("| sampler | " + " | ".join(problem.name for problem in problems) + " |")
    say("|---" * (len(problems) + 1) + "|")
    found = []
    for name in samplers or [name for name in POSTERIORS if name not in BLIND]:
        row = [measured_gap(problem, name, calls, samples) for problem in problems]
        say(f"| {name} | " + " | ".join(f"{one.gap:.2f} / {100 * one.coverage:.0f}" for one in row) + " |")
        found += row
    return found
