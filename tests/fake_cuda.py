"""A CUDA device without a GPU: tensors without values, among which whatever would make the host wait raises.

Run a walk under ``with FakeTensorMode(), StayThere():`` on the tensors of `empty`; `moved` puts a sampler on the device.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import operators as op
import recon
from recon.noise import Noise
from recon.posteriors.base import Posterior

COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
LEVELS = [3.0, 1.6, 1.0, 0.55, 0.3, 0.1, 0.0]


class Crossing(Exception):
    """A tensor went from one device to another: the host waits for that too."""


class StayThere(TorchDispatchMode):
    """Raises `Crossing` for copies between devices, which tensors without values would allow."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        devices = {t.device.type for t in tree_leaves((args, out)) if isinstance(t, Tensor)}
        if func in COPIES and len(devices) > 1:
            raise Crossing(f"{func} between {' and '.join(sorted(devices))}")
        return out


class Given(Noise):
    """Noise that is there already."""

    def __call__(self, like: Tensor, step: int, stream: str = "step") -> Tensor:
        return torch.ones_like(like)


def half(x: Tensor, sigma: float) -> Tensor:
    return 0.5 * x


def empty(dtype: torch.dtype) -> Tensor:
    return torch.empty(2, 1, 8, 8, dtype=dtype, device="cuda")


def moved(thing: Any) -> Any:
    """A sampler, its problem and its operator with every tensor, those computed once too, on the device."""
    if isinstance(thing, Posterior | recon.Problem | op.Operator):
        other = copy.copy(thing)
        vars(other).update({key: moved(value) for key, value in vars(thing).items()})
        return other
    return tree_map_only(Tensor, lambda t: t.to("cuda"), thing)
