"""A function of many rows, a few rows at a time, also where it is differentiated."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def by_chunks(function: Callable[..., Tensor], rows: int, *tensors: Tensor) -> Tensor:
    """``function(*tensors)``, which keeps the rows apart, on at most ``rows`` rows at a time.

    Where a gradient is wanted each chunk runs again on the way back, a third more time for a network,
    so that the activations of one chunk are kept and not those of all; the values are the same.
    """
    if len(tensors[0]) <= rows:
        return function(*tensors)
    traced = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    parts = []
    for part in zip(*(tensor.split(rows) for tensor in tensors), strict=True):
        if traced:
            parts.append(checkpoint(function, *part, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(function(*part))
    return torch.cat(parts)
