"""torch's Fourier transforms, defined for tensors without elements too."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor


def also_empty(transform: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``transform``, with an empty result for an empty batch or selection of lines.

    Some versions of MKL raise "Inconsistent configuration parameters" when there is nothing to transform:
    a mask without a sampled column, a batch of no images. The result has the shape and type that the
    transform would have given, and stays differentiable. A transformed axis itself is never empty.
    """

    @wraps(transform)
    def guarded(x: Tensor, *args, **kwargs) -> Tensor:
        if x.numel():
            return transform(x, *args, **kwargs)
        like = transform(torch.empty(x.shape, dtype=x.dtype, device="meta"), *args, **kwargs)
        return x.new_zeros(like.shape, dtype=like.dtype) + x.sum().real.to(like.dtype)

    return guarded


fft, ifft = also_empty(torch.fft.fft), also_empty(torch.fft.ifft)
rfft, irfft = also_empty(torch.fft.rfft), also_empty(torch.fft.irfft)
fft2, ifft2 = also_empty(torch.fft.fft2), also_empty(torch.fft.ifft2)
rfft2, irfft2 = also_empty(torch.fft.rfft2), also_empty(torch.fft.irfft2)
fftn, ifftn = also_empty(torch.fft.fftn), also_empty(torch.fft.ifftn)
