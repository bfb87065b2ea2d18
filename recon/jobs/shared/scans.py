"""Sinograms that a job is given: opened, chosen from, and planned before any work starts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from operators.ct import CT

from ...errors import ConfigError, InputError
from ...io.folders import files_in
from ...io.stores import Geometry
from ...io.tomography import Sinogram, estimated_std, is_tomography, open_sinogram, without_stripes
from ...io.tomography.field import field_of_view
from ...io.tomography.sinogram import TURN
from ...priors import about
from ...registry.configuration import construct, parameters, refuse_unknown
from ...registry.objects import make_prior, usual_of
from ...registry.recipe import STARTS_OF_SINOGRAMS, Recipe, build, make_recipe
from ...runtime.runtime import Runtime
from ...sampling import noise_levels
from .tomograms import bulk_attenuation, operator_of, rays_of

TOMOGRAPHY: dict[str, Any] = {"start": "noise", "prior": "chest-ct", "steps": 40, "samples": 8}
"""Of `Recipe`, for sinograms."""
FROM_FIT: dict[str, Any] = {"start": "fit", "sigma_start": 1.2}
"""The same of DDS, plain and of volumes: measured at 8 to 49 views and over 90 degrees. PiGDM gains little, and its intervals lose."""
STARTING_AT_FIT = ("dds", "dds-3d")
TOMOGRAPHY_RUNTIME: dict[str, Any] = {"dtype": "auto"}
MILLIMETRES = {"um": 1e-3, "mm": 1.0, "cm": 10.0, "m": 1000.0}
REFERENCE_ARC = 170.0  # degrees: views over less make no reference
HEADROOM = 0.8  # of the memory that is there
VOLUME_SAMPLER = "dds-3d"
SLICES_OF_A_BLOCK, OVERLAP = 32, 2  # of a volume that are sampled together, and at both ends twice


@dataclass(frozen=True)
class ScanChoice:
    """What of a sinogram is used, and which image is made: the flags of ``recon reconstruct`` for sinograms.

    ``views`` evenly spread ones, of those in the ``arc`` (first, last) in degrees; ``rows``: first and last + 1 of the slices.
    ``axis``: a detector, or "auto" to find it. ``size`` pixels of side ``pixel``, in the file's unit of length. ``water``: its
    attenuation per that unit, which is 1 for the prior; None for the file's, else for that of the object's bulk.
    ``volume``: whether slices are taken as neighbours, which help each other; None where they are rows of one detector.
    ``radians``: the angles are. ``stripes``: what differs of a detector in all views is taken away (`without_stripes`).
    """

    views: int | None = None
    arc: tuple[float, float] | None = None
    rows: tuple[int, int] | None = None
    axis: str | float | None = None
    size: int | None = None
    pixel: float | None = None
    water: float | None = None
    volume: bool | None = None
    radians: bool = False
    stripes: bool = False

    def __post_init__(self):
        if self.water is not None and not 0 < self.water < float("inf"):
            raise ConfigError(f"--water is {self.water:g}.", "It is an attenuation per length, above 0.")


@dataclass(frozen=True)
class TomographySettings:
    """Everything but the sinograms: recipe, `ScanChoice`, and where the network runs.

    ``recipe.sigma_y`` is the noise of every ray, in the units of the sinogram; None to take it from counts, or estimate it.
    """

    recipe: Recipe = field(default_factory=lambda: tomography_recipe({}))
    scan: ScanChoice = field(default_factory=ScanChoice)
    runtime: Runtime = field(default_factory=lambda: Runtime(**TOMOGRAPHY_RUNTIME))

    @property
    def files(self) -> list[Path]:
        """The files that the settings name: the prior, where it is one."""
        return [Path(self.recipe.prior)]


@dataclass(frozen=True, eq=False)
class OpenedScan:
    """A sinogram as it is reconstructed, the noise ``std`` of its rays, and ``whole``: what is judged against, if anything.

    ``said``: sentences on how it was made. ``digest`` of its rays, their angles and noise.
    """

    sinogram: Sinogram
    std: np.ndarray
    whole: Sinogram | None
    said: tuple[str, ...]
    digest: str


@dataclass(frozen=True, eq=False)
class PlannedScan:
    """A sinogram that can be used, and what will be done with it.

    The image has ``slices`` of ``size`` pixels a side, each ``pixel`` wide, and attenuation over ``water``; noise
    ``levels`` are those of the sampler. ``config``: all that the result depends on beside the rays, whose digest is
    ``source``.
    """

    path: Path
    target: Path
    source: str
    config: dict[str, Any]
    slices: int
    size: int
    pixel: float
    unit: str
    water: float
    known_water: bool
    levels: list[float]
    recipe: Recipe
    counts: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    cone: bool = False
    joined: bool = False
    done: bool = False

    @property
    def geometry(self) -> Geometry | None:
        """Sizes of pixels in mm, None where lengths are in no unit."""
        scale = MILLIMETRES.get(self.unit)
        return None if scale is None else Geometry((side := self.pixel * scale, side, side))


def tomography_recipe(settings: Mapping[str, Any]) -> Recipe:
    """The `Recipe` for sinograms: the sampler's own and `TOMOGRAPHY`; ``settings`` go first."""
    sampler = str(settings.get("sampler", "dds"))
    usual, start = usual_of(sampler), FROM_FIT if sampler in STARTING_AT_FIT else {}
    recipe = make_recipe({**usual.settings(settings.get("solver", "")), **TOMOGRAPHY, **start, **settings})
    recipe.refuse_start(STARTS_OF_SINOGRAMS)
    return recipe


