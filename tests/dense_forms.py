"""Samplers written a second time, by inverted dense matrices over the real view: what the affine laws compare with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from worlds import GaussianWorld, dense, flat, unflat

from recon import Problem
from recon.posteriors import DDNM, DPS, MMPS, DiffPIR, PiGDM, Posterior
from recon.posteriors.shared.norms import row_norms
from recon.state import Estimate

CG: dict[str, Any] = dict(steps=12, tol=0.0)
# which run through a solver's path, and their name in `DensePath`
PATHS = {
    "ddnm, projection": lambda *a: DDNM(*a, plus=False),
    "ddnm, projection, cg": lambda *a: DDNM(*a, plus=False, svd=False, **CG),
    "ddnm": lambda *a: DDNM(*a),
    "ddnm, cg": lambda *a: DDNM(*a, svd=False, **CG),
    "ddnm, noise": lambda *a: DDNM(*a, keep="noise"),
    "diffpir": lambda *a: DiffPIR(*a, lam=2.5, **CG),
}
CONVERGED: dict[str, Any] = dict(steps=8)
AFFINE = {
    "dps, score": lambda *a: DPS(*a, form="score", zeta=0.3),
    "pigdm": lambda *a: PiGDM(*a, **CONVERGED),
    "pigdm, adaptive": lambda *a: PiGDM(*a, form="adaptive", **CONVERGED),
    "mmps": lambda *a: MMPS(*a, **CONVERGED),
}


class DensePath(Posterior):
    """The path samplers by inverted dense matrices over the real view: ``x0 = D + W(s) (y - A D)``."""

    def __init__(self, world: GaussianWorld, problem: Problem, kind: str):
        super().__init__(world, problem)
        self.world, self.kind, self.matrix = world, kind, dense(problem.A)

    def weight(self, s: float) -> Tensor:
        M, sy = self.matrix, self.problem.sigma
        n = M.shape[1]
        if self.kind == "diffpir":
            return torch.linalg.inv(M.T @ M + 2.5 * sy * sy / s**2 * torch.eye(n, dtype=torch.float64)) @ M.T
        if self.kind.startswith("ddnm, projection"):
            return torch.linalg.pinv(M)
        U, values, Vh = torch.linalg.svd(M, full_matrices=False)
        kept = values > 1e-9
        gain = row_norms(self.problem).flatten()[0].expand_as(values) if "cg" in self.kind else values
        share = torch.clamp(s * gain / sy, max=1)
        return Vh.T[:, kept] @ ((share / values)[kept, None] * U.T[kept])

    def denoise(self, x, sigma, memo=None):
        D = self.world(x, sigma)
        r = flat(self.problem.y) - flat(D) @ self.matrix.T
        x0 = D + unflat(r @ self.weight(sigma).T, self.world.domain, self.world.is_complex)
        if self.kind == "ddnm, noise":
            return Estimate(x0, (x - D) / sigma, D, consistent=False)
        return Estimate(x0, (x - x0) / sigma, D)


class DenseGuided(Posterior):
    """The samplers by inverted dense matrices over the real view: ``x0 = D + W(s) (y - A D)``."""

    def __init__(self, world: GaussianWorld, problem: Problem, kind: str):
        super().__init__(world, problem)
        self.world, self.kind, self.matrix = world, kind, dense(problem.A)

    def weight(self, s: float) -> Tensor:
        A, K, sy, v = self.matrix, self.world.gain(s), self.problem.sigma, self.world.data_var
        r2, noise = s * s * v / (s * s + v), sy * sy * torch.eye(len(A), dtype=torch.float64)
        if self.kind in ("dps, score", "mcg, score"):
            return 0.3 * s * s * K @ A.T / sy**2
        if self.kind == "mmps":
            return s * s * K @ A.T @ torch.linalg.inv(noise + s * s * A @ K @ A.T)
        G = K @ A.T @ torch.linalg.inv(r2 * A @ A.T + noise)
        return (s * s if self.kind == "pigdm" else r2) * G

    @property
    def keeps_noise(self) -> bool:
        return self.kind in ("pigdm, adaptive", "dps", "mcg")

    def denoise(self, x, sigma, memo=None):
        D = self.world(x, sigma)
        r = flat(self.problem.y) - flat(D) @ self.matrix.T
        if self.kind in ("dps", "mcg"):
            moved = r @ self.matrix @ self.world.gain(sigma) / r.norm(dim=1, keepdim=True)
        else:
            moved = r @ self.weight(sigma).T
        x0 = D + unflat(moved, self.world.domain, self.world.is_complex)
        if self.keeps_noise:
            return Estimate(x0, (x - D) / sigma, D, consistent=False)
        return Estimate(x0, (x - x0) / sigma, D)

    def correct(self, state, move, draw):
        if not self.kind.startswith("mcg"):
            return state
        noise = flat(draw(state.x, "measured")) if state.sigma > 0 else torch.zeros_like(flat(state.x))
        level = flat(self.problem.y) + state.sigma * noise @ self.matrix.T
        moved = (level - flat(state.x) @ self.matrix.T) @ torch.linalg.pinv(self.matrix).T
        x = state.x + unflat(moved, self.world.domain, self.world.is_complex)
        return replace(state, x=x, past=())


class DenseSTSL(Posterior):
    """By dense matrices: ``x <- x - 2 lam K A^T (A D - y)`` K times a level, from the inverted ``A^T y``."""

    def __init__(
        self, world: GaussianWorld, problem: Problem, lam: float, inner: int, levels: list[float] | None
    ):
        super().__init__(world, problem)
        self.world, self.lam, self.inner, self.levels = world, lam, inner, levels

    def moved(self, x: Tensor, sigma: float) -> Tensor:
        matrix, K, v = dense(self.problem.A), self.world.gain(sigma), flat(x)
        for _ in range(self.inner):
            D = self.world.mean + (v - self.world.mean) @ K
            v = v - 2 * self.lam * (D @ matrix.T - flat(self.problem.y)) @ matrix @ K
        return unflat(v, self.world.domain, self.world.is_complex)

    def start(self, state, draw):
        x = state.x
        if self.levels is not None:
            v, rising = flat(self.problem.y) @ dense(self.problem.A), sorted(s for s in self.levels if s > 0)
            s, m = rising[0], self.world.mean
            v = v + (v - m) - (v - m) @ self.world.gain(s)
            for t in rising[1:]:
                v, s = v + (t - s) / s * (v - m - (v - m) @ self.world.gain(s)), t
            x = unflat(v, self.world.domain, self.world.is_complex)
        return replace(state, x=self.moved(x, state.sigma))

    def correct(self, state, move, draw):
        return replace(state, x=self.moved(state.x, state.sigma), past=()) if state.sigma > 0 else state
