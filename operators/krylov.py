"""Conjugate gradients and the power method, a sample at a time within one batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def inner(a: Tensor, b: Tensor) -> Tensor:
    """``Re <a, b>`` a sample, shaped (B, 1, ..., 1) to multiply with."""
    shape = (-1, *[1] * (a.ndim - 1))
    if a.is_complex():
        a, b = torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj())
    return torch.einsum("bn,bn->b", a.flatten(1), b.flatten(1)).view(shape)


def add_scaled(x: Tensor, factor: Tensor, p: Tensor) -> Tensor:
    """``x + factor p`` in one pass, factor real (B, 1, ..., 1)."""
    if not x.is_complex():
        return torch.addcmul(x, factor, p)
    x, p = torch.view_as_real(x.resolve_conj()), torch.view_as_real(p.resolve_conj())
    return torch.view_as_complex(torch.addcmul(x, factor[..., None], p))


def cg(
    apply: Callable[[Tensor], Tensor],
    b: Tensor,
    start: Tensor | None = None,
    steps: int = 50,
    tol: float = 1e-6,
) -> Tensor:
    """Solve ``M x = b`` for a Hermitian positive semi-definite ``apply(x) = M x``; (B, ...) each.

    Every sample has its own step sizes and stops on its own when ``||b - M x|| <= tol ||b||``; a
    stopped sample is frozen, so a result does not depend on batch mates. ``tol=0`` takes all steps.
    The host is never asked for a number, so nothing synchronises on a GPU.
    """
    x = torch.zeros_like(b) if start is None else start
    r = b if start is None else b - apply(x)
    p, rr = r, inner(r, r)
    enough = (tol * tol) * inner(b, b)
    running = rr > enough
    for i in range(steps):
        image = apply(p)
        curvature = inner(p, image)
        running = running & (curvature > 0)
        alpha = torch.where(running, rr / torch.where(running, curvature, 1), 0)
        x = add_scaled(x, alpha, p)
        if i + 1 == steps:
            break
        r = add_scaled(r, -alpha, image)
        previous, rr = rr, inner(r, r)
        running = running & (rr > enough)
        p = add_scaled(r, torch.where(running, rr / torch.where(running, previous, 1), 0), p)
    return x


def power_norm(normal: Callable[[Tensor], Tensor], like: Tensor, steps: int = 50, seed: int = 0) -> Tensor:
    """``||A||_2`` by power iteration on ``normal(x) = A^H A x``; ``like`` is one image (1, ...)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(like.shape, dtype=like.dtype, generator=generator).to(like.device)
    for _ in range(steps):
        x = normal(x / inner(x, x).sqrt())
    return inner(x, x).sqrt().sqrt().flatten()[0]
