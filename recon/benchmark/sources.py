"""The inputs of a benchmark: images measured by an operator, or k-space files undersampled, each as scenes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from operators.base import Linear
from operators.coils import rss
from operators.errors import OperatorError
from operators.fourier import ifft2c
from operators.mri import MRI

from ..actions import core, offered, with_core
from ..errors import ConfigError, InputError, ReconError
from ..io import READERS, center_crop, files_in
from ..io.acquisition import Acquisition, MaskChoice, acquire
from ..io.checks.layout import look
from ..io.images import COLOUR_CHANNELS, PICTURES, read_image, read_stack
from ..io.simulated import peak, simulate, with_phase
from ..mri import UNWEIGHED, empty_outside, normalise
from ..priors import Prior, about
from ..problem import Problem
from ..registry.operators import make_operator
from ..registry.recipe import Recipe
from .scene import Scene
from .specs import Benchmark, ProblemSpec

IMAGES = (*PICTURES, ".npy", ".npz")


class ImageStack:
    """Pictures (png, jpg, npy) or stacks of slices (npz, ``images``), (N, C, H, W): each scaled to a 99.5th percentile of 1.

    For a prior of complex images each has a smooth random phase of its own. In ``colour`` they have three channels, and
    their values, 0 to 1, stay as they are. ``crop``: of each the middle so many pixels in each direction; raises
    `ConfigError` for images with fewer.
    """

    def __init__(self, path: Path, crop: int | None = None, colour: bool = False):
        self.path, self.colour = path, colour
        if path.suffix.lower() == ".npz":
            images = read_stack(path)[:, None]
        else:
            image = read_image(path, measured=False, colour=colour)
            image = (image if colour and not image.is_complex() else image.abs()).float()
            images = image[None] if image.ndim == 3 else image[None, None]
        if crop is not None:
            if crop > min(images.shape[-2:]):
                raise ConfigError(
                    f"{path} has images of {' x '.join(map(str, images.shape[-2:]))}.",
                    f"They cannot be cropped to {crop} x {crop}.",
                    "Lower crop.",
                )
            images = center_crop(images, (crop, crop)).contiguous()
        self.stack = images.expand(-1, COLOUR_CHANNELS, -1, -1) if colour else images

    @property
    def slices(self) -> int:
        """How many images there are."""
        return len(self.stack)

    def digest(self, index: int) -> str:
        """A hash of the pixels of one image."""
        return hashlib.blake2b(self.stack[index].numpy().tobytes(), digest_size=8).hexdigest()

    def truth(self, index: int, is_complex: bool) -> Tensor:
        """The image (C, H, W) that is measured; raises `InputError` for an empty one."""
        image = self.stack[index]
        if not peak(image) > 0:
            raise InputError(
                f"{self.path}: image {index} cannot be scaled.",
                "Its 99.5th percentile is not above 0.",
                "Leave it out.",
            )
        if self.colour:
            return image
        return with_phase(image[0], index)[None] if is_complex else image / peak(image)

    def operator(self, spec: ProblemSpec, prior: Prior) -> Linear:
        """The operator of ``spec`` for these images; raises `ConfigError` where there is none, or a nonlinear one."""
        channels, *size = self.stack.shape[1:]
        assert spec.operator is not None
        A = make_operator(
            spec.operator, spec.options, (size[0], size[1]), about(prior).complex_images, channels
        )
        if not isinstance(A, Linear) or tuple(A.domain) != (channels, *size):
            raise ConfigError(
                f"{A!r} cannot be benchmarked.",
                f"The operator must be linear, with domain {(channels, *size)}.",
            )
        return A

    def refuse(self, spec: ProblemSpec, prior: Prior) -> None:
        """Raise what no image of this source could be measured with."""
        self.operator(spec, prior)

    def scene(self, spec: ProblemSpec, index: int, prior: Prior, seed: int, device: torch.device) -> Scene:
        """One image under the operator of ``spec``, with its noise; raises `ConfigError` for a nonlinear operator."""
        truth = self.truth(index, about(prior).complex_images)
        A, sigma, image = self.operator(spec, prior).to(device), float(spec.sigma or 0), truth.to(device)

        def all_measurements() -> Tensor:
            return simulate(measuring_everything(A), image, sigma, seed, index)

        problem = Problem(A, simulate(A, image, sigma, seed, index), sigma)
        reference = truth if self.colour else truth[0].abs()
        return Scene(problem, prior, reference, index, all_measurements)


class KSpace:
    """A fully sampled k-space file; the reference is the root sum of squares of all of it."""

    def __init__(self, path: Path, crop: int | None = None):
        if crop is not None:
            raise ConfigError(f"{path} is k-space.", "Images alone are cropped.", "Leave crop out.")
        self.path = path
        self.file, self.found = look(path)

    @property
    def slices(self) -> int:
        """How many slices there are."""
        return self.file.slices

    def digest(self, index: int) -> str:
        """The fingerprint of the whole file."""
        return self.found.fingerprint

    def refuse(self, spec: ProblemSpec, prior: Prior) -> None:
        """Raise what no slice of this file could be undersampled with."""
        self.acquisition(spec)

    def acquisition(self, spec: ProblemSpec) -> Acquisition:
        """The mask of ``spec`` on this file; raises `InputError` where it leaves nothing out."""
        acquisition = acquire(self.file, self.found, MaskChoice(**(spec.mask or {})))
        if not acquisition.simulated:
            raise InputError(
                f"{self.path} has no reference: the mask leaves nothing out.",
                "A benchmark compares with the samples that were measured and not used.",
                "Give the mask an acceleration.",
            )
        return acquisition

    def scene(self, spec: ProblemSpec, index: int, prior: Prior, seed: int, device: torch.device) -> Scene:
        """One slice under the mask of ``spec``; raises as `acquisition` does."""
        acquisition, piece = self.acquisition(spec), self.file.read_slice(index)
        kspace, mask = piece.kspace.to(device), acquisition.mask.to(device)
        one = normalise(kspace, mask, Recipe(sigma_floor=UNWEIGHED), index=index)
        reference = center_crop(rss(ifft2c(piece.kspace)), self.file.crop) / one.scale
        A = MRI(mask.to(kspace.real.dtype)) if one.maps is None else MRI(mask, one.maps)
        problem = Problem(A, kspace[None] / one.scale, one.noise)
        inside = prior if one.maps is None else empty_outside(prior, [one], 1)

        def all_measurements() -> Tensor:
            return kspace[None] / one.scale

        return Scene(problem, inside, reference, index, all_measurements)


Source = ImageStack | KSpace


def measuring_everything(A: Linear) -> Linear:
    """The operator that measures everything that A could be made to measure."""
    full = with_core(A, offered(A).full(core(A)))
    assert isinstance(full, Linear)
    return full


# --- the inputs of a configuration -------------------------------------------------------------------------


def open_inputs(config: Benchmark, root: Path, prior: Prior) -> dict[str, dict[str, Source]]:
    """The inputs of each problem: problem -> name in the rows -> source. Each file is opened once.

    Images are read in colour for a prior of images in colour.
    """
    colour = about(prior).channels == COLOUR_CHANNELS
    opened: dict[tuple[type, Path], Source] = {}
    return {
        name: open_sources(problem, problem.inputs or config.inputs, root, opened, config.crop, colour)
        for name, problem in config.problems.items()
    }


def refuse_problems(config: Benchmark, inputs: Mapping[str, Mapping[str, Source]], prior: Prior) -> None:
    """Raise `ConfigError` for a problem whose operator or mask cannot be made for an input; of each size one is tried."""
    for name, sources in inputs.items():
        kinds = {
            tuple(s.stack.shape[-2:]) if isinstance(s, ImageStack) else s.path: s for s in sources.values()
        }
        for source in kinds.values():
            try:
                source.refuse(config.problems[name], prior)
            except (ReconError, OperatorError) as error:
                raise ConfigError(
                    f"problems.{name}, {source.path}: {error.what}", error.why, error.do
                ) from error


def open_sources(
    problem: ProblemSpec,
    inputs: Sequence[str],
    root: Path,
    opened: dict[tuple[type, Path], Source],
    crop: int | None = None,
    colour: bool = False,
) -> dict[str, Source]:
    """The inputs of one problem by the names they have in the rows; a folder stands for the files in it.

    ``opened`` keeps every file for the other problems. Raises `ConfigError` for a path that holds nothing.
    """
    kind = ImageStack if problem.operator is not None else KSpace
    suffixes = IMAGES if kind is ImageStack else tuple(suffix for suffix in READERS if suffix != ".hdr")
    paths: dict[str, Path] = {}
    for name in inputs:
        path = root / name
        files = [path]
        if path.is_dir():
            files = files_in(path, suffixes)
        if not files or not all(file.is_file() for file in files):
            raise ConfigError(
                f"The input {path} does not exist, or holds nothing.",
                f"Inputs end in {', '.join(suffixes)}.",
                "Correct the path, or name the folder that inputs are relative to with --data.",
            )
        for file in files:
            if paths.get(file.name, file).resolve() != file.resolve():
                raise ConfigError(f"{paths[file.name]} and {file} have one name.", do="Rename one.")
            paths[file.name] = file
    keys = {name: (kind, path.resolve()) for name, path in paths.items()}
    for name, key in keys.items():
        if key not in opened:
            path = paths[name]
            opened[key] = ImageStack(path, crop, colour) if kind is ImageStack else KSpace(path, crop)
    return {name: opened[key] for name, key in keys.items()}


def chosen_slices(source: Source, slices: int | tuple[int, ...]) -> list[int]:
    """Which slices: those named, or so many, spread from the middle on: asking for more only adds to those before."""
    if isinstance(slices, tuple):
        return [index for index in slices if index < source.slices]
    order: dict[int, None] = {}
    for k in range(1, 4 * source.slices):  # van der Corput's sequence: 1/2, 1/4, 3/4, 1/8, ...
        share = int(f"{k:b}"[::-1], 2) / 2 ** k.bit_length()
        order.setdefault(int(share * source.slices))
    order |= dict.fromkeys(range(source.slices))
    return list(order)[:slices]
