"""What can still be measured: the columns of k-space, the pixels of an image, the views of a scan, each an action.

A measurement of *everything* has the shape ``full(A).codomain``; a set of actions is a bool tensor that
broadcasts against it, (1, 1, W) for columns. So ``measure(chosen)`` is ``y_full * chosen`` for every kind.
An operator of one's own says what it offers by a method ``actions()``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from operators.base import Chain, Linear, Operator
from operators.complexify import Complexified
from operators.ct import CT
from operators.mri import MRI
from operators.per_image import PerImage
from operators.pixels import Inpainting

from .errors import ConfigError, unknown


class Actions:
    """What one kind of operator can measure, action by action.

    ``shape(A)`` has as many axes as ``full(A).codomain``, of its length where they tell actions apart and
    1 elsewhere; all sets of actions are bool tensors of this shape. ``measuring(A, taken)`` is the
    operator of a set. The defaults of ``spread`` and ``kept`` are for operators whose measurements have
    full size and are zero where nothing was measured.
    """

    name = "actions"

    def shape(self, A) -> tuple[int, ...]:
        """The shape of a set of actions: as many axes as measurements of everything."""
        raise NotImplementedError

    def taken(self, A) -> Tensor:
        """What A measures."""
        raise NotImplementedError

    def measuring(self, A, taken: Tensor) -> Operator:
        """The operator that measures the actions that are true in ``taken``."""
        raise NotImplementedError

    def full(self, A) -> Operator:
        """The operator that measures everything."""
        return self.measuring(A, torch.ones(self.shape(A), dtype=torch.bool))

    def spread(self, A, y: Tensor) -> Tensor:
        """Measurements of A in their places among those of everything."""
        return y

    def kept(self, A, y: Tensor) -> Tensor:
        """Of the measurements of everything those that A makes."""
        return y

    def places(self, A) -> Tensor:
        """Where the actions lie, (n, d) with neighbours a distance of 1 apart."""
        return (torch.ones(self.shape(A)).nonzero() * 1.0)[:, axes(self.shape(A))]


class Masked(Actions):
    """Of MRI and inpainting: their masks say what is measured."""

    def sampled(self, A) -> Tensor:
        """The mask (H, W) as bool."""
        mask = A.mask if A.mask.ndim == 3 else A.mask[None]
        if not (mask == mask[:1]).all():
            raise ConfigError(
                f"{A!r} measures other pixels in each channel.",
                "An action measures all channels of a pixel.",
                "Use one mask for all channels.",
            )
        return mask[0].bool().cpu()

    def masked(self, A, mask: Tensor) -> Operator:
        """A with the mask (H, W) ``mask``."""
        mask = mask.to(A.mask)
        return replace(A, mask=mask) if isinstance(A, MRI) else Inpainting(mask, channels=A.domain[0])


class Lines(Masked):
    """Whole columns: phase encoding lines of MRI, columns of an image."""

    name = "lines"

    def shape(self, A) -> tuple[int, ...]:
        """(1, 1, W)."""
        return (1, 1, A.mask.shape[-1])

    def taken(self, A) -> Tensor:
        """The columns A measures; raises `ConfigError` where it measures parts of some."""
        mask = self.sampled(A)
        if not (mask == mask[:1]).all():
            raise ConfigError(
                f"{A!r} measures parts of columns.",
                "An action measures a whole column.",
                'Use a mask of whole columns, or actions="points".',
            )
        return mask[None, :1]

    def measuring(self, A, taken: Tensor) -> Operator:
        """A with a mask of whole columns."""
        return self.masked(A, taken[0].expand(A.mask.shape[-2:]))


class Points(Masked):
    """Single pixels of an image, or single samples of k-space, in all channels or coils."""

    name = "points"

    def shape(self, A) -> tuple[int, ...]:
        """(1, H, W)."""
        return (1, *A.mask.shape[-2:])

    def taken(self, A) -> Tensor:
        """The mask of A."""
        return self.sampled(A)[None]

    def measuring(self, A, taken: Tensor) -> Operator:
        """A with this mask."""
        return self.masked(A, taken[0])


@dataclass(frozen=True)
class Views(Actions):
    """The views of ``scan``, the CT of all angles that can be measured; in its order, by angle in degrees."""

    scan: CT
    name = "views"

    def shape(self, A) -> tuple[int, ...]:
        """(1, views, 1)."""
        return (1, len(self.scan.angles), 1)

    def taken(self, A) -> Tensor:
        """The views of A, at their places among all."""
        taken = torch.zeros(self.shape(A), dtype=torch.bool)
        taken[0, self.positions(A)] = True
        return taken

    def positions(self, A) -> list[int]:
        """Where the views of A stand among all."""
        where = {round(angle, 9): i for i, angle in enumerate(self.scan.angles)}
        found = [where.get(round(angle, 9), -1) for angle in A.angles]
        if -1 in found or len(set(found)) < len(found) or A.codomain[-1] != self.scan.codomain[-1]:
            raise ConfigError(
                f"{A!r} has views that are not among those offered, or has one twice.",
                "New views are put among the old ones by their angles.",
                "Offer a CT of the same size and detectors with all angles, those measured included.",
            )
        return found

    def measuring(self, A, taken: Tensor) -> Operator:
        """The CT of these views, from the stored weights of all."""
        return self.full(A).of_views(taken.flatten())

    def full(self, A) -> CT:
        """``scan``, of the dtype and on the device of A."""
        return self.scan.to(A.dtype).to(A.device)

    def spread(self, A, y: Tensor) -> Tensor:
        """Views of A at their places among all, zeros elsewhere."""
        everything = y.new_zeros(len(y), *self.scan.codomain)
        everything[:, :, self.positions(A)] = y
        return everything

    def kept(self, A, y: Tensor) -> Tensor:
        """Those views that A measures."""
        return y[:, :, self.positions(A)]

    def places(self, A) -> Tensor:
        """On a circle, since a view at 180 degrees is that at 0."""
        turns = torch.deg2rad(2 * torch.tensor(self.scan.angles, dtype=torch.float64))
        return len(turns) / (2 * math.pi) * torch.stack([turns.cos(), turns.sin()], 1)


USUAL_ACTIONS: dict[str, Actions] = {"lines": Lines(), "points": Points()}


def offered(A: Operator, asked: str | Actions | CT | None = None) -> Actions:
    """The actions of an operator: ``asked``, its own, or those usual for its kind. Raises `ConfigError` where there are none."""
    part = core(parts(A)[0])
    if isinstance(asked, CT):
        asked = Views(asked)
    if isinstance(asked, Actions):
        return asked
    if asked is not None and asked not in USUAL_ACTIONS:
        raise unknown("kind of actions", asked, USUAL_ACTIONS)
    if isinstance(part, MRI | Inpainting):
        usual = "lines" if isinstance(part, MRI) and part.whole_columns else "points"
        return USUAL_ACTIONS[asked or usual]
    own = getattr(part, "actions", None)
    if asked is None and callable(own):
        return own()  # pyright: ignore[reportReturnType]
    if isinstance(part, CT):
        raise ConfigError(
            f"{part!r} does not say which other views could be measured.",
            do="Offer them: actions=op.CT(size, angles) with all angles, those measured included.",
        )
    raise ConfigError(
        f"{part!r} offers no actions{'' if asked is None else f' of kind {asked}'}.",
        "MRI offers lines and points, inpainting points and lines, CT views.",
        "Give an object of recon.actions.Actions, or give the operator a method actions().",
    )


def parts(A: Operator) -> tuple[Operator, ...]:
    """The operators of the images."""
    return A.operators if isinstance(A, PerImage) else (A,)


def core(A: Operator):
    """The operator that measures, of a chain such as ``A @ Scale(s)``, or on complex images."""
    if isinstance(A, Complexified):
        return core(A.inner)
    return core(A.outer) if isinstance(A, Chain) else A


def with_core(A: Operator, measuring: Operator) -> Operator:
    """The same chain with another operator that measures."""
    if isinstance(A, Complexified):
        return Complexified(cast(Linear, with_core(A.inner, measuring)))
    return with_core(A.outer, measuring) @ A.inner if isinstance(A, Chain) else measuring


def axes(shape: Sequence[int]) -> list[int]:
    """The axes that tell actions apart."""
    return [i for i, n in enumerate(shape) if n > 1] or [len(shape) - 1]


def grouped(z: Tensor, shape: Sequence[int]) -> Tensor:
    """Measurements of everything (rows, *codomain) by actions: (rows, n, elements)."""
    first = [1 + i for i in axes(shape)]
    rest = [i for i in range(1, z.ndim) if i not in first]
    return z.permute(0, *first, *rest).reshape(len(z), math.prod(shape), -1)
