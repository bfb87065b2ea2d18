"""Score_sde: NCSN++, DDPM++ and DDPM, of photographs and, in score-MRI and its followers, of MR images.

Which layers there are and in which order is read from the names; the process is VE where noise levels go through
random frequencies, with the levels of the file's table ``sigmas``, and VP where times do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from ...priors import Prior, from_eps, prediction, row_label, vp_scale
from ...processes import VP, SubVP
from .building import AS_THEY_ARE, PHOTOGRAPHS, Choices, at_door, finished, load_into, mismatch
from .ncsnpp import NcsnPP, NcsnShape


def make(tensors: Mapping[str, Tensor], options: Choices) -> Prior:
    """The prior of a score_sde network's tensors."""
    levels = tensors.get("sigmas")
    tensors = {name: value for name, value in tensors.items() if name != "sigmas"}
    shape = read_shape(tensors, options)
    network = load_into(lambda: NcsnPP(shape), tensors, options)
    run = at_door(network, shape.channels, 2 ** (len(shape.widths) - 1))
    kind = options.choose("sde", "ve" if shape.fourier else "vp", ("ve", "vp", "subvp"))
    by_sigma = options.flag("scale_by_sigma", kind == "ve", True)
    if kind == "ve" and shape.fourier:
        usual = (0.01, 378.0) if levels is None else (float(levels.min()), float(levels.max()))

        def denoise(x: Tensor, sigma: float) -> Tensor:
            score = prediction(run(x, row_label(sigma, x)), x)
            return x + (sigma if by_sigma else sigma**2) * score

        plain = Prior(
            denoise,
            sigma_min=options.number("sigma_min", usual[0], True),
            sigma_max=options.number("sigma_max", usual[1], True),
        )
    elif kind == "ve" or shape.fourier or by_sigma:
        raise mismatch(
            options.path,
            options.said,
            f"sde {kind}, scale_by_sigma {by_sigma} and its embedding do not go together",
        )
    else:
        bounds = (options.number("beta_min", 0.1, True), options.number("beta_max", 20.0, True))
        process = VP(*bounds) if kind == "vp" else SubVP(*bounds)
        scale = vp_scale if kind == "vp" else lambda sigma: process.scale(process.time(sigma))
        low, high = process.sigma(1e-5 if kind == "vp" else 1e-3), process.sigma(1.0)
        plain = from_eps(run, lambda s: 999 * process.time(s), scale, sigma_min=low, sigma_max=high)
    values = AS_THEY_ARE if shape.doubled or shape.channels == 2 else PHOTOGRAPHS
    prior = finished(plain, network, options, shape.channels, shape, values)
    options.refuse_rest()
    return prior


def read_shape(tensors: Mapping[str, Tensor], options: Choices) -> NcsnShape:
    """What names and shapes say, walking the layers in their order; the rest are options, or as published."""
    layers = Layers(tensors, options)
    fourier = layers.takes("projection")
    conditional = layers.takes("dense") and layers.takes("dense")
    stem = layers.take("conv")
    base, channels = tensors[f"{stem}.weight"].shape[:2]
    kinds = list(layers.kinds.values())
    blocks_all = [name for name, kind in layers.kinds.items() if kind == "block"]
    biggan = not any(f"{name}.NIN_0.W" in tensors for name in blocks_all) and any(
        f"{name}.Conv_2.weight" in tensors for name in blocks_all
    )
    resampling = (
        sum(layers.resamples(name) for name in blocks_all)
        if biggan
        else kinds.count("resample") + kinds.count("none")
    )
    levels = resampling // 2 + 1
    plain = len(blocks_all) - (resampling if biggan else 0)
    blocks, rest = divmod(plain - 2 - levels, 2 * levels)
    if resampling % 2 or rest or blocks < 1:
        raise mismatch(options.path, options.said, f"it has {plain} residual blocks of {levels} levels")
    widths, attends, before = [], [], "none"
    for level in range(levels):
        for _ in range(blocks):
            name = layers.take("block")
            attended = layers.takes("attention")
        widths.append(tensors[f"{name}.Conv_0.weight"].shape[0])
        attends.append(attended)
        if level < levels - 1:
            layers.take("block" if biggan else layers.kind)
            if layers.takes("combine"):
                before = "input_skip"
            elif layers.takes("resample"):
                before = "residual"
    for kind in ("block", "attention", "block"):
        layers.take(kind)
    up, after = [], "none"
    for level in reversed(range(levels)):
        for _ in range(blocks + 1):
            layers.take("block")
        up.insert(0, layers.takes("attention"))
        if after == "residual":
            layers.take("resample")
        elif layers.kind == "norm" and (level or after == "output_skip"):
            layers.take("norm")
            out = tensors[f"{layers.take('conv')}.weight"].shape[0]
            after = "output_skip" if out == channels else "residual"
        if level:
            layers.take("block" if biggan else layers.kind)
    fir = any(name.endswith(".Conv2d_0.weight") for name in tensors) or (fourier and before != "residual")
    kind = options.given.get("sde", "ve" if fourier else "vp")
    return NcsnShape(
        channels=channels,
        base=base,
        widths=tuple(widths),
        blocks=blocks,
        attends=tuple(attends),
        attends_up=tuple(up),
        biggan=biggan,
        convolved="resample" in kinds,
        before=before,
        after=after,
        fourier=fourier,
        conditional=conditional,
        fir=options.flag("fir", fir, before == "residual"),
        rescale=options.flag("skip_rescale", biggan),
        doubled=not options.flag("centered", kind != "ve"),
    )


class Layers:
    """The layers ``all_modules.0``, ``all_modules.1``, ... and what each is, to be taken one after the other."""

    def __init__(self, tensors: Mapping[str, Tensor], options: Choices):
        self.tensors, self.options = tensors, options
        parts: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if found := re.fullmatch(r"all_modules\.(\d+)\.(.+)", name):
                parts.setdefault(int(found[1]), {})[found[2]] = value
        count = min(max(parts) + 1, 2 * len(tensors))
        self.kinds = {f"all_modules.{i}": layer_kind(parts.get(i, {})) for i in range(count)}
        self.order = iter(self.kinds.items())
        self.name, self.kind = next(self.order)

    def take(self, kind: str) -> str:
        """The name of the next layer, which has to be of a kind; raises `ConfigError`."""
        if self.kind != kind:
            raise mismatch(
                self.options.path, self.options.said, f"{self.name} is a {self.kind} where a {kind} should be"
            )
        name = self.name
        self.name, self.kind = next(self.order, ("its end", "end"))
        return name

    def takes(self, kind: str) -> bool:
        """Whether the next layer is of a kind; if so it is taken."""
        return self.kind == kind and bool(self.take(kind))

    def resamples(self, name: str) -> bool:
        """Whether a block of BigGAN changes the size: it has a shortcut though its widths are equal."""
        weight = self.tensors[f"{name}.Conv_0.weight"]
        return f"{name}.Conv_2.weight" in self.tensors and weight.shape[0] == weight.shape[1]


def layer_kind(parts: Mapping[str, Tensor]) -> str:
    """What a layer is, from the names and shapes of its tensors."""
    if not parts:
        return "none"  # a change of size without weights
    for mark, kind in (
        ("W", "projection"),
        ("NIN_3.W", "attention"),
        ("GroupNorm_1.weight", "block"),
        ("Conv.weight", "combine"),
        ("Conv2d_0.weight", "resample"),
        ("Conv_0.weight", "resample"),
    ):
        if mark in parts:
            return kind
    return {1: "norm", 2: "dense", 4: "conv"}.get(parts["weight"].ndim if "weight" in parts else 0, "layer")
