"""Operators by name, for images of a given size: those that ship, and a user's own ``module:Class``."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from operators import (
    CT,
    JPEG,
    Blur,
    Clipping,
    Colourisation,
    Identity,
    Inpainting,
    Linear,
    NonlinearBlur,
    Operator,
    PhaseRetrieval,
    SuperResolution,
    anisotropic_kernel,
    brush_mask,
    complexified,
    motion_kernel,
)
from operators.coils import rss, simulate_coils
from operators.fourier import gaussian_kernel
from operators.masks import make_mask
from operators.mri import MRI
from operators.noncartesian import NonCartesianMRI, radial_trajectory, spiral_trajectory

from ..errors import ConfigError, InputError, unknown
from .configuration import construct, parameters, refuse_unknown
from .plugins import find_object, is_own

Size = tuple[int, int]
# of operators that are made for a simulation
MOST_VIEWS, MOST_COILS, MOST_SAMPLES, MOST_STROKES = 10_000, 512, 100_000, 1000
MOST_BEND, MOST_OVERSAMPLING = 180.0, 8.0


def inpainting(
    size: Size,
    keep: float = 0.5,
    seed: int = 0,
    mask: Tensor | None = None,
    box: Sequence[int] | None = None,
    strokes: int | None = None,
    thickness: float | None = None,
    channels: int = 1,
) -> Linear:
    """Known pixels: a random share ``keep``, all but a central ``box`` (h, w) or random brush ``strokes``, or where ``mask`` (H, W) is 1.

    ``thickness`` of a stroke in pixels, by default a twelfth of the image's shorter side.
    """
    shapes = {"box": box, "strokes": strokes, "mask": mask}
    given = [name for name, value in shapes.items() if value is not None]
    refuse_unless(len(given) < 2, "mask", " and ".join(given), "a box, strokes or a mask, one of them")
    if thickness is not None:
        refuse_unless(
            strokes is not None and 1 <= thickness <= min(size),
            "thickness",
            thickness,
            f"that of strokes, in pixels, here 1 to {min(size)}",
        )
    refuse_unless(0 <= keep <= 1, "keep", keep, "the share of pixels that are known, from 0 to 1")
    if box is not None:
        fits = len(box) == 2 and all(0 < b < n for b, n in zip(box, size, strict=True))
        refuse_unless(
            fits, "box", list(box), f"a height and a width inside the image of {size[0]} x {size[1]}"
        )
        (top, left), mask = ((n - b) // 2 for b, n in zip(box, size, strict=True)), torch.ones(size)
        mask[top : top + box[0], left : left + box[1]] = 0
    elif strokes is not None:
        refuse_unless(1 <= strokes <= MOST_STROKES, "strokes", strokes, f"a number from 1 to {MOST_STROKES}")
        mask = brush_mask(size, strokes, max(1.0, min(size) / 12) if thickness is None else thickness, seed)
    elif mask is None:
        mask = torch.rand(size, generator=torch.Generator().manual_seed(seed)) < keep
    elif tuple(mask.shape) not in (size, (1, *size)):
        raise InputError(
            f"The mask of the operator inpainting has the shape {tuple(mask.shape)}.",
            f"The image is {size[0]} x {size[1]}, and a mask has a value for each of its pixels.",
            "Use a mask of that size, or an image that fits the mask.",
        )
    return Inpainting(mask, channels)


def super_resolution(
    size: Size, factor: int = 4, filter: str = "bicubic", padding: str = "circular", channels: int = 1
) -> Linear:
    """A smaller image: a filter against aliasing, then every ``factor``-th pixel of each axis."""
    return SuperResolution((channels, *size), factor, filter, padding)


def blur(size: Size, width: float = 2.0, kernel: Tensor | None = None, channels: int = 1) -> Linear:
    """Circular convolution with a Gaussian of standard deviation ``width`` pixels, or with ``kernel`` (h, w)."""
    if kernel is None:
        refuse_width("width", width, size)
        kernel = gaussian_kernel(width)
    return Blur(kernel if kernel.is_complex() else kernel.float(), (channels, *size))


def refuse_width(key: str, width: float, size: Size) -> None:
    """Raises `InputError` for a standard deviation at which a kernel cut at four of them does not fit into the image."""
    widest = (min(size) - 1) // 2 / 4
    refuse_unless(0 < width <= widest, key, width, f"a number of pixels above 0, here up to {widest:g}")


def anisotropic_blur(
    size: Size, width: float = 3.0, across: float = 1.0, angle: float = 30.0, channels: int = 1
) -> Linear:
    """Circular convolution with a Gaussian of standard deviation ``width`` pixels at ``angle`` degrees, and ``across`` it."""
    refuse_width("width", width, size)
    refuse_width("across", across, size)
    return Blur(anisotropic_kernel(width, across, angle), (channels, *size))


def motion_blur(
    size: Size, length: float = 9.0, angle: float = 30.0, bend: float = 0.0, seed: int = 0, channels: int = 1
) -> Linear:
    """Circular convolution with a path of ``length`` pixels at ``angle`` degrees; ``bend`` degrees let it stray at random."""
    return Blur(motion_path(size, length, angle, bend, seed), (channels, *size))


def motion_path(size: Size, length: float, angle: float, bend: float, seed: int) -> Tensor:
    """The kernel of `motion_blur`; raises `InputError` for a path that does not fit into the image."""
    longest = min(size) - 5  # the kernel of a straight path is up to 4 pixels longer
    refuse_unless(0 <= bend <= MOST_BEND, "bend", bend, f"a number of degrees from 0 to {MOST_BEND:g}")
    refuse_unless(
        0 < length <= longest, "length", length, f"a number of pixels above 0, here up to {longest}"
    )
    return motion_kernel(length, angle, bend, seed)


def colourisation(size: Size, weights: str = "luma", channels: int = 3) -> Linear:
    """The lightness alone of a picture with colours, as ``weights`` say: luma (Rec. 601), or mean."""
    return Colourisation((channels, *size), weights)


def nonlinear_blur(
    size: Size, length: float = 9.0, angle: float = 30.0, bend: float = 0.0, seed: int = 0, channels: int = 1
) -> Operator:
    """The blur of motion-blur, of the light: the picture holds the camera's response to it (sRGB)."""
    return NonlinearBlur(motion_path(size, length, angle, bend, seed), (channels, *size))


