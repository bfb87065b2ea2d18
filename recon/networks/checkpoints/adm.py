"""Guided-diffusion (ADM): ImageNet, LSUN, FFHQ and all that is trained with its code, or improved-diffusion's.

What tensors do not say: how attention parts its heads, the noise schedule, what is predicted. It is taken from the
published configurations, by the network's size, or from options of the project's own names, so that the
configuration of DPS or of guided-diffusion will do as it is, written as JSON.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import accumulate
from operator import mul
from typing import Any

import torch
from torch import Tensor

from ...priors import Prior, discrete_label, from_eps, from_v, from_x0
from .adm_unet import AdmShape, AdmUNet
from .building import AS_THEY_ARE, PHOTOGRAPHS, Choices, at_door, finished, load_into, mismatch

PREDICTS = {"epsilon": from_eps, "v_prediction": from_v, "sample": from_x0}
TABLES = ("sqrt_1m_alphas_cumprod", "sqrt_alphas_cumprod")  # of deepinv's DiffUNet, which computes them anew
IGNORED = (
    "image_size",
    "attention_resolutions",
    "channel_mult",
    "learn_sigma",
    "class_cond",
    "dropout",
    "use_checkpoint",
    "use_fp16",
    "num_heads_upsample",
    "timestep_respacing",
    "use_kl",
    "rescale_learned_sigmas",
    "model_path",
    "in_channels",
    "out_channels",
    "resamp_with_conv",
    "var_type",
    "type",
)
"""Names of the project's configurations that the tensors say, or that concern its training or its sampler."""

PUBLISHED: dict[tuple[int, int, int], dict[str, Any]] = {
    (192, 4, 3): {"noise_schedule": "cosine", "use_new_attention_order": True},  # ImageNet 64 x 64
    (256, 5, 2): {"num_heads": 4},  # ImageNet 128 x 128
}
"""(base channels, levels, blocks) -> where a published network differs from the others: 64 channels a head, linear."""


def make(tensors: Mapping[str, Tensor], options: Choices) -> Prior:
    """The prior of an ADM network's tensors."""
    tensors = {name: value for name, value in tensors.items() if name not in TABLES}
    shape = read_shape(tensors, options)
    network = load_into(lambda: AdmUNet(shape), tensors, options)
    label = options.label(shape.classes)
    usual = PUBLISHED.get((shape.base, len(shape.widths), shape.blocks), {})
    schedule = options.choose("noise_schedule", usual.get("noise_schedule", "linear"), SCHEDULES)
    steps = options.count("diffusion_steps", 1000, True)
    is_image = options.flag("predict_xstart", False, True)
    kind = options.choose("prediction_type", "sample" if is_image else "epsilon", PREDICTS, True)
    pace = 1000 / steps if options.flag("rescale_timesteps", False, True) else 1.0
    table = SCHEDULES[schedule](steps)
    place = discrete_label(table)
    rest = [] if label is None else [torch.tensor([label])]
    run = at_door(network, shape.channels, 2 ** (len(shape.widths) - 1), *rest)
    low, high = (math.sqrt((1 - a) / a) for a in (table[0], table[-1]))
    denoise = PREDICTS[kind](run, lambda sigma: pace * place(sigma), sigma_min=low, sigma_max=high)
    values = AS_THEY_ARE if shape.channels == 2 else PHOTOGRAPHS
    prior = finished(denoise, network, options, shape.channels, shape, values)
    options.refuse_rest(IGNORED)
    return prior