def settle_tomography(config: Mapping[str, Any], flags: Mapping[str, Any]) -> TomographySettings:
    """Settings of a configuration, flags first: the keys of `Recipe`, ``scan`` and ``runtime``; raises `ConfigError`."""
    given = {key: value for key, value in flags.items() if value is not None}
    recipe = {key: value for key, value in config.items() if key not in ("scan", "runtime")}
    refuse_unknown(recipe, [*parameters(Recipe)[0], "scan", "runtime"], "The configuration")
    scan, runtime = dict(config.get("scan") or {}), dict(config.get("runtime") or {})
    scan |= {name: given.pop(name) for name in parameters(ScanChoice)[0] if name in given}
    runtime |= {name: given.pop(name) for name in parameters(Runtime)[0] if name in given}
    return TomographySettings(
        tomography_recipe(recipe | given),
        construct(ScanChoice, scan, "A scan"),
        construct(Runtime, TOMOGRAPHY_RUNTIME | runtime, "The runtime"),
    )


def prior_of_tomography(settings: TomographySettings) -> Any:
    """The prior of the recipe on its device, which must be one of real images of one channel."""
    prior = make_prior(settings.recipe.prior)
    known = about(prior)
    if known.complex_images or known.channels != 1:
        kind = "complex images" if known.complex_images else f"images of {known.channels} channels"
        raise ConfigError(
            f"The prior {settings.recipe.prior} is one of {kind}.",
            "Attenuation is one real number a pixel.",
            "Choose one trained so, such as chest-ct; recon list priors.",
        )
    settings.recipe.refuse_prior(prior)
    return settings.runtime.prepare(prior)


