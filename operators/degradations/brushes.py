"""Masks of irregular brush strokes: free-form inpainting."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SEGMENTS = 6  # straight pieces of a stroke
TURN = 1.2  # the most that a stroke turns from a piece to the next, in radians
PIECE = 0.12, 0.3  # the shortest and the longest piece, as shares of the image's shorter side


def brush_mask(size: tuple[int, int], strokes: int, thickness: float, seed: int = 0) -> Tensor:
    """(H, W) bool, False under ``strokes`` brush strokes of ``thickness`` pixels, drawn from ``seed``.

    A stroke starts anywhere in any direction and turns a little after each of 6 straight pieces; its ends and turns
    are round. What leaves the image is cut off.
    """
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in size)
    known = torch.ones(size, dtype=torch.bool)
    for _ in range(strokes):
        draw = torch.rand(3 + 2 * SEGMENTS, generator=generator, dtype=torch.float64).tolist()
        place = draw[0] * (size[0] - 1), draw[1] * (size[1] - 1)
        direction = 2 * math.pi * draw[2]
        for turn, share in zip(draw[3::2], draw[4::2], strict=True):
            direction += TURN * (2 * turn - 1)
            length = (PIECE[0] + share * (PIECE[1] - PIECE[0])) * min(size)
            end = place[0] + length * math.sin(direction), place[1] + length * math.cos(direction)
            known &= distance(rows[:, None], columns, place, end) > thickness / 2
            place = end
    return known


def distance(row: Tensor, column: Tensor, start: tuple[float, float], end: tuple[float, float]) -> Tensor:
    """From pixels to the straight piece between two points (row, column)."""
    way = end[0] - start[0], end[1] - start[1]
    along = (row - start[0]) * way[0] + (column - start[1]) * way[1]
    share = (along / max(way[0] ** 2 + way[1] ** 2, 1e-12)).clamp(0, 1)
    return torch.hypot(row - start[0] - share * way[0], column - start[1] - share * way[1])
