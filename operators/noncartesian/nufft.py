"""The non-uniform Fourier transform of images at the points of a trajectory, and its adjoint, on finufft."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import OperatorError, import_extra

EPS = {torch.float32: 1e-7, torch.float64: 1e-14}
"""Relative error of a transform, by the precision of the data. Points are always float64: their rounding in
float32 alone would cost 1e-5 of an image of 256 x 256."""


def nufft(x: Tensor, points: Tensor, eps: float | None = None) -> Tensor:
    """``y_m = sum_r x_r e^{-2 pi i k_m . r}``: (..., H, W) complex -> (..., samples), r counted from (H//2, W//2).

    ``points`` (samples, 2) in cycles per pixel, first along H. In the precision of x, differentiable in x;
    ``eps`` is the relative error, by default `EPS`. Raises `OperatorError` where finufft is not installed.
    Source: Barnett, Magland, af Klinteberg, SIAM J. Sci. Comput. 41:C479 (2019).
    """
    return Transform.apply(x, points, tuple(x.shape[-2:]), False, eps)


def nufft_adjoint(y: Tensor, points: Tensor, shape: tuple[int, int], eps: float | None = None) -> Tensor:
    """``x_r = sum_m y_m e^{2 pi i k_m . r}``: (..., samples) complex -> (..., H, W); else as `nufft`."""
    return Transform.apply(y, points, shape, True, eps)


class Transform(torch.autograd.Function):
    """Either direction; each is the derivative of the other, so that both can be differentiated again."""

    @staticmethod
    def forward(
        ctx: Any, data: Tensor, points: Tensor, shape: tuple[int, int], adjoint: bool, eps: float | None
    ) -> Tensor:
        """The transform of ``data`` in float64; empty for an empty batch."""
        ctx.points, ctx.shape, ctx.adjoint, ctx.eps = points, shape, adjoint, eps
        rows = data.shape[:-1] if adjoint else data.shape[:-2]
        out = (*rows, *shape) if adjoint else (*rows, len(points))
        if not data.numel():
            return data.new_zeros(out)
        eps = eps or EPS[data.real.dtype]
        wide = data.resolve_conj().to(torch.complex128).reshape(-1, *data.shape[len(rows) :]).contiguous()
        angles = (2 * torch.pi * points.to(torch.float64)).T.contiguous()
        library = backend(data.device)
        if adjoint:
            found = library.finufft_type1(angles, wide, shape, modeord=0, isign=1, eps=eps)
        else:
            found = library.finufft_type2(angles, wide, modeord=0, isign=-1, eps=eps)
        return found.reshape(out).to(data.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        """The other direction, differentiable again; the points have no derivative."""
        return (
            Transform.apply(gradient, ctx.points, ctx.shape, not ctx.adjoint, ctx.eps),
            None,
            None,
            None,
            None,
        )


def backend(device: torch.device) -> Any:
    """pytorch-finufft's functions; raises `OperatorError` with the pip line where they, or cufinufft, are missing."""
    use = "Non-Cartesian k-space is transformed with"
    functional = import_extra("pytorch_finufft", "noncart", use, parts=("functional",)).functional
    if device.type == "cuda" and not getattr(functional, "CUFINUFFT_AVAIL", False):
        raise OperatorError(
            "Non-Cartesian k-space on a GPU needs cufinufft.",
            "finufft itself runs on the processor only.",
            "Install it: pip install cufinufft; or use --device cpu.",
        )
    return functional