def tomography_inputs(inputs: Sequence[str | Path]) -> list[Path]:
    """Those of ``inputs`` that are sinograms; a folder that is no TIFF stack stands for the sinograms in it.

    What cannot be read is none: the job for k-space says why.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, inputs):
        inner = [path]
        if path.is_dir() and not is_tomography(path):
            inner = []
            with suppress(InputError):
                inner = files_in(path, (".npz", ".h5", ".hdf5"))
        for file in inner:
            if is_tomography(file):
                found.setdefault(file.resolve(), file)
    return list(found.values())


def open_scan(path: Path, settings: TomographySettings) -> OpenedScan:
    """Read a sinogram and choose from it; raises `InputError` and `ConfigError`."""
    scan = settings.scan
    whole = open_sinogram(path, axis=scan.axis, radians=scan.radians, rows=scan.rows)
    said = list(whole.said)
    if scan.stripes and not whole.volume:
        whole = replace(whole, data=without_stripes(whole.data))
        said.append("stripes of detectors taken away")
    std = whole.std
    if settings.recipe.sigma_y is not None:
        std = np.full_like(whole.data, settings.recipe.sigma_y)
        said.append(f"noise {settings.recipe.sigma_y:g} in every ray, as given")
    elif std is None:
        axes = (1, 0, 2) if whole.volume else (0, 1, 2)
        std, words = estimated_std(whole.data.transpose(axes))
        std = std.transpose(axes)
        said.append(words)
    noisy, floored = with_std(whole, std, settings.recipe.sigma_floor)
    said += floored
    chosen = noisy if scan.arc is None else noisy.arc(*scan.arc)
    chosen = chosen if scan.views is None else chosen.views(scan.views)
    assert chosen.std is not None
    thinned = len(chosen.angles) < len(whole.angles)
    judged = thinned and whole.covered >= REFERENCE_ARC
    digest = hashlib.blake2b(digest_size=16)
    for array in (chosen.data, chosen.angles, chosen.std):
        digest.update(np.ascontiguousarray(array).tobytes())
    return OpenedScan(chosen, chosen.std, whole if judged else None, tuple(said), digest.hexdigest())


def with_std(sinogram: Sinogram, std: np.ndarray, floor: float) -> tuple[Sinogram, list[str]]:
    """A sinogram whose rays are of this noise, at least ``floor`` of the strongest rays, and what is to be said of that."""
    strong = float(np.percentile(sinogram.data, 99))
    least = floor * strong
    low = float((std < least).mean()) if strong > 0 else 0.0
    if low == 0:
        return replace(sinogram, std=std), []
    said = f"noise of {100 * low:.0f} % of the rays taken as {least:.2g}, {floor:g} of the strongest: no scan is known better"
    return replace(sinogram, std=np.maximum(std, np.float32(least))), [said]


def operator_for(opened: OpenedScan, size: int, pixel: float) -> CT:
    """The operator of a sinogram, for images of this size."""
    one = opened.sinogram
    return operator_of(one.beam, one.axis, one.angles, one.data.shape, size, pixel)


def plan_scan(path: Path, target: Path, settings: TomographySettings, prior: Any) -> PlannedScan:
    """How a sinogram is reconstructed with these settings; raises `ConfigError` and `InputError`."""
    opened, scan, recipe = open_scan(path, settings), settings.scan, settings.recipe
    one = opened.sinogram
    size, pixel = field_of_view(one, scan.size, scan.pixel)
    about(prior).space.refuse_size((size, size))
    notes = list(opened.said)
    water, known = scan.water or one.water, True
    A = operator_for(opened, size, pixel)
    slices = A.domain[1] if one.volume else one.slices
    joined = slices > 1 and not one.volume and (one.neighbours if scan.volume is None else scan.volume)
    if joined or (one.volume and scan.volume is not False):
        recipe = of_volumes(recipe)
        notes.append(
            f"slices are neighbours: {recipe.sampler} lets them help each other; --no-volume takes them one by one"
        )
    elif slices > 1 and scan.volume is None and not one.neighbours:
        notes.append("slices are taken one by one; --volume takes them as neighbours, which help each other")
    at_once = slices if one.volume else min(slices, block_of(settings) + 2 * OVERLAP) if joined else 1
    refuse_large(path, at_once, size, settings, joined)
    if water is None:
        water, known = bulk_attenuation(A, rays_of(one, [one.slices // 2]), one.covered), False
        water = float(f"{water:.4g}")
        notes.append(
            f"scale: {water:.4g} per {one.beam.unit}, the attenuation of the object's bulk, is 1 for the prior; --water gives another"
        )
    else:
        notes.append(f"scale: water is {water:.4g} per {one.beam.unit}")
    sampler, _ = build(recipe, prior)
    highest = recipe.sigma_start if recipe.start == "fit" else None
    levels = noise_levels(prior, recipe.steps, None, None, highest, sampler.usual)
    config = {
        **asdict(recipe),
        **({"block": block_of(settings)} if joined else {}),
        "prior_sha256": about(prior).card.get("sha256", ""),
        "scan": asdict(scan)
        | {
            "axis": one.axis,
            "size": size,
            "pixel": pixel,
            "water": water,
        },
        "beam": asdict(one.beam),
        "dtype": settings.runtime.precision,
    }
    rays = f"{len(one.angles)} views of {one.detectors} detectors over {min(one.covered, TURN):.4g} degrees"
    counts = f"{slices} slices, {rays}, {one.beam.kind} beam, image {size} x {size}, a pixel {pixel:.4g} {one.beam.unit}"
    return PlannedScan(
        path,
        target,
        opened.digest,
        config,
        slices,
        size,
        pixel,
        one.beam.unit,
        water,
        known,
        levels,
        recipe,
        counts,
        tuple(notes),
        one.warnings,
        one.volume,
        joined,
    )


def of_volumes(recipe: Recipe) -> Recipe:
    """The recipe with the sampler of volumes in the place of that of images: DDS with total variation across slices."""
    return replace(recipe, sampler=VOLUME_SAMPLER) if recipe.sampler == "dds" else recipe


def block_of(settings: TomographySettings) -> int:
    """How many slices of a volume are sampled together, besides those at both ends that overlap with the next."""
    return settings.runtime.slices or SLICES_OF_A_BLOCK


def needed_memory(slices: int, size: int, settings: TomographySettings) -> float:
    """Bytes at the peak for slices that are sampled together, roughly: their samples, and what a step keeps of them."""
    return 4.0 * slices * size**2 * (14 * settings.recipe.samples + 8) + 3e8


def refuse_large(path: Path, together: int, size: int, settings: TomographySettings, joined: bool) -> None:
    """Raise `ConfigError` for so many slices ``together`` that do not fit into memory; a volume of a cone beam is sampled whole."""
    needed = needed_memory(together, size, settings)
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * HEADROOM
    if needed > there > 0:
        raise ConfigError(
            f"{path}: {settings.recipe.samples} samples of {together} x {size} x {size} pixels need about {needed / 2**30:.1f} GiB.",
            f"{there / 2**30:.1f} GiB are there.",
            f"Use {'fewer --slices at a time, ' if joined else ''}fewer --samples, or a smaller --size or larger --pixel.",
        )
