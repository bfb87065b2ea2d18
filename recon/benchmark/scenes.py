"""What a benchmark measures: images under an operator, or k-space files undersampled, with the truth beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from operators.base import Linear
from operators.coils import rss
from operators.fourier import ifft2c
from operators.krylov import cg
from operators.mri import MRI

from ..actions import core, offered, with_core
from ..errors import ConfigError, InputError
from ..io import READERS, center_crop, files_in, open_kspace, scan
from ..io.acquisition import MaskChoice, acquire
from ..io.images import PICTURES, read_image
from ..io.measure import simulated
from ..io.simulated import peak, with_phase
from ..mri import empty_outside, normalise
from ..priors import Prior, prior_is_complex
from ..problem import Problem
from ..registry.operators import make_operator
from ..registry.recipe import Recipe
from .problems import ProblemSpec

FIT_STEPS = 15  # CG steps of the least-squares fit
IMAGES = (*PICTURES, ".npy", ".npz")


@dataclass(frozen=True, eq=False)
class Scene:
    """One image's measurement. ``problem`` of one image, in the prior's units; ``reference`` (h, w) magnitudes.

    ``everything`` (1, *codomain): measurements of all that could be measured, for those who choose;
    ``measure`` reads them. ``index`` names the image to the noise. ``prior``: that of these images.
    """

    problem: Problem
    prior: Prior
    reference: Tensor
    index: int
    everything: Callable[[], Tensor]

    @property
    def A(self) -> Linear:
        A = self.problem.A
        assert isinstance(A, Linear)
        return A

    @cached_property
    def start(self) -> Tensor:
        """(1, *domain): the image that explains y best, after a few CG steps."""
        with torch.no_grad():
            return cg(self.A.normal, self.problem.backprojection, steps=FIT_STEPS)

    @cached_property
    def _full(self) -> Tensor:
        with torch.no_grad():
            return self.everything()

    def measure(self, chosen: Tensor) -> Tensor:
        """New measurements, of full size, read where ``chosen``."""
        return self._full * chosen

    def magnitudes(self, x: Tensor) -> Tensor:
        """(..., sets, H, W) images as magnitudes (..., h, w), cropped as the reference is."""
        return center_crop(rss(x.cpu()), (self.reference.shape[-2], self.reference.shape[-1]))


class Images:
    """Pictures (png, jpg, npy) or stacks of slices (npz, ``images``): each scaled to a 99.5th percentile of 1.

    For a prior of complex images each has a smooth random phase of its own.
    """

    def __init__(self, path: Path):
        self.path = path
        if path.suffix.lower() == ".npz":
            self.stack = read_stack(path)
        else:
            self.stack = read_image(path, measured=False).abs().float()[None]

    @property
    def slices(self) -> int:
        return len(self.stack)

    def digest(self, index: int) -> str:
        return digest(self.stack[index])

    def truth(self, index: int, is_complex: bool) -> Tensor:
        """(H, W)"""
        image = self.stack[index]
        if not peak(image) > 0:
            raise InputError(f"{self.path}: image {index} is zero everywhere.", do="Leave it out.")
        return with_phase(image, index) if is_complex else image / peak(image)

    def scene(self, spec: ProblemSpec, index: int, prior: Prior, seed: int, device: torch.device) -> Scene:
        truth = self.truth(index, prior_is_complex(prior))
        size = (truth.shape[0], truth.shape[1])
        assert spec.operator is not None
        A = make_operator(spec.operator, spec.options, size, truth.is_complex())
        if not isinstance(A, Linear) or tuple(A.domain) != (1, *size):
            raise ConfigError(f"{A!r} cannot be benchmarked.", f"It is linear and for images {(1, *size)}.")
        A, sigma, image = A.to(device), float(spec.sigma or 0), truth.to(device)

        def everything() -> Tensor:
            return simulated(all_actions(A), image, sigma, seed, index)

        problem = Problem(A, simulated(A, image, sigma, seed, index), sigma)
        return Scene(problem, prior, truth.abs(), index, everything)


class KSpace:
    """A fully sampled k-space file; the reference is the root sum of squares of all of it."""

    def __init__(self, path: Path):
        self.path, self.file = path, open_kspace(path)
        self.found = scan(self.file)

    @property
    def slices(self) -> int:
        return self.file.slices

    def digest(self, index: int) -> str:
        return self.found.fingerprint

    def scene(self, spec: ProblemSpec, index: int, prior: Prior, seed: int, device: torch.device) -> Scene:
        acquisition = acquire(self.file, self.found, MaskChoice(**(spec.mask or {})))
        if not acquisition.simulated:
            raise InputError(
                f"{self.path} is not undersampled here, so there is no reference.",
                "A benchmark leaves out samples that were measured.",
                "Give the mask an acceleration.",
            )
        piece = self.file.read_slice(index)
        kspace, mask = piece.kspace.to(device), acquisition.mask.to(device)
        one = normalise(kspace, mask, Recipe(), index=index)
        reference = center_crop(rss(ifft2c(piece.kspace)), self.file.crop) / one.scale
        A = MRI(mask.to(kspace.real.dtype)) if one.maps is None else MRI(mask, one.maps)
        problem = Problem(A, kspace[None] / one.scale, one.noise)
        known = prior if one.maps is None else empty_outside(prior, [one], 1)

        def everything() -> Tensor:
            return kspace[None] / one.scale

        return Scene(problem, known, reference, index, everything)


Source = Images | KSpace


def all_actions(A: Linear) -> Linear:
    """The operator that measures everything A could."""
    full = with_core(A, offered(A).full(core(A)))
    assert isinstance(full, Linear)
    return full


def read_stack(path: Path) -> Tensor:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "images" not in archive:
                raise InputError(
                    f"{path} has no array `images`.",
                    f"It has {', '.join(archive)}.",
                    "Save the slices as np.savez(file, images=array).",
                )
            images = archive["images"]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read.", f"{error}.", "Copy it again.") from error
    if images.ndim != 3 or images.dtype.kind not in "fiu" or not np.isfinite(images).all():
        raise InputError(f"{path}: images are {images.shape} {images.dtype}.", "They are real, (N, H, W), and finite.")  # fmt: skip
    return torch.from_numpy(images.astype(np.float32))


def digest(tensor: Tensor) -> str:
    return hashlib.blake2b(tensor.numpy().tobytes(), digest_size=8).hexdigest()


def sources(
    spec: ProblemSpec, inputs: Sequence[str], root: Path, opened: dict[tuple[type, Path], Source]
) -> dict[str, Source]:
    """The inputs of a problem by the names they have in the rows; a folder stands for the files in it.

    ``opened`` keeps every file, so that it is looked at once for all problems.
    """
    kind = Images if spec.operator is not None else KSpace
    wanted = IMAGES if kind is Images else tuple(suffix for suffix in READERS if suffix != ".hdr")
    found: dict[str, Path] = {}
    for name in inputs:
        path = root / name
        files = [path]
        if path.is_dir():
            files = files_in(path, wanted)
        if not files or not all(file.is_file() for file in files):
            raise ConfigError(
                f"The input {path} is not there, or holds nothing.",
                f"Inputs end in {', '.join(wanted)}.",
                "Correct the path, or name the folder that inputs are relative to with --data.",
            )
        for file in files:
            if found.get(file.name, file).resolve() != file.resolve():
                raise ConfigError(f"{found[file.name]} and {file} have one name.", do="Rename one.")
            found[file.name] = file
    keys = {name: (kind, path.resolve()) for name, path in found.items()}
    for name, key in keys.items():
        if key not in opened:
            opened[key] = kind(found[name])
    return {name: opened[key] for name, key in keys.items()}


def chosen(source: Source, slices: int | tuple[int, ...]) -> list[int]:
    """Which slices: those named, or so many, from the middle on evenly: more of them only add to those before."""
    if isinstance(slices, tuple):
        return [index for index in slices if index < source.slices]
    order: dict[int, None] = {}
    for k in range(1, 4 * source.slices):  # van der Corput's sequence: 1/2, 1/4, 3/4, 1/8, ...
        share = int(f"{k:b}"[::-1], 2) / 2 ** k.bit_length()
        order.setdefault(int(share * source.slices))
    order |= dict.fromkeys(range(source.slices))
    return list(order)[:slices]
