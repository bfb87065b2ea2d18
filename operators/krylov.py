"""Conjugate gradients and the norm of an operator: Krylov methods, each row of a batch on its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .base import Linear

NORM_STEPS = 30  # products with A^H A


def inner(a: Tensor, b: Tensor) -> Tensor:
    """``Re <a, b>`` of each row, shaped (B, 1, ..., 1) to multiply with."""
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
    On a GPU the host is never asked for a number, so nothing waits; on a processor the loop ends with the last sample.
    """
    x = torch.zeros_like(b) if start is None else start
    r = b if start is None else b - apply(x)
    p, rr = r, inner(r, r)
    enough = (tol * tol) * inner(b, b)
    running = rr > enough
    for i in range(steps):
        if x.device.type == "cpu" and not running.any():  # there it costs nothing to ask
            break
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


def operator_norm(
    A: Linear, steps: int = NORM_STEPS, seed: int = 0, dtype: torch.dtype | None = None
) -> Tensor:
    """``||A||_2``, the largest singular value, of each image's own operator: (A.images,) real, on A's device.

    One number, unless a `PerImage` holds several operators; a batch of rows b S ... (b + 1) S - 1 an image
    takes ``repeat_interleave(S)`` of it. By ``steps`` products with ``A^H A`` of images
    in the precision of ``dtype`` (A's own by default), see `power_norm`.
    """
    dtype = dtype or A.dtype
    dtype = dtype.to_complex() if A.complex_domain else dtype.to_real()
    return power_norm(A.normal, torch.empty(A.images, *A.domain, dtype=dtype, device=A.device), steps, seed)


@torch.no_grad()
def power_norm(
    normal: Callable[[Tensor], Tensor], like: Tensor, steps: int = NORM_STEPS, seed: int = 0
) -> Tensor:
    """`operator_norm` of a bare ``normal(x) = A^H A x`` on images such as ``like`` (B, ...): (B,), a row its own.

    The largest Ritz value of ``steps`` Lanczos steps from white noise, the same for all rows: a lower bound,
    and never below what as many steps of the power method give.
    Source: Golub and Van Loan, Matrix Computations, 4th edition, section 10.1.
    """
    generator = torch.Generator().manual_seed(seed)
    probe = torch.randn(like.shape[1:], dtype=like.dtype, generator=generator).to(like.device)
    v = (probe / probe.norm()).expand(like.shape)
    before, beta = torch.zeros_like(v), inner(v, v) * 0
    tiny = torch.finfo(beta.dtype).tiny
    diagonal, beside = [], []
    for _ in range(steps):
        w = add_scaled(normal(v), -beta, before)
        alpha = inner(v, w)
        w = add_scaled(w, -alpha, v)
        beta = inner(w, w).sqrt()
        before, v = v, w / beta.clamp_min(tiny)
        diagonal.append(alpha.flatten())
        beside.append(beta.flatten())
    off = torch.diag_embed(torch.stack(beside[:-1], 1), 1)
    tridiagonal = torch.diag_embed(torch.stack(diagonal, 1)) + off + off.mT
    largest = torch.linalg.eigvalsh(tridiagonal.double().cpu())[:, -1]
    return largest.clamp_min(0).sqrt().to(alpha.flatten())
