"""Denoisers of deepinv, as objects and from disk; deepinv is imported only when one is made.

They work on our scale, from 0 to 1. Its NCSNpp and ADMUNet have the layout of `edm`, its DiffUNet that of `adm`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...errors import ConfigError
from ...priors import Prior, discrete_label, from_eps, rescaled
from .building import AS_THEY_ARE, Choices, finished, load_into, mismatch

TRAINED = {
    "DRUNet": (0.002, 0.2),
    "GSDRUNet": (0.002, 0.2),
    "NCSNpp": (0.001, 40.0),
    "ADMUNet": (0.001, 40.0),
}
"""Noise levels that published weights of a class were trained for, on images from 0 to 1."""


def from_denoiser(
    model: Any, sigma_min: float | None = None, sigma_max: float | None = None, **call: Any
) -> Prior:
    """The prior of a ``deepinv.models.Denoiser``: ``D = model(x, sigma, **call)``, on images from 0 to 1.

    ``call``: keywords for each call, such as ``class_labels``. Noise levels are those that the class's published
    weights were trained for, where they are not given; beyond them it does what it does. DiffUNet is called
    through its noise prediction, since its denoiser clips and rounds levels, with any number of channels.
    Complex images: `recon.priors.as_complex` of the result, for a denoiser of two channels. Raises `ConfigError` for
    what is not a denoiser, and for one that takes no noise level.
    """
    from deepinv import models

    if not isinstance(model, models.Denoiser):
        raise ConfigError(
            f"from_denoiser was given a {type(model).__name__}.",
            "It takes a deepinv.models.Denoiser, called as D(x, sigma).",
            "Any other callable D(x, sigma) is a prior as it is; recon.priors.from_eps and others take networks.",
        )
    kind = type(model).__name__
    if isinstance(model, models.DnCNN):
        raise blind(kind)
    model.eval().requires_grad_(False)
    low, high = TRAINED.get(kind, (None, None))
    known = {"sigma_min": sigma_min or low, "sigma_max": sigma_max or high, "module": model}
    if isinstance(model, models.DiffUNet):
        inner = next(model.parameters())
        table = (model.sqrt_alphas_cumprod.double() ** 2).tolist()
        ends = [((1 - a) / a) ** 0.5 for a in (table[0], table[-1])]
        plain = from_eps(
            lambda x, t: model(x.to(inner.dtype), t[:1].to(inner.dtype), type_t="timestep").to(x.dtype),
            discrete_label(table),
            sigma_min=2 * sigma_min if sigma_min else ends[0],
            sigma_max=2 * sigma_max if sigma_max else ends[1],
        )
        prior = rescaled(plain, -1.0, 1.0)
        prior.module = model
        return prior

    def denoise(x: Tensor, sigma: float) -> Tensor:
        weight = next(model.parameters(), x)
        return model(x.to(weight.dtype), sigma, **call).to(x.dtype)

    return Prior(denoise, **known)


def blind(kind: str) -> ConfigError:
    """The error for a denoiser that takes no noise level."""
    return ConfigError(
        f"{kind} takes no noise level.",
        "It is trained for one, and a prior is asked at all of them.",
        "Take DRUNet, or a diffusion network: NCSNpp, DiffUNet.",
    )


def make(tensors: Mapping[str, Tensor], options: Choices) -> Prior:
    """The prior of a DRUNet's tensors: ``D(x, sigma)``, any size."""
    from deepinv.models import DRUNet

    weights = {name: value.shape for name, value in tensors.items() if value.ndim == 4}
    if any(value.ndim != 4 for value in tensors.values()):
        raise mismatch(options.path, options.said, "it has tensors that are not convolutions of images")
    channels = weights["m_head.weight"][1] - 1
    widths = [weights[f"m_down{level}.0.res.0.weight"][0] for level in (1, 2, 3)] + [
        weights["m_body.res.0.weight"][0]
        if "m_body.res.0.weight" in weights
        else weights["m_body.0.res.0.weight"][0]
    ]
    blocks = len([name for name in weights if re.fullmatch(r"m_down1\.\d+\.res\.0\.weight", name)])
    strided, transposed = f"m_down1.{blocks}.weight" in weights, f"m_up1.{0}.weight" in weights
    shape = {
        "in_channels": channels,
        "out_channels": weights["m_tail.weight"][0],
        "nc": tuple(widths),
        "nb": blocks,
        "act_mode": options.choose("act_mode", "R", ("R", "L", "E", "s"), True),
        "downsample_mode": options.choose(
            "downsample_mode",
            "strideconv" if strided else "avgpool",
            ("strideconv", "avgpool", "maxpool"),
            strided,
        ),
        "upsample_mode": "upconv"
        if not transposed
        else "convtranspose"
        if weights["m_up1.0.weight"][2] == 2
        else "pixelshuffle",
    }
    network = load_into(lambda: DRUNet(pretrained=None, **shape), tensors, options)
    prior = from_denoiser(
        network, options.number("sigma_min", 0.002, True), options.number("sigma_max", 0.2, True)
    )
    made = finished(prior, network, options, channels, None, AS_THEY_ARE)
    made.card["network"] |= {key: value for key, value in shape.items() if key != "nc"} | {"widths": widths}
    options.refuse_rest()
    return made