def jpeg(size: Size, quality: int = 10, subsampling: str = "4:2:0", channels: int = 1) -> Operator:
    """What a JPEG file of ``quality`` 1 to 100 holds, with chroma ``subsampling`` 4:2:0 or 4:4:4."""
    return JPEG((channels, *size), quality, subsampling)


def clipping(size: Size, gain: float = 2.0, pivot: float = 0.5, channels: int = 1) -> Operator:
    """High dynamic range: contrast times ``gain`` around ``pivot``, clipped to 0 and 1."""
    return Clipping((channels, *size), gain, pivot)


def phase_retrieval(size: Size, oversampling: float = 2.0, channels: int = 1) -> Operator:
    """Magnitudes of the Fourier transform of the image, padded to ``oversampling`` times its sides."""
    refuse_unless(
        1 <= oversampling <= MOST_OVERSAMPLING,
        "oversampling",
        oversampling,
        f"a number from 1 to {MOST_OVERSAMPLING:g}",
    )
    return PhaseRetrieval((channels, *size), oversampling)


def tomography(
    size: Size,
    views: int = 60,
    arc: float = 180.0,
    start: float = 0.0,
    angles: Sequence[float] | Tensor | None = None,
    beam: str = "parallel",
    detectors: int | None = None,
    pitch: float | None = None,
    axis: float | None = None,
    source: float | None = None,
    detector: float | None = None,
) -> Linear:
    """Projections of a square image at ``views`` evenly spaced angles, in degrees, over the ``arc`` from ``start``, or at ``angles``.

    ``beam``: parallel or fan; the rest is as `operators.CT` takes it, lengths in pixels.
    """
    if size[0] != size[1]:
        raise InputError(
            f"The image is {size[0]} x {size[1]}.", "Tomography is of square images.", "Crop it."
        )
    refuse_unless(beam in ("parallel", "fan"), "beam", beam, "parallel or fan")
    if angles is None:
        refuse_unless(1 <= views <= MOST_VIEWS, "views", views, f"a number of angles from 1 to {MOST_VIEWS}")
        angles = [start + arc * i / views for i in range(views)]
    else:
        angles = torch.as_tensor(angles, dtype=torch.float64).flatten()
        refuse_unless(
            1 <= len(angles) <= MOST_VIEWS, "angles", len(angles), f"from 1 to {MOST_VIEWS} numbers"
        )
    return CT(size[0], angles, beam, detectors, pitch=pitch, axis=axis, source=source, detector=detector)


def denoising(size: Size, channels: int = 1) -> Linear:
    """The image itself, with noise."""
    return Identity((channels, *size))


def fourier(
    size: Size,
    mask: str | Tensor = "gaussian",
    accel: float = 4.0,
    center: float | None = None,
    seed: int = 0,
    coils: int = 1,
) -> Linear:
    """k-space under a mask, (W,) or (H, W) or the name of one; several coils have simulated maps of unit length."""
    refuse_unless(1 <= coils <= MOST_COILS, "coils", coils, f"a number from 1 to {MOST_COILS}")
    mask = make_mask(mask, size, accel, center, seed) if isinstance(mask, str) else mask
    if coils == 1:
        return MRI(mask, shape=size)
    maps = simulate_coils(coils, size)
    return MRI(mask, maps / rss(maps))


