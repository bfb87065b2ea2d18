"""DDRM: every singular coordinate of the measurements meets the state at the level of its own noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from operators.spectral import Spectral, significant, spectral

from ..errors import ConfigError
from ..noise import Draw, Noise
from ..problem import Problem
from ..solvers.base import Solver
from ..state import State
from .shared.loops import OwnLoop
from .usual import Usual


class DDRM(OwnLoop):
    """``x' ~ N(y, t^2 - n^2)`` where the noise n of a singular coordinate is below the level t; the prior's elsewhere.

    A step from s to t in singular coordinates i, with ``y_i = (U^H y)_i / s_i`` and its noise ``n_i = sigma_y / s_i``:

        not measured    x'_i = D_i + t (sqrt(1 - eta^2) e_i + eta z_i)            e = (x - D) / s
        t <  n_i        x'_i = D_i + t (sqrt(1 - eta^2) (y_i - D_i) / n_i + eta z_i)
        t >= n_i        x'_i = (1 - eta_b) D_i + eta_b y_i + sqrt(t^2 - eta_b^2 n_i^2) z_i

    A kernel of its own, of the grid alone: the solver is not used. One network call a step. ``start``:
    "measured" draws ``x_i ~ N(y_i, s^2 - n_i^2)`` anew where ``n_i < s`` and keeps the given state
    elsewhere (the paper); "noise" keeps all of it, which with ``eta_b = 1`` is the released DDNM+ without
    time travel. With sigma_y > 0 the answer is the denoised image of the last level.

    A must have a singular value decomposition: see `operators.spectral`; values below ``cutoff`` of the
    largest count as not measured. With sigma_y = 0 every measured coordinate has t >= n_i = 0: the second case, which
    divides by n_i, does not occur.
    Source: Kawar, Elad, Ermon, Song, Denoising Diffusion Restoration Models, NeurIPS 2022, eq. 4 to 8.
    """

    linear_only = True
    usual = Usual({"eta": 1.0}, "euler", highest=5.0, lowest=0.065)
    knob = "Null more singular values (a larger cutoff)."

    def __init__(
        self,
        prior=None,
        problem: Problem | None = None,
        *,
        eta: float = 0.85,
        eta_b: float = 1.0,
        start: str = "measured",
        cutoff: float = 1e-3,
    ):
        for name, share in (("eta", eta), ("eta_b", eta_b)):
            if not 0 <= share <= 1:
                raise ConfigError(f"{name} is {share}.", "It is a share, between 0 and 1.")
        if start not in ("measured", "noise"):
            raise ConfigError(f"start is {start!r}.", 'It is "measured" (the paper) or "noise".')
        self.eta, self.eta_b, self.start_from, self.cutoff = eta, eta_b, start, cutoff
        super().__init__(prior, problem)

    def check_problem(self, problem: Problem) -> None:
        """Refuses operators without a singular value decomposition; takes y into singular coordinates."""
        super().check_problem(problem)
        svd = spectral(problem.A)
        if svd is None:
            raise ConfigError(
                f"DDRM was given {problem.A!r}, of which no singular value decomposition is known.",
                "It works in singular coordinates: masks, blur, super-resolution and single-coil MRI have them, "
                "and images of at most 1024 numbers.",
                "Take a sampler that needs none: ddnm, diffpir or dds. Or give your operator a method "
                "spectral() -> operators.spectral.Spectral.",
            )
        self.frame = Frame(svd, problem, self.cutoff)

    def states(self, solver: Solver, grid: list[float], x: Tensor, noise: Noise) -> Iterator[State]:
        """One kernel a step; ``solver`` is not used."""
        if self.start_from == "measured":
            x = self.frame.start(x, grid[0], noise.at(-1))
        for index, (sigma, target) in enumerate(pairwise(grid)):
            clean = self.prior(x, sigma)
            x = self.step(x, clean, sigma, target, noise.at(index))
            yield State(x, target, clean if target > 0 else x)

    def step(self, x: Tensor, clean: Tensor, sigma: float, target: float, draw: Draw) -> Tensor:
        """The three cases of x' from ``x`` and ``clean = D`` (rows, *domain); at target 0 nothing is drawn."""
        frame, svd = self.frame, self.frame.svd
        c = svd.coordinates(clean)
        z = svd.coordinates(draw(x)) if target > 0 else torch.zeros_like(c)
        e = frame.misfit_or(c, (svd.coordinates(x) - c) * (1 / sigma))
        quiet = c + target * (math.sqrt(1 - self.eta**2) * e + self.eta * z)
        loud = (1 - self.eta_b) * c + self.eta_b * frame.y + frame.room(target, self.eta_b) * z
        return svd.image(torch.where(frame.louder(target), loud, quiet))


class Frame:
    """The measurements of a problem in singular coordinates: ``y`` and their noise ``n``, valid where ``seen``."""

    def __init__(self, svd: Spectral, problem: Problem, cutoff: float):
        self.svd, self.sigma_y = svd, problem.sigma
        self.s, self.u = svd.values(problem.backprojection), svd.measured(problem.y)
        self.seen = significant(self.s, cutoff)
        inverse = torch.where(self.seen, 1 / self.s, 0)
        self.y, self.n = inverse * self.u, problem.sigma * inverse

    def louder(self, level: float) -> Tensor:
        """Where something was measured and the level is at least as large as its noise."""
        return self.seen & (self.n <= level)

    def room(self, level: float, share: float) -> Tensor:
        """``sqrt(t^2 - share^2 n^2)``: the noise that is missing to level t beside that of the measurement."""
        return (level**2 - (share * self.n).square()).clamp_min(0).sqrt()

    def misfit_or(self, c: Tensor, noise: Tensor) -> Tensor:
        """``(y - c) / n = (u - s c) / sigma_y`` where measured, else ``noise``; ``noise`` everywhere at sigma_y = 0."""
        if self.sigma_y == 0:
            return noise
        return torch.where(self.seen, (self.u - self.s * c) * (1 / self.sigma_y), noise)

    def start(self, x: Tensor, level: float, draw: Draw) -> Tensor:
        """The state at the first level, drawn anew around the measurements in the coordinates they decide."""
        z = self.svd.coordinates(draw(x, "measured"))
        placed = self.y + self.room(level, 1.0) * z
        return self.svd.image(torch.where(self.louder(level), placed, self.svd.coordinates(x)))
