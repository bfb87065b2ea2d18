"""Several images in one batch, each under an operator of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Linear
from .errors import OperatorError


@dataclass(frozen=True, eq=False, repr=False)
class PerImage(Linear):
    """Several images in one batch, each under its own operator: rows b S ... (b + 1) S - 1 under ``operators[b]``.

    The operators share domain and codomain; a batch holds the same number S of rows for each image.
    """

    operators: tuple[Linear, ...]

    def __post_init__(self):
        if any(a.images > 1 for a in self.operators):
            raise OperatorError("PerImage was given a PerImage.", do="Give it all operators in one tuple.")
        kinds = {(tuple(a.domain), a.complex_domain, a.codomain, a.complex_codomain) for a in self.operators}
        if len(kinds) != 1:
            raise OperatorError(
                f"PerImage was given {len(self.operators)} operators of {len(kinds)} kinds.",
                "All images of a batch need one domain and one codomain, and there is at least one.",
                "Reconstruct images of different sizes one after another.",
            )

    @property
    def domain(self) -> tuple[int, ...]:
        return self.operators[0].domain

    @property
    def complex_domain(self) -> bool:
        return self.operators[0].complex_domain

    @property
    def codomain(self) -> tuple[int, ...]:
        return self.operators[0].codomain

    @property
    def complex_codomain(self) -> bool:
        """Whether measurements are complex; all operators agree."""
        return self.operators[0].complex_codomain

    @property
    def measured(self) -> int:
        return sum(a.measured for a in self.operators) // len(self.operators)

    def masked(self, y: Tensor) -> Tensor:
        return torch.cat([a.masked(r) for a, r in zip(self.operators, self._split(y), strict=True)])

    @property
    def images(self) -> int:
        return len(self.operators)

    def _split(self, rows: Tensor) -> tuple[Tensor, ...]:
        if len(rows) == 0 or len(rows) % self.images:
            raise OperatorError(
                f"PerImage was given {len(rows)} rows for {self.images} images.",
                "Rows are image by image, the same number for each.",
                "Repeat each image's rows with repeat_interleave.",
            )
        return rows.split(len(rows) // self.images)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([a.forward(r) for a, r in zip(self.operators, self._split(x), strict=True)])

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.cat([a.adjoint(r) for a, r in zip(self.operators, self._split(y), strict=True)])

    def normal(self, x: Tensor) -> Tensor:
        return torch.cat([a.normal(r) for a, r in zip(self.operators, self._split(x), strict=True)])

    def solve_normal(self, b: Tensor, weight: float) -> Tensor | None:
        parts = [a.solve_normal(r, weight) for a, r in zip(self.operators, self._split(b), strict=True)]
        solved = [part for part in parts if part is not None]
        return torch.cat(solved) if len(solved) == len(parts) else None

    def __repr__(self) -> str:
        return f"PerImage({', '.join(map(repr, self.operators))})"
