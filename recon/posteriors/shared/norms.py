"""``||A||`` of each row's own operator, and what is measured by it."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from operators import operator_norm
from operators.base import Linear

from ...problem import Problem


def row_norms(problem: Problem) -> Tensor:
    """`operators.operator_norm` in the rows of a problem: (rows, 1, ...), to multiply images with."""
    A, like = cast(Linear, problem.A), problem.backprojection
    norms = operator_norm(A, dtype=like.dtype).to(like.device)  # without tensors of its own A is on the CPU
    rows = norms.repeat_interleave(len(like) // A.images)
    return rows.view(-1, *[1] * (like.ndim - 1))


def inverse_squares(problem: Problem) -> Tensor | float:
    """``1 / ||A||^2`` of each row, to multiply images with: the unit of a gradient step; 1 for a nonlinear operator."""
    return 1 / row_norms(problem).square().clamp_min(1e-30) if problem.A.linear else 1.0
