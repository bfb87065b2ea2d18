"""Small problems for the laws of the samplers: operators on four real or three complex numbers, and priors on them."""

from __future__ import annotations

import math

import torch
from worlds import GaussianWorld, Matrix, dense, isotropic, random, random_complex, unflat

import operators as op
from operators.mri import MRI
from recon import Problem

GRID = [9.0, 4.0, 2.2, 0.9, 0.35, 0.1, 0.0]
MASK = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)

# name -> operator on images of four real numbers (or three complex ones)
MEASURED = {
    "inpainting": lambda: op.Inpainting(MASK),
    "dense": lambda: Matrix(random(3, 4, seed=21)),
    "dense, complex": lambda: Matrix(random_complex(2, 3, seed=22)),
    "MRI": lambda: MRI(torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64), random_complex(2, 1, 3, seed=23)),
}


def measured(name: str, sigma_y: float = 0.3, seed: int = 31) -> Problem:
    """Measurements of a random image under the operator of that name."""
    A = MEASURED[name]()
    rows = random(1, math.prod(A.domain) * (2 if A.complex_domain else 1), seed=seed)
    y = A.forward(unflat(rows, tuple(A.domain), A.complex_domain))
    seen = dense(A).abs().sum(1) > 0  # measurements are zero-filled
    noise = unflat(seen * random(1, len(seen), seed=seed + 1), y.shape[1:], y.is_complex())
    return Problem(A, y + sigma_y * noise, sigma_y)


def world_of(A: op.Linear, variance: float | None = None) -> GaussianWorld:
    """A Gaussian prior on the operator's images: isotropic of that variance, or a random covariance."""
    base = isotropic(tuple(A.domain), variance or 1.0, A.complex_domain)
    if variance is not None:
        return base
    root = random(len(base.mean), len(base.mean), seed=41) / 2
    return GaussianWorld(
        base.mean,
        root @ root.T + 0.1 * torch.eye(len(root), dtype=torch.float64),
        base.domain,
        base.is_complex,
    )


SCALAR = GaussianWorld(torch.zeros(1, dtype=torch.float64), torch.eye(1, dtype=torch.float64), (1,))


# operators that hold what was measured, as rows of `tables.NONLINEAR`
DEVIANCES = {
    "poisson deviance": lambda: op.PoissonDeviance(
        op.Blur(torch.full((3, 3), 0.4, dtype=torch.float64), (1, 4, 5)),
        (torch.arange(20, dtype=torch.float64) % 7).view(1, 4, 5),
        20.0,
        1.0,
    )
}
