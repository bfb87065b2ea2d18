"""How k-space lies in its file: the order of the axes, a second phase encoding, the centre in the middle or the corner."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from operators.fourier import ifft2c

from ...errors import InputError, unknown
from .. import KSpaceFile, Survey, open_kspace, survey
from ..kspace import fftshift, kspace_file
from ..stores import ArrangedStore, CflStore, ISMRMRDStore, axes_of, open_store
from ..stores.energy import centre_of, is_encoded, wraps
from .masks import share_within

SHIFTS = ("kspace", "image", "both", "none")
MOST_COILS = 128  # entries of a last axis that may be coils
LINES = {-2: "rows", -1: "columns"}
VOLUMES = {  # by whether each axis before H and W is a phase encoding
    (True,): ("kz", "h", "w"),
    (True, False): ("kz", "coils", "h", "w"),
    (False, True): ("coils", "kz", "h", "w"),
}


@dataclass(frozen=True)
class Layout:
    """How the numbers lie. ``axes``: their order in the file, `ArrangedStore`'s, if it is not (slices, coils, H, W).

    ``fftshift``: what lies around the corner and is to be moved into the middle, "kspace", "image" or "both";
    "none": nothing, whatever it looks like; None: nothing, and k-space that looks so is refused. ``matrix``: N or
    (H, W), the size of the image where k-space lies along a trajectory; None for that which the file says.
    Raises `ConfigError` for other names.
    """

    axes: str | None = None
    fftshift: str | None = None
    matrix: tuple[int, ...] | None = None

    def __post_init__(self):
        if self.axes is not None:
            axes_of(self.axes)
        if self.fftshift is not None and self.fftshift not in SHIFTS:
            raise unknown("fftshift", str(self.fftshift), SHIFTS)
        if self.matrix is not None:
            object.__setattr__(self, "matrix", tuple(self.matrix))


def look(path: str | Path, layout: Layout | None = None) -> tuple[KSpaceFile, Survey]:
    """The k-space file at ``path`` as (slices, coils, H, W), its centre in the middle, and its `survey`.

    A volume with two phase encodings becomes slices, which its ``notes`` say. Raises `InputError` where the energy tells
    that the axes have another order, or that the centre lies in the corner, and ``layout`` does not say so.
    """
    layout = layout or Layout()
    if layout.axes is not None:
        file = arranged(Path(path), axes_of(layout.axes))
        found = survey(file)
    else:
        file = open_kspace(path, layout.matrix)
        found = survey(file)
        if file.trajectory is not None:  # which says where each sample lies
            return file, found
        if isinstance(file.store, ISMRMRDStore):  # each readout says where it lies
            return file, found
        order = order_of(file, found)
        if order is not None and "kz" not in order:
            raise other_axes(file, order)
        if order is not None:
            file = arranged(Path(path), order)
            found = survey(file)
            file = noted(
                file,
                f"A volume of {file.slices} partitions, since the energy falls off along them as along a phase encoding: "
                "transformed along them into slices first. If they are slices already, say so with --axes.",
            )
        elif isinstance(file.store, CflStore) and file.store.stacked:
            file = noted(
                file,
                "BART's dimension 2 is taken for slices, since the energy does not fall off along it as along a phase "
                "encoding. If it is one, transform it first: bart fft -u -i 4 in out.",
            )
    return centred(file, found, layout.fftshift)


def noted(file: KSpaceFile, note: str) -> KSpaceFile:
    """The file with one more of its ``notes``."""
    return replace(file, notes=(*file.notes, note))


def arranged(path: Path, order: tuple[str, ...]) -> KSpaceFile:
    """The file with its axes in this order."""
    store = open_store(path, "kspace")
    return kspace_file(ArrangedStore(store.path, inner=store, order=order))


def order_of(file: KSpaceFile, found: Survey) -> tuple[str, ...] | None:
    """The order of the stored axes if the energy along them tells of another than the usual; else None."""
    rank = len(file.store.entries()[file.name].shape)
    skipped = {4: (), 3: (1,) if file.store.axes == "slices" else (0,)}[rank]
    profiles = [profile for axis, profile in enumerate(found.profiles) if axis not in skipped]
    peaked = [centre_of(profile) is not None for profile in profiles]
    encoded = tuple(is_encoded(profile) for profile in profiles)
    if peaked[-2] and peaked[-1]:
        return VOLUMES.get(encoded[:-2])
    frequencies = [len(profile) for profile, peak in zip(profiles, peaked, strict=True) if peak]
    if peaked[-1] or len(frequencies) < 2 or len(profiles[-1]) >= min(*frequencies, MOST_COILS):
        return None
    if rank == 3:
        return ("h", "w", "coils")
    if peaked[0] and peaked[1]:
        return ("h", "w", "kz" if encoded[2] else "slices", "coils")
    return ("slices", "h", "w", "coils") if peaked[1] and peaked[2] else None


def other_axes(file: KSpaceFile, order: tuple[str, ...]) -> InputError:
    """The error for k-space whose axes have another ``order`` than they are read in."""
    shape = file.store.entries()[file.name].shape
    named = ", ".join(axis.upper() if len(axis) == 1 else axis for axis in order)
    return InputError(
        f"{file.path}: k-space of shape {shape} looks like ({named}).",
        f"Its energy peaks along H and W; taken as usual it is {file.counts} of {file.height} x {file.width}.",
        f"Say so with --axes {','.join(order)}, or store it as (slices, coils, H, W).",
    )


def centred(file: KSpaceFile, found: Survey, wanted: str | None) -> tuple[KSpaceFile, Survey]:
    """The file with k-space and image in the middle, as `Layout.fftshift` wants it, with notes of what was done."""
    rows, columns = (centre_of(profile) for profile in found.profiles[2:])
    corner = tuple(axis for axis, place in ((-2, rows), (-1, columns)) if place == "corner")
    if corner and wanted in (None, "image"):
        raise InputError(
            f"{file.path}: the centre of k-space lies in the corner along its {in_words(corner)}.",
            "Its energy is largest there and least in the middle: it was not fftshifted, and would give a wrong image.",
            "Add --fftshift to move it into the middle (--fftshift both for the image of a plain fft2 as well), "
            "or --fftshift none to leave it.",
        )
    if wanted in ("kspace", "both"):
        file = replace(file, shifted=corner, mask=fitting_mask(file.mask, found.sampled, corner))
        found = found.moved(corner)
        moved = f"moved from the corner to the middle along its {in_words(corner)}"
        file = noted(
            file, f"The centre of k-space is {moved if corner else 'in the middle: it was not moved'}."
        )
    around = wrapped(file, found)
    if wanted in ("image", "both"):
        moved = f"moved by half its size along its {in_words(around)}"
        file = noted(file, f"The image is {moved if around else 'in the middle: it was not moved'}.")
        file = replace(file, rolled=around)
    elif around and wanted != "none":
        add = "both" if wanted == "kspace" else "image"
        file = noted(
            file,
            f"The image lies around its border along its {in_words(around)}, as that of a plain fft2 does: "
            f"--fftshift {add} moves it into the middle, where the prior knows images.",
        )
    return file, found


def in_words(axes: tuple[int, ...]) -> str:
    """ "rows and columns"."""
    return " and ".join(LINES[axis] for axis in axes)


def fitting_mask(mask: Tensor | None, sampled: Tensor, axes: tuple[int, ...]) -> Tensor | None:
    """The file's own mask for k-space moved along ``axes``: moved too, unless only as it is it fits ``sampled``."""
    if mask is None:
        return None
    moved = fftshift(mask, tuple(axis for axis in axes if -axis <= mask.ndim))
    after = fftshift(sampled, axes)
    return mask if share_within(mask, after) > share_within(moved, after) else moved


def wrapped(file: KSpaceFile, found: Survey) -> tuple[int, ...]:
    """The axes along which the loudest slice's image lies around its border, judged by the centre of its k-space."""
    kspace = file.read_slice(int(found.by_slice.argmax())).kspace
    for axis in (-2, -1):
        n = kspace.shape[axis]
        near = (torch.arange(n) - n // 2).abs() <= max(4, n // 16)
        kspace = kspace * near.view(n, *(1,) * (-1 - axis))
    power = ifft2c(kspace).abs().double().square().sum(0).numpy()
    return tuple(axis for axis in (-2, -1) if wraps(power.sum(-3 - axis)))
