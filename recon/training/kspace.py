"""Fully sampled k-space as training data: coil-combined complex images, made once and kept in a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from operators.masks import acceleration

from ..errors import InputError
from ..io import KSpaceFile, crop_readout, open_kspace, survey
from ..io.acquisition import has_gaps, measured_samples, refuse_turns, sampled_in
from ..io.whole import write_whole
from ..mri import normalise
from ..registry.recipe import Recipe

HDF5 = (".h5", ".hdf5")
RECIPE = Recipe(start="zero-filled")  # of all measured samples, where nothing is missing


class KSpaceScans:
    """The slices of fully sampled files, one after another, with what the files say of themselves.

    The images of a file are made when they are first asked for and kept in ``folder``, a file each, which is
    made anew when the k-space or what is done with it changes. Raises `InputError` for files that cannot be used, and
    for those that say themselves that they are undersampled, before any image is made.
    """

    def __init__(self, files: Sequence[Path], folder: Path):
        self.files = [open_kspace(path) for path in files]
        self.folder = folder
        for file in self.files:
            if file.mask is not None:
                refuse_gaps(file, file.mask.expand(file.height, file.width))
        self.starts = np.cumsum([0, *(file.slices for file in self.files)])

    @property
    def count(self) -> int:
        """Number of slices."""
        return int(self.starts[-1])

    @property
    def columns(self) -> Mapping[str, Callable[[], np.ndarray]]:
        """``subject``, and each text among the attributes of the files; one value a slice, empty where a file has none."""
        said = [texts_of(file) for file in self.files]
        names = dict.fromkeys(name for one in said for name in one)
        counts = [file.slices for file in self.files]
        return {name: partial(np.repeat, [one.get(name, "") for one in said], counts) for name in names}

    def images(self, indices: np.ndarray, finish: Callable[[Tensor], Tensor], how: str) -> list[Tensor]:
        """Slices (H, W) complex64 by index, after ``finish``, which ``how`` describes."""
        found = []
        wanted = [i for i in range(len(self.files)) if np.any(self.inside(indices, i))]
        for i in tqdm(wanted, "k-space to images", disable=None, unit="file"):
            images = kept_images(self.files[i], self.folder, finish, how)
            found += [images[index - self.starts[i]] for index in indices[self.inside(indices, i)]]
        return found

    def inside(self, indices: np.ndarray, i: int) -> np.ndarray:
        """Which of ``indices`` are slices of file ``i``."""
        return (indices >= self.starts[i]) & (indices < self.starts[i + 1])


def texts_of(file: KSpaceFile) -> dict[str, str]:
    """The texts that a file says of itself, and its ``subject``: the patient if it names one, else the file."""
    said = {name: value for name, value in file.attrs.items() if isinstance(value, str)}
    return {**said, "subject": said.get("patient_id") or file.path.stem}


def kept_images(file: KSpaceFile, folder: Path, finish: Callable[[Tensor], Tensor], how: str) -> Tensor:
    """The finished images (slices, H, W) complex64 of a file, from ``folder`` if they are there and still true.

    They stay on the disk and are read as they are used.
    """
    source = file.path.resolve()
    at = source.stat()
    made_of = digest(at.st_size, at.st_mtime_ns, sorted(asdict(RECIPE).items()), how)
    path = folder / f"{source.stem}-{digest(str(source))}.safetensors"
    found = read_kept(path, made_of)
    if found is None:
        images = torch.stack([finish(image) for image in combined_images(file)])
        content = save({"images": torch.view_as_real(images).contiguous()}, {"made_of": made_of})
        write_whole(path, lambda opened: opened.write(content))
        found = read_kept(path, made_of)
    assert found is not None
    return found


def read_kept(path: Path, made_of: str) -> Tensor | None:
    """Images that were kept; None where there are none, or they were made of something else."""
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("made_of") != made_of:
                return None
            return torch.view_as_complex(file.get_tensor("images"))
    except (OSError, SafetensorError):
        return None


def combined_images(file: KSpaceFile) -> list[Tensor]:
    """``sum_c conj(S_c) F^-1 k_c`` (H, W) complex64 of each slice: the maps S and the size are those of `recon reconstruct`.

    The readout is cropped to the image's. Of two sets of maps the first image is taken. Raises `InputError` for
    k-space with gaps, with NaN, or with an empty slice.
    """
    found = survey(file)
    measured = measured_samples(file, found)
    refuse_gaps(file, measured)
    refuse_turns(file, measured, found.always)
    cropped = file.crop[0] < file.height and bool((measured == measured[:1]).all())
    images = []
    for index in range(file.slices):
        piece = file.read_slice(index)
        kspace, mask, maps = piece.kspace, sampled_in(piece.kspace, measured), piece.maps
        if cropped:
            kspace = crop_readout(kspace, file.crop[0])
            mask, maps = mask.all(0).expand(kspace.shape[1:]), None
        one = normalise(kspace, mask, RECIPE, index=index, maps=maps)
        images.append(one.start[0])
    return images


def refuse_gaps(file: KSpaceFile, measured: Tensor) -> None:
    """Raises `InputError` where more than an edge of k-space (H, W) was not measured."""
    if has_gaps(measured):
        raise InputError(
            f"{file.path} is undersampled, by {acceleration(measured):.3g}.",
            "A prior learns from images of which everything was measured.",
            "Leave it out: of fastMRI, those of _train and _val are fully sampled.",
        )


def digest(*parts: object) -> str:
    """A short hash, in hexadecimal."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()
