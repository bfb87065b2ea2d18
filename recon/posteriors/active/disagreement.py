"""How much an image's particles disagree about measurements: entropies, variances, and information of Gaussians.

The particles ``z`` (S, n, E) are predicted measurements: n actions of E numbers each, with weights w (S,).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

DIFFERENCES_AT_ONCE = 2**21  # bounds the memory of `entropies`


def blocks(z: Tensor) -> list[Tensor]:
    """``z`` (S, n, E) in pieces of some actions at a time, for memory."""
    return list(z.split(max(1, DIFFERENCES_AT_ONCE // max(1, z.shape[0] * z.shape[2])), dim=1))


def entropies(z: Tensor, w: Tensor, square: Tensor) -> Tensor:
    """``-sum_i w_i ln sum_j w_j exp(-d_ij / (2 square))`` (n, groups), float64; z (S, n, groups, E).

    The largest exponent is the particle's own, 0: nothing overflows, and no sum vanishes. With a negative
    ``square`` far pairs dominate, and the sum is taken by log-sum-exp.
    """
    total = torch.zeros(z.shape[1:3], dtype=torch.float64, device=z.device)
    for weight, distance in zip(w, pair_distances(z, square.abs()), strict=True):
        if square < 0:
            near = (w.log()[:, None, None] + distance.double()).logsumexp(0)
        else:
            kernel = torch.einsum("s,sng->ng", w.to(distance), distance.neg_().exp_())
            near = kernel.clamp_min(torch.finfo(kernel.dtype).tiny).log()
        total -= weight * near
    return total


def pair_distances(z: Tensor, square: Tensor) -> Iterator[Tensor]:
    """``|z_i - z_j|^2 / (2 square)`` over j, (S, n, groups) in the precision of z, one particle i after another."""
    scale = (2 * square).rsqrt().to(z.real.dtype)
    parts = [p.contiguous() * scale for p in ((z.real, z.imag) if z.is_complex() else (z,))]
    if z.shape[3] == 1:
        parts = [p[..., 0] for p in parts]
    for i in range(len(z)):
        distance = sum((p - p[i]).square_() for p in parts)
        yield distance if z.shape[3] == 1 else distance.sum(-1)  # pyright: ignore[reportAttributeAccessIssue, reportReturnType]


def variances(z: Tensor, w: Tensor) -> Tensor:
    """``sum_i w_i |z_i - mean|^2`` of each action (n,), float64."""
    return torch.cat([torch.einsum("s,sne->n", w, squares(centred(b, w))) for b in blocks(z)])


def grams(z: Tensor, w: Tensor) -> Tensor:
    """``sqrt(w_i w_j) Re <z_i - mean, z_j - mean>`` (n, S, S), float64: its eigenvalues are those of the covariance."""
    rows = [torch.einsum("ine,jne->nij", c, c) for c in (weighed(block, w) for block in blocks(z))]
    return torch.cat(rows)


def covariances(z: Tensor, w: Tensor) -> Tensor:
    """The covariance of each action's real numbers (n, E, E), or its Gram matrix (n, S, S) where that is smaller."""
    if z.shape[2] * (2 if z.is_complex() else 1) >= len(z):
        return grams(z, w)
    c = weighed(z, w)
    return torch.einsum("sni,snj->nij", c, c)


def weighed(z: Tensor, w: Tensor) -> Tensor:
    """``sqrt(w_i) (z_i - mean)`` as real numbers, float64; a complex one is two."""
    c = centred(z, w)
    c = torch.view_as_real(c).flatten(2) if c.is_complex() else c
    return c.double() * w.sqrt()[:, None, None]


def centred(z: Tensor, w: Tensor) -> Tensor:
    """``z`` minus its weighted mean; exactly 0 where all particles are equal."""
    z = z - z[:1]
    return z - torch.einsum("s,sne->ne", w.to(z.dtype), z)


def information(gram: Tensor) -> Tensor:
    """``ln det(1 + G) / 2`` (...,) of matrices G (..., k, k), in nats."""
    return (
        torch.linalg.slogdet(gram + torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)).logabsdet
        / 2
    )


def squares(z: Tensor) -> Tensor:
    """``|z|^2``, float64."""
    if z.is_complex():
        return z.real.double().square() + z.imag.double().square()
    return z.double().square()
