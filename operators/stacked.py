"""Volumes that are measured slice by slice: by one operator, or by one for each slice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .base import Linear
from .errors import OperatorError

SLICES_IN_WORK = 32  # slices


class Stacked(Linear):
    """``y[d] = A_d x[:, d]``, of volumes (C, D, H, W): (D, *codomain of one slice).

    ``operators``: one for all ``slices``, or a sequence with one for each, of one domain (C, H, W) and one codomain, such
    as MRI with the maps of each slice. At most ``together`` slices are in work at a time, so that what an
    operator needs besides its result does not grow with the volume.
    """

    def __init__(
        self, operators: Linear | Sequence[Linear], slices: int | None = None, together: int = SLICES_IN_WORK
    ):
        given = (operators,) if isinstance(operators, Linear) else tuple(operators)
        count = len(given) if slices is None else slices
        if not given or (len(given) != count and len(given) != 1) or count < 1 or together < 1:
            raise OperatorError(
                f"Stacked was given {len(given)} operators for {count} slices, {together} together.",
                "There is one for all slices, or one for each.",
                "Write Stacked(A, slices=n), or Stacked([A_1, ..., A_n]).",
            )
        kinds = {(tuple(a.domain), a.complex_domain, a.codomain, a.complex_codomain) for a in given}
        if len(kinds) != 1 or any(a.images > 1 for a in given) or len(given[0].domain) != 3:
            raise OperatorError(
                f"Stacked was given operators of {len(kinds)} kinds, the first of images {tuple(given[0].domain)}.",
                "All slices of a volume have one domain (C, H, W) and one codomain.",
                "Crop or pad the slices to one size.",
            )
        self.operators, self.slices, self.together = given, count, together
        channels, *plane = given[0].domain
        self.domain = (channels, count, *plane)
        self.complex_domain = given[0].complex_domain

    @property
    def of_slices(self) -> tuple[Linear, ...]:
        """The operator of each slice."""
        return self.operators if len(self.operators) == self.slices else self.operators * self.slices

    @property
    def measured(self) -> int:
        return sum(a.measured for a in self.of_slices)

    def forward(self, x: Tensor) -> Tensor:
        return self._each(lambda a, rows: a.forward(rows), x.movedim(2, 1))

    def adjoint(self, y: Tensor) -> Tensor:
        return self._each(lambda a, rows: a.adjoint(rows), y).movedim(1, 2)

    def normal(self, x: Tensor) -> Tensor:
        return self._each(lambda a, rows: a.normal(rows), x.movedim(2, 1)).movedim(1, 2)

    def masked(self, y: Tensor) -> Tensor:
        return self._each(lambda a, rows: a.masked(rows), y)

    def solve_normal(self, b: Tensor, weight: float) -> Tensor | None:
        if any(a.solve_normal(a._zeros(1, b.dtype, b.device), weight) is None for a in self.operators):
            return None

        def solved(a: Linear, rows: Tensor) -> Tensor:
            found = a.solve_normal(rows, weight)
            assert found is not None
            return found

        return self._each(solved, b.movedim(2, 1)).movedim(1, 2)

    def _each(self, apply: Callable[[Linear, Tensor], Tensor], slices: Tensor) -> Tensor:
        """``apply`` of the operators and the slices (B, D, ...) as rows: (B, D, ...)."""
        if len(self.operators) == self.slices > 1:
            return torch.stack([apply(a, slices[:, d]) for d, a in enumerate(self.operators)], 1)
        rows = slices.flatten(0, 1)
        parts = [apply(self.operators[0], part) for part in rows.split(self.together)]
        out = torch.cat(parts) if parts else apply(self.operators[0], rows)
        return out.unflatten(0, (len(slices), self.slices))

    def __repr__(self) -> str:
        return f"Stacked({self.operators[0]!r} and so on, {self.slices} slices)"
