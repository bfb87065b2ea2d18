"""``||A||`` of each image's own operator, by power iteration."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from operators.base import Linear
from operators.krylov import inner

from ...problem import Problem

POWER_STEPS = 30


def norms(problem: Problem) -> Tensor:
    """``||A||_2`` (rows, 1, ...) of each row's own operator, by power iteration from one image for all."""
    A, like = cast(Linear, problem.A), problem.backprojection
    real = torch.randn(*A.domain, 2, generator=torch.Generator().manual_seed(0))
    probe = torch.view_as_complex(real) if like.is_complex() else real[..., 0]
    x = probe.to(like).expand(A.images, *A.domain).clone()
    tiny = torch.finfo(like.dtype.to_real()).tiny
    with torch.no_grad():
        for _ in range(POWER_STEPS):
            x = A.normal(x / inner(x, x).sqrt().clamp_min(tiny))
        return inner(x, x).sqrt().sqrt().repeat_interleave(len(like) // A.images, 0)
