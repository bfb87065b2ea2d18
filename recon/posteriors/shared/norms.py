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


def squared_sizes(problem: Problem) -> Tensor | float:
    """``||A||^2`` in the rows of a problem; of a nonlinear operator ``lipschitz^2``, 1 where it states none."""
    if problem.A.linear:
        return row_norms(problem).square()
    return 1.0 if problem.A.lipschitz is None else problem.A.lipschitz**2


def inverse_squares(problem: Problem) -> Tensor | float:
    """``1 / ||A||^2`` of each row (`squared_sizes`), to multiply images with: the unit of a gradient step."""
    found = squared_sizes(problem)
    return 1 / found.clamp_min(1e-30) if isinstance(found, Tensor) else 1 / max(found, 1e-30)


def is_measurable(problem: Problem) -> bool:
    """Whether the size of A is known: it is linear, or states its ``lipschitz``."""
    return problem.A.linear or problem.A.lipschitz is not None