def non_cartesian(
    size: Size,
    trajectory: str | Tensor = "radial",
    readouts: int = 64,
    samples: int | None = None,
    coils: int = 1,
) -> Linear:
    """k-space along a trajectory: an array (..., 2) in cycles per pixel, or "radial", "golden" or "spiral".

    A made one has ``readouts`` of ``samples`` each, by default twice the size, for a spiral 8 times; the
    readouts of a spiral make 8 turns. Several coils have simulated maps of unit length.
    """
    refuse_unless(1 <= coils <= MOST_COILS, "coils", coils, f"a number from 1 to {MOST_COILS}")
    if isinstance(trajectory, str):
        refuse_unless(1 <= readouts <= MOST_VIEWS, "readouts", readouts, f"a number from 1 to {MOST_VIEWS}")
        if trajectory not in TRAJECTORIES:
            raise unknown("trajectory", trajectory, TRAJECTORIES)
        kind, oversampling = TRAJECTORIES[trajectory]
        samples = oversampling * max(size) if samples is None else samples
        refuse_unless(1 <= samples <= MOST_SAMPLES, "samples", samples, f"a number from 1 to {MOST_SAMPLES}")
        trajectory = kind(readouts, samples)
    maps = simulate_coils(coils, size)
    trajectory = trajectory if trajectory.is_complex() else trajectory.float()
    return NonCartesianMRI(trajectory, maps / rss(maps) if coils > 1 else None, shape=size)


TRAJECTORIES: dict[str, tuple[Callable[[int, int], Tensor], int]] = {
    "radial": (radial_trajectory, 2),
    "golden": (lambda readouts, samples: radial_trajectory(readouts, samples, golden=True), 2),
    "spiral": (lambda readouts, samples: spiral_trajectory(readouts, samples, turns=8), 8),
}
"""How a trajectory is made of the number of readouts and the samples of each, and these over the matrix size."""


def refuse_unless(holds: bool, key: str, value: Any, wanted: str) -> None:
    """Raises `InputError` for an option of a value that it cannot have."""
    if not holds:
        raise InputError(f"{key} is {value}.", f"It is {wanted}.", f"Choose another {key}.")


@dataclass(frozen=True)
class Entry:
    """``kind(size, **options)`` makes the operator; ``complex_images``: of complex images only.

    One of real images acts on complex ones as `operators.Complexified`, unless it is ``real_only``, which those are that
    are not linear; pictures are then restored in colour, grey ones too.
    """

    kind: Callable[..., Operator]
    complex_images: bool = False
    real_only: bool = False

    @property
    def options(self) -> list[str]:
        """Names of the options that ``kind`` takes, beside those of the image."""
        return [name for name in parameters(self.kind)[0] if name not in OF_THE_IMAGE]

    @property
    def takes_colour(self) -> bool:
        """Whether it acts on images of several channels."""
        return "channels" in parameters(self.kind)[0]


OF_THE_IMAGE = ("size", "channels")
"""Parameters of an operator that follow from the image."""


OPERATORS: dict[str, Entry] = {
    "inpainting": Entry(inpainting),
    "super-resolution": Entry(super_resolution),
    "blur": Entry(blur),
    "motion-blur": Entry(motion_blur),
    "anisotropic-blur": Entry(anisotropic_blur),
    "colourisation": Entry(colourisation, real_only=True),
    "nonlinear-blur": Entry(nonlinear_blur, real_only=True),
    "jpeg": Entry(jpeg, real_only=True),
    "clipping": Entry(clipping, real_only=True),
    "phase-retrieval": Entry(phase_retrieval, real_only=True),
    "ct": Entry(tomography),
    "denoising": Entry(denoising),
    "mri": Entry(fourier, True),
    "noncartesian": Entry(non_cartesian, True),
}


def make_operator(
    name: str, options: Mapping[str, Any], size: Size, complex_images: bool, channels: int = 1
) -> Operator:
    """The operator ``name`` for images (channels, H, W), one of real images `complexified` where they are complex.

    One of the user's own is given ``domain`` where it takes one. Raises `ConfigError`.
    """
    if name not in OPERATORS and is_own(name):
        takes = parameters(kind)[0] if callable(kind := find_object(name)) else []
        given = dict(options)
        if "domain" in takes:
            given.setdefault("domain", (channels, *size))
        made = build_operator(name, given)
        if complex_images and isinstance(made, Linear) and not made.complex_codomain:
            return complexified(made)
        return made
    refuse_operator_options(name, options)
    entry = OPERATORS[name]
    if channels > 1 and not entry.takes_colour:
        able = [key for key, each in OPERATORS.items() if each.takes_colour]
        raise ConfigError(
            f"The operator {name} was asked for images of {channels} channels.",
            "It acts on images of one channel.",
            f"Convert the picture to grey, or choose one of {', '.join(able)}.",
        )
    if entry.real_only and complex_images:
        raise ConfigError(
            f"The operator {name} was asked for complex images.",
            "It acts on real ones.",
            "Take a prior of real images, such as --prior natural.",
        )
    shape = {"size": size} | ({"channels": channels} if entry.takes_colour else {})
    made = construct(entry.kind, {**shape, **options}, f"The operator {name}")
    return complexified(made) if complex_images and isinstance(made, Linear) else made


