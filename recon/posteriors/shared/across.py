"""Total variation across the slices of a volume, by ADMM whose duals travel with the walk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from operators.differences import Difference

from ...state import permuted


@dataclass(frozen=True)
class Duals:
    """Of each row, (rows, 1, *domain): the differences ``z`` that total variation would like, and the scaled dual ``u``."""

    z: Tensor
    u: Tensor

    def take(self, rows: Tensor) -> Duals:
        """Those of the rows with these indices."""
        return Duals(permuted(self.z, rows), permuted(self.u, rows))


@dataclass(frozen=True)
class Across:
    """``lam ||D_z x||_1`` with ``D_z`` the forward difference across slices (axis -3), of penalty ``rho`` in ADMM:

        x <- argmin of the rest + rho/2 ||D_z x - z + u||^2,  z <- soft(D_z x + u, lam / rho),  u <- u + D_z x - z.

    Source: Chung et al., DiffusionMBIR, CVPR 2023, algorithm 1.
    """

    difference: Difference
    rho: float
    lam: float

    def start(self, x: Tensor) -> Duals:
        """Duals of zero."""
        zero = torch.zeros_like(self.difference.forward(x))
        return Duals(zero, zero)

    def normal(self, x: Tensor) -> Tensor:
        """``rho D_z^T D_z x``, to be added to the normal operator."""
        return self.rho * self.difference.normal(x)

    def pull(self, duals: Duals) -> Tensor:
        """``rho D_z^T (z - u)``, to be added to the right-hand side."""
        return self.rho * self.difference.adjoint(duals.z - duals.u)

    def update(self, x: Tensor, duals: Duals) -> Duals:
        """The duals after an image x (rows, *domain)."""
        wanted = self.difference.forward(x) + duals.u
        z = soft(wanted, self.lam / self.rho)
        return Duals(z, wanted - z)


def across_slices(domain: tuple[int, ...], complex_images: bool, boundary: str) -> Difference | None:
    """``D_z`` for volumes (C, D, H, W), or None where there is one slice."""
    if len(domain) < 4 or domain[-3] == 1:
        return None
    return Difference(domain, (-3,), boundary, complex_images)


def soft(x: Tensor, threshold: float) -> Tensor:
    """``x max(0, 1 - threshold / |x|)``, real or complex."""
    size = x.abs()
    return x * (1 - threshold / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp_min(0)


def duals_in(memo: Any, across: Across, x: Tensor) -> Duals:
    """The duals of a walk, zeros before its first correction."""
    return memo if isinstance(memo, Duals) else across.start(x)
