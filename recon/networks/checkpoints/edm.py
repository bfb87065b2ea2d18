"""EDM: DDPM++, NCSN++ and ADM networks of Karras et al., and deepinv's NCSNpp and ADMUNet, which have their layout.

What tensors do not say is the preconditioning: EDM's, or that of the baselines (VP, VE). Published files are
pickles with code: their weights are exported once, in a checkout of that project.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ...priors import Prior, from_eps, prediction, row_label
from ...processes import VP
from .building import AS_THEY_ARE, PHOTOGRAPHS, Choices, at_door, finished, load_into, mismatch, one_hot
from .song_unet import SongShape, SongUNet

NetworkCall = Callable[[Tensor, Tensor], Any]


def make(tensors: Mapping[str, Tensor], options: Choices) -> Prior:
    """The prior of an EDM network's tensors."""
    table = tensors.get("u")
    tensors = {name.removeprefix("model."): value for name, value in tensors.items() if name != "u"}
    shape = read_shape(tensors, options)
    network = load_into(lambda: SongUNet(shape), tensors, options)
    classes = one_hot(options.label(shape.classes), shape.classes)
    run = at_door(network, shape.channels, 2 ** (len(shape.widths) - 1), *classes)
    precond = options.choose(
        "precond", "edm" if table is None else "iddpm", PRECONDITIONING, table is not None
    )
    denoise = PRECONDITIONING[precond](run, options, table)
    values = AS_THEY_ARE if shape.channels == 2 else PHOTOGRAPHS
    prior = finished(denoise, network, options, shape.channels, shape, values)
    options.refuse_rest()
    return prior


def edm(run: NetworkCall, options: Choices, table: Tensor | None) -> Prior:
    """``D = c_skip x + c_out F(c_in x; ln(s) / 4)``, d = ``sigma_data``, .5 in the network's scale."""
    d = float(options.number("sigma_data", 0.5, True))

    def denoise(x: Tensor, sigma: float) -> Tensor:
        total = sigma**2 + d**2
        f = prediction(run(x / math.sqrt(total), row_label(math.log(sigma) / 4, x)), x)
        return d**2 / total * x + sigma * d / math.sqrt(total) * f

    return Prior(denoise, sigma_min=0.002, sigma_max=80.0)


def vp(run: NetworkCall, options: Choices, table: Tensor | None) -> Prior:
    """``D = x - s F(x / sqrt(s^2 + 1); 999 t)``, t the time of a linear beta from .1 to 20."""
    process = VP()
    low, high = process.sigma(1e-5), process.sigma(1.0)
    return from_eps(run, lambda sigma: 999 * process.time(sigma), sigma_min=low, sigma_max=high)


def ve(run: NetworkCall, options: Choices, table: Tensor | None) -> Prior:
    """``D = x + s F(x; ln(s / 2))``."""
    return Prior(
        lambda x, s: x + s * prediction(run(x, row_label(math.log(s / 2), x)), x),
        sigma_min=0.02,
        sigma_max=100.0,
    )


def iddpm(run: NetworkCall, options: Choices, table: Tensor | None) -> Prior:
    """``D = x - s F(x / sqrt(s^2 + 1); 999 - j)``, j the nearest of the levels ``u`` in the file."""
    if table is None:
        raise mismatch(
            options.path, options.said, "it has no table of levels named u, which precond iddpm needs"
        )
    levels = [float(value) for value in table]

    def place(sigma: float) -> float:
        nearest = min(range(len(levels)), key=lambda j: abs(levels[j] - sigma))
        return len(levels) - 2 - nearest

    return from_eps(run, place, sigma_min=levels[-2], sigma_max=levels[0])


PRECONDITIONING = {"edm": edm, "vp": vp, "ve": ve, "iddpm": iddpm}


def read_shape(tensors: Mapping[str, Tensor], options: Choices) -> SongShape:
    """What the names and shapes of the tensors say."""
    stems = [m for m in map(re.compile(r"enc\.(\d+)x\1_conv\.weight").fullmatch, tensors) if m]
    if len(stems) != 1:
        raise mismatch(options.path, options.said, "it has no first convolution of the encoder")
    size, stem = int(stems[0][1]), tensors[stems[0][0]]
    places = [m for m in map(re.compile(r"enc\.(\d+)x\1_block(\d+)\.conv0\.weight").fullmatch, tensors) if m]
    sides = sorted({int(m[1]) for m in places}, reverse=True)
    if not sides or sides != [size >> level for level in range(len(sides))]:
        raise mismatch(options.path, options.said, f"its encoder has levels {sides} below {size}")
    dhariwal = "out_conv.weight" in tensors
    last = "out_conv.weight" if dhariwal else f"dec.{size}x{size}_aux_conv.weight"
    outputs = tensors[last].shape[0]
    if outputs not in (stem.shape[1], 2 * stem.shape[1]):
        raise mismatch(options.path, options.said, f"it takes {stem.shape[1]} channels and gives {outputs}")
    filters = [value.shape[-1] for name, value in tensors.items() if name.endswith("resample_filter")]
    layer = tensors["map_layer0.weight"].shape
    return SongShape(
        size=size,
        channels=stem.shape[1],
        outputs=outputs,
        stem=stem.shape[0],
        base=layer[1],
        embedding=layer[0],
        widths=tuple(tensors[f"enc.{side}x{side}_block0.conv0.weight"].shape[0] for side in sides),
        blocks=1 + max(int(m[2]) for m in places if int(m[1]) == size),
        attention=frozenset(
            name.removesuffix(".qkv.weight") for name in tensors if name.endswith(".qkv.weight")
        ),
        dhariwal=dhariwal,
        fourier="map_noise.freqs" in tensors,
        encoder="residual"
        if any("aux_residual" in n for n in tensors)
        else "skip"
        if any("aux_skip" in n for n in tensors)
        else "standard",
        decoder="skip" if any("aux_up" in name for name in tensors) else "standard",
        filter=filters[0] if filters else 2,
        classes=tensors["map_label.weight"].shape[1] if "map_label.weight" in tensors else 0,
        augments=tensors["map_augment.weight"].shape[1] if "map_augment.weight" in tensors else 0,
    )
