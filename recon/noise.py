"""Noise by counter: a draw is a function of (seed, image, sample, step, stream) and of nothing else.

So a row does not depend on the others in its batch, a run can be replayed or forked, and the same seed gives
the same draw on CPU and GPU and in every precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor

Draw = Callable[..., Tensor]
"""``draw(like, stream="step")``: unit variance per real component, in the shape of ``like``."""


@dataclass(frozen=True)
class Noise:
    """Draws for rows image-major: image ``images[row // samples]``, sample slot ``row % samples``.

    ``images`` are identities, not positions: slice 17 keeps its noise in any batch. The noise belongs
    to the slot; permuting a state does not permute it.
    """

    seed: int
    images: Sequence[int] = (0,)
    samples: int = 1

    def at(self, step: int) -> Draw:
        """The draws of one step; ``step = -1`` is the start."""

        def draw(like: Tensor, stream: str = "step") -> Tensor:
            return self(like, step, stream)

        return draw

    def __call__(self, like: Tensor, step: int, stream: str = "step") -> Tensor:
        parts = (2,) if like.is_complex() else ()
        shape = (*like.shape, *parts)  # each row is drawn in its place: float32, on the CPU
        drawn = torch.empty(
            shape, dtype=torch.float32, pin_memory=like.is_cuda
        )  # so that no step waits for the copy
        for row, place in enumerate(drawn):
            key = (self.seed, self.images[row // self.samples], row % self.samples, step, stream)
            place.normal_(generator=generator_of(key))
        drawn = torch.view_as_complex(drawn) if parts else drawn
        return drawn.to(device=like.device, dtype=like.dtype, non_blocking=like.is_cuda)


def generator_of(key: tuple) -> torch.Generator:
    """The random numbers of one row: those of the hash of its ``key``."""
    digest = blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
