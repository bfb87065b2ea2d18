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
        rows = [
            standard_normal(
                (self.seed, self.images[row // self.samples], row % self.samples, step, stream), like
            )
            for row in range(len(like))
        ]
        drawn = torch.stack(rows)
        if like.is_cuda:  # from pinned memory, so that the step does not wait for the copy
            drawn = drawn.pin_memory()
        return drawn.to(device=like.device, dtype=like.dtype, non_blocking=like.is_cuda)


def standard_normal(key: tuple, like: Tensor) -> Tensor:
    """One row, in the shape of a row of ``like``: float32 (complex64 for a complex ``like``), on the CPU, from the hash of ``key``."""
    digest = blake2b(repr(key).encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    shape = like.shape[1:]
    if like.is_complex():
        return torch.view_as_complex(torch.randn(*shape, 2, generator=generator, dtype=torch.float32))
    return torch.randn(shape, generator=generator, dtype=torch.float32)
