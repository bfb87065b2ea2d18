"""Measurements of random walks, and their posteriors as they were computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from operators import Linear

from ...problem import Problem
from .chains import CHAINS, LENGTH, seeded
from .gibbs import ExactPosterior, gibbs

STORED = Path(__file__).with_name("posteriors.npz")
PROBLEMS = 4  # walks of each law
GOLD_NOISE = 0.1  # standard deviation of the measurements' noise
BLUR_PIXELS = 2.0  # pixels
KEPT_SHARE = 0.4  # share of the pixels, and of the frequencies
GIBBS_SWEEPS, GIBBS_CHAINS = 250, 64


@dataclass(frozen=True, eq=False)
class Rows(Linear):
    """``y = M x`` for images (1, 1, n) and a matrix M (m, n), float64."""

    matrix: Tensor

    @property
    def domain(self) -> tuple[int, ...]:
        """One line of pixels."""
        return (1, 1, self.matrix.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 1, n) -> (B, m)."""
        return x.flatten(1) @ self.matrix.T.to(x.dtype)

    def adjoint(self, y: Tensor) -> Tensor:
        """(B, m) -> (B, 1, 1, n)."""
        return (y @ self.matrix.to(y.dtype))[:, None, None]


@cache
def matrix_of(name: str) -> Tensor:
    """The matrix (m, n) of "deconvolution" (circular Gaussian), "inpainting" or "fourier" (the lowest frequencies and others)."""
    place, eye = torch.arange(LENGTH), torch.eye(LENGTH, dtype=torch.float64)
    if name == "deconvolution":
        around = (place[:, None] - place + LENGTH // 2) % LENGTH - LENGTH // 2
        weights = torch.exp(-(around.double() / BLUR_PIXELS).square() / 2)
        return weights / weights.sum(1, keepdim=True)
    with seeded(0):
        if name == "inpainting":
            return eye[torch.randperm(LENGTH)[: round(KEPT_SHARE * LENGTH)].sort().values]
        order = torch.cat([place[:3], 3 + torch.randperm(LENGTH // 2 - 3)])[: round(KEPT_SHARE * LENGTH / 2)]
    waves = torch.fft.fft(eye, norm="ortho")[order.sort().values]
    parts = torch.cat([waves.real, waves.imag]) * 2**0.5
    parts[0] /= 2**0.5
    return parts[parts.norm(dim=1) > 1e-6]


MEASUREMENTS_OF_WALKS = ("deconvolution", "inpainting", "fourier")


@dataclass(frozen=True)
class GoldProblem:
    """Walks of one law, measured in one way, ``y = A x + n``, and their posteriors."""

    chain: str
    operator: str

    @property
    def name(self) -> str:
        """Law and operator."""
        return f"{self.chain}, {self.operator}"

    @cached_property
    def truth(self) -> Tensor:
        """Walks (P, n), float64, all on the lattice."""
        found = CHAINS[self.chain].draw(4 * PROBLEMS, seed=1)
        return found[found.abs().amax(1) < 4][:PROBLEMS]

    @cached_property
    def y(self) -> Tensor:
        """(P, m), float64."""
        A = matrix_of(self.operator)
        with seeded(2):
            return self.truth @ A.T + GOLD_NOISE * torch.randn(PROBLEMS, len(A), dtype=torch.float64)

    def problem(self, dtype: torch.dtype = torch.float32) -> Problem:
        """What a sampler is given."""
        return Problem(Rows(matrix_of(self.operator)), self.y.to(dtype), GOLD_NOISE)

    def computed(
        self, sweeps: int = GIBBS_SWEEPS, chains: int = GIBBS_CHAINS, seed: int = 3
    ) -> ExactPosterior:
        """The posterior by Gibbs sampling."""
        return gibbs(CHAINS[self.chain], matrix_of(self.operator), self.y, GOLD_NOISE, sweeps, chains, seed)

    @cached_property
    def posterior(self) -> ExactPosterior:
        """The posterior as it was stored, float64."""
        with np.load(STORED) as file:
            return ExactPosterior(*(torch.from_numpy(part).double() for part in unpacked(file[self.name])))


def unpacked(stored: np.ndarray) -> list[np.ndarray]:
    """The parts of an `ExactPosterior` from one array (3 + levels, P, n)."""
    return [*stored[:3], stored[3:]]


def store_posteriors(path: Path = STORED) -> None:
    """Compute and write all posteriors, float32."""
    found = {}
    for problem in gold_problems():
        mean, error, variance, quantiles = problem.computed()
        found[problem.name] = torch.cat([torch.stack([mean, error, variance]), quantiles]).float().numpy()
    np.savez_compressed(path, **found)


def gold_problems() -> list[GoldProblem]:
    """Every law measured in every way."""
    return [GoldProblem(chain, operator) for chain in CHAINS for operator in MEASUREMENTS_OF_WALKS]
