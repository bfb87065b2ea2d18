"""k-space whose axes lie in another order than usual, or whose third is a second phase encoding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...errors import ConfigError, InputError
from .base import ArrayInfo, Store, refuse_more_than_memory
from .energy import centre_of
from .geometry import Geometry
from .header import Header
from .partitions import planes_of_volume

NAMED_AXES = ("slices", "kz", "coils", "h", "w")
"""Names of stored axes; "kz" is a second phase encoding, along which a volume becomes slices."""


def axes_of(text: str) -> tuple[str, ...]:
    """("h", "w", "coils") of "h,w,coils"; raises `ConfigError` for other names, and for what is no k-space."""
    axes = tuple(word.strip().lower() for word in text.split(","))
    whole = {"h", "w"} <= set(axes) <= set(NAMED_AXES) and len(set(axes)) == len(axes)
    if not whole or {"slices", "kz"} <= set(axes):
        raise ConfigError(
            f'The axes are "{text}".',
            f"They name each axis of the array once, h and w among them: {', '.join(NAMED_AXES)} (kz instead of slices).",
            "Write --axes h,w,coils.",
        )
    return axes


@dataclass(frozen=True, eq=False)
class ArrangedStore(Store):
    """The ``inner`` store with its k-space as (slices, coils, H, W), stored with the ``order`` of `NAMED_AXES`.

    With "kz" a volume is transformed along it first (`planes_of_volume`). Its k-space is held in memory whole.
    """

    inner: Store | None = None
    order: tuple[str, ...] = ()

    @property
    def format(self) -> str:  # type: ignore[override]
        """That of the inner store."""
        return self._inner.format

    @property
    def _inner(self) -> Store:
        assert self.inner is not None
        return self.inner

    def entries(self) -> dict[str, ArrayInfo]:
        found = dict(self._inner.entries())
        name = self._inner.find("kspace")
        if name is not None:
            found[name] = ArrayInfo(self._shape(found[name]), found[name].dtype)
        return found

    def fetch(self, name: str, index: int | None = None) -> np.ndarray:
        if name != self._inner.find("kspace"):
            return self._inner.fetch(name, index)
        return self._kspace.copy() if index is None else self._kspace[index].copy()

    def header(self) -> Header:
        return self._inner.header()

    def geometry(self, size: tuple[int, int]) -> Geometry | None:
        return self._inner.geometry(size)

    def noise_scan(self) -> np.ndarray | None:
        return self._inner.noise_scan()

    def notes(self) -> list[str]:
        return self._inner.notes()

    def attributes(self) -> Mapping[str, Any]:
        return self._inner.attributes()

    def _shape(self, info: ArrayInfo) -> tuple[int, ...]:
        """(slices, coils, H, W) of the stored k-space; raises `InputError` where the axes do not fit it."""
        if len(info.shape) != len(self.order):
            raise InputError(
                f"{self.path}: k-space has {len(info.shape)} axes, {info.shape}.",
                f"--axes names {len(self.order)}: {','.join(self.order)}.",
                "Name each axis of the array once.",
            )
        sizes = dict(zip(self.order, info.shape, strict=True))
        return (sizes.get("slices", sizes.get("kz", 1)), sizes.get("coils", 1), sizes["h"], sizes["w"])

    @cached_property
    def _kspace(self) -> np.ndarray:
        """All of it, complex64."""
        name = self._inner.find("kspace")
        assert name is not None
        info = self._inner.entries()[name]
        shape = self._shape(info)
        with self.reading():
            refuse_more_than_memory(shape, np.dtype(np.complex64))
        stored = self._inner.fetch(name)
        wanted = [axis for axis in ("slices", "kz", "coils", "h", "w") if axis in self.order]
        turned = np.transpose(stored, [self.order.index(axis) for axis in wanted])
        kspace = np.array(turned.reshape(shape), dtype=np.complex64, order="C")
        if "kz" not in self.order:
            return kspace
        with np.errstate(over="ignore", invalid="ignore"):
            profile = np.array([np.square(np.abs(one)).sum(dtype=float) for one in kspace])
        if centre_of(profile) == "corner":
            kspace = np.fft.fftshift(kspace, axes=0)
        return planes_of_volume(kspace, (kspace != 0).any(1), self.path)
