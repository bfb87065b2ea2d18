"""Operators by name, for images of a given size: those that ship, and a user's own ``module:Class``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from operators import CT, Blur, Identity, Inpainting, Linear, Operator, SuperResolution, complexified
from operators.coils import rss, simulate_coils
from operators.fourier import gaussian_kernel
from operators.masks import make_mask
from operators.mri import MRI

from ..errors import ConfigError, InputError, unknown
from .configuration import construct, parameters, refuse_unknown
from .plugins import find_object

Size = tuple[int, int]


def inpainting(
    size: Size,
    keep: float = 0.5,
    seed: int = 0,
    mask: Tensor | None = None,
    box: Sequence[int] | None = None,
) -> Linear:
    """Pixels that are known: a random share ``keep``, or all but a central ``box`` (h, w), or those of a mask."""
    if box is not None:
        if len(box) != 2 or not all(0 < b < n for b, n in zip(box, size, strict=True)):
            raise InputError(f"The box is {box}, the image {size}.", "It is a height and a width inside it.")
        (top, left), mask = ((n - b) // 2 for b, n in zip(box, size, strict=True)), torch.ones(size)
        mask[top : top + box[0], left : left + box[1]] = 0
    elif mask is None:
        mask = torch.rand(size, generator=torch.Generator().manual_seed(seed)) < keep
    return Inpainting(mask)


def super_resolution(
    size: Size, factor: int = 4, filter: str = "bicubic", padding: str = "circular"
) -> Linear:
    """A smaller image: blur against aliasing, then every factor-th pixel."""
    return SuperResolution((1, *size), factor, filter, padding)


def blur(size: Size, width: float = 2.0, kernel: Tensor | None = None) -> Linear:
    """Circular convolution with a Gaussian of standard deviation ``width``, or with a kernel."""
    return Blur(gaussian_kernel(width) if kernel is None else kernel.float(), (1, *size))


def tomography(size: Size, views: int = 60, arc: float = 180.0) -> Linear:
    """Parallel-beam projections of a square image at ``views`` angles over ``arc`` degrees."""
    if size[0] != size[1]:
        raise InputError(
            f"The image is {size[0]} x {size[1]}.", "Tomography is of square images.", "Crop it."
        )
    return CT(size[0], [arc * i / views for i in range(views)])


def denoising(size: Size) -> Linear:
    """The image itself, with noise."""
    return Identity((1, *size))


def fourier(
    size: Size,
    mask: Any = "gaussian",
    accel: float = 4.0,
    center: float | None = None,
    seed: int = 0,
    coils: int = 1,
) -> Linear:
    """k-space under a mask that is named or given; of several coils with simulated maps of unit length."""
    mask = make_mask(mask, size, accel, center, seed) if isinstance(mask, str) else mask
    if coils == 1:
        return MRI(mask, shape=size)
    maps = simulate_coils(coils, size)
    return MRI(mask, maps / rss(maps))


@dataclass(frozen=True)
class Entry:
    """``kind(size, **options)`` makes the operator; ``complex_images``: of complex images only.

    One of real images acts on complex ones as `operators.Complexified`.
    """

    kind: Callable[..., Linear]
    complex_images: bool = False

    @property
    def options(self) -> list[str]:
        return [name for name in parameters(self.kind)[0] if name != "size"]


OPERATORS: dict[str, Entry] = {
    "inpainting": Entry(inpainting),
    "super-resolution": Entry(super_resolution),
    "blur": Entry(blur),
    "ct": Entry(tomography),
    "denoising": Entry(denoising),
    "mri": Entry(fourier, True),
}


def make_operator(name: str, options: Mapping[str, Any], size: Size, complex_images: bool) -> Operator:
    """The operator of that name for images (1, H, W), real ones `complexified` where the images are complex.

    ``module:Class`` is given ``domain`` where it takes one.
    """
    if ":" in name:
        takes = parameters(kind)[0] if callable(kind := find_object(name)) else []
        given = dict(options)
        if "domain" in takes:
            given.setdefault("domain", (1, *size))
        made = build_operator(name, given)
        if complex_images and isinstance(made, Linear) and not made.complex_codomain:
            return complexified(made)
        return made
    made = construct(
        refuse_operator_options(name, options).kind, {"size": size, **options}, f"The operator {name}"
    )
    return complexified(made) if complex_images else made


def refuse_operator_options(name: str, options: Mapping[str, Any]) -> Entry:
    """The entry of ``name``; raises `ConfigError` where there is none, and for options that it does not take."""
    if name not in OPERATORS:
        raise unknown("operator", name, OPERATORS)
    refuse_unknown(options, OPERATORS[name].options, f"The operator {name}")
    return OPERATORS[name]


def build_operator(name: str, options: Mapping[str, Any]) -> Operator:
    """The operator ``module:Class`` from its options, or from its ``example()`` where none are given.

    An object that is an operator already, and a function that returns one, will do as well. Raises
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
            f"{name} made a {type(made).__name__}, which is no operator.",
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
