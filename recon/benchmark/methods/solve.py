"""The method of a cell, by name, on the scene of that cell."""

from __future__ import annotations

from ..answer import Answer
from ..cells import Cell
from ..scenes import Scene
from .classical import CLASSICAL
from .ours import ours
from .peers import PEERS


def solve(scene: Scene, cell: Cell) -> Answer:
    """The method of ``cell`` on ``scene``. Raises what the method raises."""
    spec = cell.spec
    for others in (PEERS, CLASSICAL):
        if spec.sampler in others:
            return others[spec.sampler](scene, cell.calls, cell.samples, cell.seed, **spec.options)
    return ours(scene, cell)