def takes_colour(name: str) -> bool:
    """Whether the operator ``name`` acts on images of several channels; one of the user's own has a domain of its own."""
    return name in OPERATORS and OPERATORS[name].takes_colour


def real_only(name: str) -> bool:
    """Whether the operator ``name`` acts on no complex images, for which the prior of colour pictures is taken."""
    return name in OPERATORS and OPERATORS[name].real_only


def refuse_operator_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for an unknown operator, and for options that it does not take, or not of their type.

    One of the user's own says what it takes when it is built.
    """
    if name in OPERATORS:
        refuse_unknown(options, OPERATORS[name].options, f"The operator {name}")
        refuse_types(OPERATORS[name].kind, options, f"The operator {name}")
    elif not is_own(name):
        raise unknown("operator", name, OPERATORS)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number that a seed or a size may be."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32


TYPES: dict[str, tuple[Callable[[Any], bool], str, str]] = {
    "float": (
        lambda v: isinstance(v, int | float) and not isinstance(v, bool) and -math.inf < v < math.inf,
        "a number",
        "0.5",
    ),
    "int": (is_whole, "a whole number, 0 or more", "4"),
    "str": (lambda v: isinstance(v, str), "a name", "NAME"),
    "Sequence[int]": (
        lambda v: isinstance(v, list | tuple) and all(map(is_whole, v)),
        "a list of whole numbers",
        "[32, 32]",
    ),
    "Sequence[float]": (
        lambda v: isinstance(v, list | tuple) and all(map(TYPES["float"][0], v)),
        "a list of numbers",
        "[0.0, 7.5]",
    ),
    "Tensor": (
        lambda v: isinstance(v, Tensor) and v.numel() > 0 and bool(torch.isfinite(v).all()),
        "an array of finite numbers, named by the path of a .npy file or a picture",
        "file.npy",
    ),
}
"""What the types in the signatures of the operators allow, the same in words, and an example."""


def refuse_types(kind: Callable[..., Any], options: Mapping[str, Any], what: str) -> None:
    """Raises `ConfigError` for an option that is not of the type in the signature of ``kind``."""
    signature = inspect.signature(kind).parameters
    for key, value in options.items():
        allowed = [word for word in str(signature[key].annotation).split(" | ") if word in TYPES]
        if value is None and "None" in str(signature[key].annotation):
            continue
        if not any(TYPES[word][0](value) for word in allowed):
            shown = (
                f"an array of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)[:60]
            )
            raise ConfigError(
                f"{what} was given {shown} as {key}.",
                f"{key} is {' or '.join(TYPES[word][1] for word in allowed)}.",
                f"Write {' or '.join(f'{key}={TYPES[word][2]}' for word in allowed)}.",
            )


def build_operator(name: str, options: Mapping[str, Any]) -> Operator:
    """The operator ``module:Class`` from its options, or from its ``example()`` where none are given.

    An object that is an operator already, or a function that returns one, will do as well. Raises
    `ConfigError` where it cannot be made.
    """
    kind = find_object(name)
    if isinstance(kind, Operator):
        return kind
    if not callable(kind):
        raise ConfigError(
            f"{name} is a {type(kind).__name__}.", "An operator is a class of operators.Linear."
        )
    example = getattr(kind, "example", None)
    if callable(example) and not options:
        made = example()
    else:
        _, required, _ = parameters(kind)
        missing = [key for key in required if key not in options]
        if missing:
            raise ConfigError(
                f"{name} needs {', '.join(missing)} to be made.",
                "It has no example(), and these have no default.",
                f"Give --args {' '.join(f'{key}={key}.npy' for key in missing)} (tensors as .npy, numbers as "
                "they are), or add a classmethod example(cls) that returns a small instance.",
            )
        made = construct(kind, options, name)
    if not isinstance(made, Operator):
        raise ConfigError(
            f"{name} made a {type(made).__name__}, which is not an operator.",
            "An operator is a subclass of operators.Linear or operators.Operator.",
            "Write class Name(operators.Linear) with a domain and forward(self, x).",
        )
    if not isinstance(getattr(made, "domain", None), tuple):
        raise ConfigError(
            f"{name} has no domain.",
            "It is the shape of one image without the batch axis, as a tuple.",
            "Add a field: domain: tuple = (1, 256, 256).",
        )
    return made
