"""Colourisation: a picture of which only the lightness is measured."""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import Linear
from ..errors import OperatorError

LIGHTNESS = {"luma": (0.299, 0.587, 0.114), "mean": (1 / 3, 1 / 3, 1 / 3)}


class Colourisation(Linear):
    """``y = sum_c w_c x_c``: the lightness of an image with colours.

    ``weights``: "luma" (Rec. 601: .299, .587, .114 of red, green and blue, what a grey picture is made by) or
    "mean". Domain (3, H, W), codomain (1, H, W), real. Raises `OperatorError` for other channels and weights.
    """

    def __init__(self, domain: tuple[int, int, int], weights: str = "luma"):
        if weights not in LIGHTNESS:
            raise OperatorError(
                f"Colourisation has no weights {weights!r}.", do=f"Choose one of {', '.join(LIGHTNESS)}."
            )
        if len(domain) != 3 or domain[0] != len(LIGHTNESS[weights]):
            raise OperatorError(
                f"Colourisation was given images of shape {tuple(domain)}.",
                "It acts on images of three channels, (3, H, W).",
                "Give a picture with colours, or repeat a grey one three times.",
            )
        self.domain = tuple(domain)
        self.weights = torch.tensor(LIGHTNESS[weights], dtype=torch.float64).to(torch.get_default_dtype())

    def _column(self, like: Tensor) -> Tensor:
        return self.weights.to(like.dtype)[:, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return (self._column(x) * x).sum(1, keepdim=True)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._column(y) * y

    def solve_normal(self, b: Tensor, weight: float) -> Tensor:
        """``(b - w (w . b) / (weight + |w|^2)) / weight``, a pixel at a time."""
        return (b - self.adjoint(self.forward(b)) / (weight + self.weights.square().sum().to(b))) / weight
