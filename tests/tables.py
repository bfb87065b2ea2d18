"""The tables that the law suites run over: a new operator, solver or sampler adds one row here."""

from __future__ import annotations

from collections.abc import Callable

import torch

import operators as op


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _mask(*shape: int) -> torch.Tensor:
    return (_random(*shape, seed=1) > 0).double()


# name -> zero-argument factory of a tiny instance in float64
OPERATORS: dict[str, Callable[[], op.Linear]] = {
    "inpainting": lambda: op.Inpainting(_mask(5, 4)),
    "inpainting, 3 channels": lambda: op.Inpainting(_mask(5, 4), channels=3),
    "inpainting, mask a channel": lambda: op.Inpainting(_mask(2, 4, 5)),
    "sr bicubic": lambda: op.SuperResolution((1, 8, 12), factor=4).to(torch.float64),
    "sr bicubic x3": lambda: op.SuperResolution((1, 9, 6), factor=3).to(torch.float64),
    "sr box": lambda: op.SuperResolution((2, 6, 4), factor=2, filter="box").to(torch.float64),
    "sr gaussian": lambda: op.SuperResolution((1, 8, 8), factor=2, filter="gaussian").to(torch.float64),
    "sr reflect": lambda: op.SuperResolution((1, 9, 12), factor=3, padding="reflect").to(torch.float64),
    "blur": lambda: op.Blur(_random(3, 3), (1, 5, 6)),
    "blur, even kernel": lambda: op.Blur(_random(2, 4), (1, 4, 4)),
    "blur, kernel a channel": lambda: op.Blur(_random(2, 3, 1), (2, 4, 5)),
    "ct": lambda: op.CT(6, [0.0, 17.0, 45.0, 90.0, 133.0]).to(torch.float64),
    "difference": lambda: op.Difference((1, 4, 5)),
    "difference, circular": lambda: op.Difference((2, 3, 4), boundary="circular"),
    "difference, complex volume": lambda: op.Difference((1, 3, 4, 2), axes=(-3,), complex_domain=True),
    "identity": lambda: op.Identity((1, 3, 4)),
    "scale, complex": lambda: op.Scale(2.0 - 1.5j, (1, 3, 4), complex_domain=True),
    "chain": lambda: op.Inpainting(_mask(5, 6)) @ op.Blur(_random(3, 3), (1, 5, 6)),
    "sum": lambda: op.Inpainting(_mask(5, 6)) + 2.0 * op.Blur(_random(3, 3), (1, 5, 6)),
    "per image": lambda: op.PerImage((op.Inpainting(_mask(5, 4)), op.Inpainting(1 - _mask(5, 4)))),
}
