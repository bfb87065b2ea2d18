"""What was measured, when, and why: enough to draw it, to save it, and to do it again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .choosing import Replay


@dataclass(frozen=True)
class Choice:
    """What was chosen after step ``step``, at ``sigma``: actions ``chosen[b]`` of image b, in order, by ``scores`` (B, n)."""

    step: int
    sigma: float
    chosen: tuple[tuple[int, ...], ...]
    scores: Tensor


@dataclass(frozen=True)
class Record:
    """All choices of a walk, in order. ``actions``: lines, points or views; ``shape``: of a set of them.

    ``initial`` (B, *shape) bool is what was measured before. Actions are numbered in row-major order.
    """

    actions: str
    shape: tuple[int, ...]
    initial: Tensor
    choices: tuple[Choice, ...] = ()

    @property
    def chosen(self) -> tuple[tuple[int, ...], ...]:
        """All actions chosen for each image, in order."""
        return tuple(
            tuple(action for choice in self.choices for action in choice.chosen[b])
            for b in range(len(self.initial))
        )

    @property
    def mask(self) -> Tensor:
        """What is measured in the end, (B, *shape) bool."""
        return self.masks[-1]

    @property
    def masks(self) -> Tensor:
        """What is measured before the first choice and after each, (1 + choices, B, *shape) bool."""
        masks = [self.initial.flatten(1)]
        for choice in self.choices:
            masks.append(masks[-1] | marked(choice.chosen, math.prod(self.shape)))
        return torch.stack(masks).view(-1, *self.initial.shape)

    def replay(self) -> Replay:
        """A policy that chooses the same again: ``Active(inner, choose=record.replay(), ...)``."""
        return Replay(self.chosen)

    def plain(self) -> dict[str, Any]:
        """Lists and numbers only, for JSON or HDF5; `Record.read` takes them back."""
        return {
            "actions": self.actions,
            "shape": list(self.shape),
            "initial": [mask.flatten().nonzero()[:, 0].tolist() for mask in self.initial],
            "acquisitions": [
                {
                    "step": a.step,
                    "sigma": a.sigma,
                    "chosen": [list(actions) for actions in a.chosen],
                    "scores": a.scores.tolist(),
                }
                for a in self.choices
            ],
        }

    @classmethod
    def read(cls, plain: dict[str, Any]) -> Record:
        """The record that `plain` was made of."""
        shape = tuple(plain["shape"])
        initial = marked(plain["initial"], math.prod(shape)).view(-1, *shape)
        choices = tuple(
            Choice(
                a["step"],
                a["sigma"],
                tuple(tuple(actions) for actions in a["chosen"]),
                torch.tensor(a["scores"], dtype=torch.float64),
            )
            for a in plain["acquisitions"]
        )
        return cls(plain["actions"], shape, initial, choices)


def marked(chosen, count: int) -> Tensor:
    """Lists of actions, one for each image, as (B, count) bool."""
    mask = torch.zeros(len(chosen), count, dtype=torch.bool)
    for own, actions in zip(mask, chosen, strict=True):
        own[list(actions)] = True
    return mask