def read_shape(tensors: Mapping[str, Tensor], options: Choices) -> AdmShape:
    """What the names and shapes of the tensors say; raises `ConfigError` for networks that are no prior."""
    if (
        "out.2.weight" not in tensors
        or tensors["out.2.weight"].ndim != 4
        or not any(n.startswith("output_blocks.") for n in tensors)
    ):
        raise mismatch(options.path, "a classifier of guided-diffusion", "it has no way up to an image")
    stem, out = tensors["input_blocks.0.0.weight"].shape, tensors["out.2.weight"].shape
    channels = stem[1]
    if channels == 6 and out[0] in (3, 6):
        raise mismatch(
            options.path, "an upsampler of guided-diffusion", "it needs a smaller image besides the noisy one"
        )
    if out[0] not in (channels, 2 * channels):
        raise mismatch(options.path, options.said, f"it takes {channels} channels and gives {out[0]}")
    base = tensors["time_embed.0.weight"].shape[1]
    count = 1 + max(int(m[1]) for m in map(re.compile(r"output_blocks\.(\d+)\.").match, tensors) if m)
    ups = {
        m[1]
        for m in map(re.compile(r"output_blocks\.(\d+)\.[12]\.(?:in_layers\.0|conv)\.weight").match, tensors)
        if m
    }
    inputs = {int(m[1]) for m in map(re.compile(r"input_blocks\.(\d+)\.").match, tensors) if m}
    levels = 1 + (len(ups) or len(set(range(count)) - inputs))
    if count > len(tensors) or count % levels:
        raise mismatch(options.path, options.said, f"it has {count} blocks on the way up of {levels} levels")
    blocks = count // levels - 1
    firsts = [1 + level * (blocks + 1) for level in range(levels)]
    widths = tuple(tensors[f"input_blocks.{i}.0.in_layers.2.weight"].shape[0] for i in firsts)
    attention = tuple(f"input_blocks.{i}.1.qkv.weight" in tensors for i in firsts)
    down = f"input_blocks.{firsts[0] + blocks}.0."
    resampling = (
        "blocks"
        if f"{down}in_layers.0.weight" in tensors
        else "conv"
        if f"{down}op.weight" in tensors
        else "none"
    )
    film = tensors["input_blocks.1.0.emb_layers.1.weight"].shape[0] == 2 * widths[0]
    usual = PUBLISHED.get((base, levels, blocks), {})
    attended = [w for w, attends in zip(widths, attention, strict=True) if attends] + [widths[-1]]
    head_channels = options.ask(
        "num_head_channels", 64, lambda v: type(v) is int, "a whole number, -1 for num_heads", True
    )
    heads = options.count("num_heads", usual.get("num_heads"), True) or 0
    named = [name for name in ("num_head_channels", "num_heads") if name in options.given]
    if named == ["num_heads"] or head_channels < 1 or ("num_heads" in usual and not named):
        head_channels = 0  # the project's rule: a width of heads goes before their number
    else:
        heads = 0
    if (not head_channels and not heads) or any(w % (heads or head_channels) for w in attended):
        raise mismatch(
            options.path,
            options.said,
            f"its attention has {', '.join(map(str, sorted(set(attended))))} channels, which are not heads of "
            f"{head_channels or 64}: say num_heads or num_head_channels ({options.how})",
        )
    if not named:
        options.assumed |= {"num_heads": heads} if heads else {"num_head_channels": head_channels}
    for name, value in {
        "num_channels": base,
        "num_res_blocks": blocks,
        "resblock_updown": resampling == "blocks",
        "use_scale_shift_norm": film,
    }.items():
        options.found(name, value)
    return AdmShape(
        channels=channels,
        outputs=out[0],
        base=base,
        widths=widths,
        attention=attention,
        blocks=blocks,
        resampling=resampling,
        film=film,
        heads=heads,
        head_channels=head_channels or 64,
        split_first=options.flag("use_new_attention_order", usual.get("use_new_attention_order", False)),
        classes=len(tensors["label_emb.weight"]) if "label_emb.weight" in tensors else 0,
    )


def linear(steps: int) -> list[float]:
    """``abar`` of beta from .1/N to 20/N, N steps."""
    betas = (0.1 / steps + i / (steps - 1) * 19.9 / steps for i in range(steps))
    return list(accumulate((1 - beta for beta in betas), mul))


def cosine(steps: int) -> list[float]:
    """``abar`` falling as ``cos^2((t + .008) / 1.008 pi / 2)``, beta at most .999."""

    def level(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = (min(1 - level((i + 1) / steps) / level(i / steps), 0.999) for i in range(steps))
    return list(accumulate((1 - beta for beta in betas), mul))


SCHEDULES = {"linear": linear, "cosine": cosine}
