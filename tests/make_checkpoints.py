"""Small checkpoints in the layouts of other projects, with random weights, and what their networks compute."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Tensors = dict[str, Tensor]


def random_like(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> Tensors:
    """Weights of moderate size: what goes through a layer keeps its scale."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes.items():
        fan = math.prod(shape[1:]) if len(shape) > 1 else 16
        made[name] = torch.randn(shape, generator=generator) * fan**-0.5
        if len(shape) == 1 and name.endswith("weight"):
            made[name] += 1
    return made


# --- guided-diffusion --------------------------------------------------------------------------------------


def adm_shapes(
    channels: int = 3,
    outputs: int = 6,
    widths: tuple[int, int] = (32, 64),
    film: bool = True,
    resampling: str = "blocks",
    classes: int = 0,
) -> dict[str, tuple[int, ...]]:
    """Two levels of one block each, attention on the lower: names and shapes as that project's code gives them."""
    low, high = widths
    embedding = 4 * low
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    def block(name: str, inlet: int, outlet: int):
        layer(f"{name}.in_layers.0", inlet)
        layer(f"{name}.in_layers.2", outlet, inlet, 3, 3)
        layer(f"{name}.emb_layers.1", outlet * (2 if film else 1), embedding)
        layer(f"{name}.out_layers.0", outlet)
        layer(f"{name}.out_layers.3", outlet, outlet, 3, 3)
        if inlet != outlet:
            layer(f"{name}.skip_connection", outlet, inlet, 1, 1)

    def attention(name: str, width: int):
        layer(f"{name}.norm", width)
        layer(f"{name}.qkv", 3 * width, width, 1)
        layer(f"{name}.proj_out", width, width, 1)

    layer("time_embed.0", embedding, low)
    layer("time_embed.2", embedding, embedding)
    if classes:
        shapes["label_emb.weight"] = (classes, embedding)
    layer("input_blocks.0.0", low, channels, 3, 3)
    block("input_blocks.1.0", low, low)
    if resampling == "blocks":
        block("input_blocks.2.0", low, low)
    elif resampling == "conv":
        layer("input_blocks.2.0.op", low, low, 3, 3)
    block("input_blocks.3.0", low, high)
    attention("input_blocks.3.1", high)
    block("middle_block.0", high, high)
    attention("middle_block.1", high)
    block("middle_block.2", high, high)
    block("output_blocks.0.0", 2 * high, high)
    attention("output_blocks.0.1", high)
    block("output_blocks.1.0", high + low, high)
    attention("output_blocks.1.1", high)
    if resampling == "blocks":
        block("output_blocks.1.2", high, high)
    elif resampling == "conv":
        layer("output_blocks.1.2.conv", high, high, 3, 3)
    block("output_blocks.2.0", high + low, low)
    block("output_blocks.3.0", 2 * low, low)
    layer("out.0", low)
    layer("out.2", outputs, low, 3, 3)
    return shapes


def adm(w: Tensors, z: Tensor, step: float, heads: int, split_first: bool = False, label: int = -1) -> Tensor:
    """What guided-diffusion's network with the weights `adm_shapes` gives for the state z at a step."""

    def norm(x: Tensor, name: str) -> Tensor:
        return F.group_norm(x, 32, w[f"{name}.weight"], w[f"{name}.bias"])

    def conv(x: Tensor, name: str, **options: Any) -> Tensor:
        kernel = w[f"{name}.weight"].shape[-1]
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=kernel // 2, **options)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def down(x: Tensor) -> Tensor:
        return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4

    def up(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)

    def block(x: Tensor, name: str, change=lambda x: x) -> Tensor:
        h = conv(change(F.silu(norm(x, f"{name}.in_layers.0"))), f"{name}.in_layers.2")
        e = linear(F.silu(embedding), f"{name}.emb_layers.1")[:, :, None, None]
        width = h.shape[1]
        if e.shape[1] == 2 * width:
            h = norm(h, f"{name}.out_layers.0") * (1 + e[:, :width]) + e[:, width:]
        else:
            h = norm(h + e, f"{name}.out_layers.0")
        x = change(x)
        x = conv(x, f"{name}.skip_connection") if f"{name}.skip_connection.weight" in w else x
        return x + conv(F.silu(h), f"{name}.out_layers.3")

    def attention(x: Tensor, name: str) -> Tensor:
        b, c, height, width = x.shape
        flat = norm(x, f"{name}.norm").reshape(b, c, -1)
        qkv = (
            torch.einsum("oc,bct->bot", w[f"{name}.qkv.weight"][..., 0], flat)
            + w[f"{name}.qkv.bias"][:, None]
        )
        size, out = c // heads, []
        for head in range(heads):
            starts = [j * c + head * size if split_first else (3 * head + j) * size for j in range(3)]
            q, k, v = (qkv[:, start : start + size] for start in starts)
            share = torch.softmax(torch.einsum("bct,bcs->bts", q, k) / math.sqrt(size), -1)
            out.append(torch.einsum("bts,bcs->bct", share, v))
        mixed = torch.einsum("oc,bct->bot", w[f"{name}.proj_out.weight"][..., 0], torch.cat(out, 1))
        return x + (mixed + w[f"{name}.proj_out.bias"][:, None]).reshape(b, c, height, width)

    def resample(x: Tensor, place: str, change, kind: str) -> Tensor:
        if f"{place}.in_layers.0.weight" in w:
            return block(x, place, change)
        if f"{place}.{kind}.weight" not in w:
            return change(x)
        return conv(x, f"{place}.op", stride=2) if kind == "op" else conv(change(x), f"{place}.conv")

    base = w["time_embed.0.weight"].shape[1]
    angle = step * 10000.0 ** -(torch.arange(base // 2) / (base // 2))
    embedding = linear(
        F.silu(linear(torch.cat([angle.cos(), angle.sin()])[None], "time_embed.0")), "time_embed.2"
    )
    embedding = embedding + w["label_emb.weight"][label] if label >= 0 else embedding
    h0 = conv(z, "input_blocks.0.0")
    h1 = block(h0, "input_blocks.1.0")
    h2 = resample(h1, "input_blocks.2.0", down, "op")
    h3 = attention(block(h2, "input_blocks.3.0"), "input_blocks.3.1")
    h = block(attention(block(h3, "middle_block.0"), "middle_block.1"), "middle_block.2")
    h = attention(block(torch.cat([h, h3], 1), "output_blocks.0.0"), "output_blocks.0.1")
    h = attention(block(torch.cat([h, h2], 1), "output_blocks.1.0"), "output_blocks.1.1")
    h = resample(h, "output_blocks.1.2", up, "conv")
    h = block(torch.cat([h, h1], 1), "output_blocks.2.0")
    h = block(torch.cat([h, h0], 1), "output_blocks.3.0")
    return conv(F.silu(norm(h, "out.0")), "out.2")


# --- EDM and score_sde -------------------------------------------------------------------------------------


def song(kind: str, **options: Any) -> Any:
    """deepinv's network of the EDM layout: "ncsn" or "ddpm" of two levels, or "adm"; random weights."""
    from deepinv.models import ADMUNet, NCSNpp

    settings: dict[str, Any] = {
        "img_resolution": 16, "model_channels": 128, "channel_mult": (1, 1), "num_blocks": 1,
        "attn_resolutions": (8,), "pretrained": None, **options,
    }  # fmt: skip
    model = ADMUNet(**settings) if kind == "adm" else NCSNpp(model_type=kind, **settings)
    fixed = ("resample_filter", "freqs")
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items() if not k.endswith(fixed)}
    model.load_state_dict(random_like(shapes), strict=False)
    return model.eval().requires_grad_(False)


def as_score_sde(tensors: Tensors, levels: int, blocks: int) -> Tensors:
    """Weights of the EDM layout under the names that score_sde gives the same layers, in its order."""
    made: list[Tensors] = []
    side = max(int(name.split("x")[0].removeprefix("enc.")) for name in tensors if name.startswith("enc."))

    def layer(name: str, to: str = "") -> Tensors:
        return {f"{to}{part}": tensors[f"{name}.{part}"] for part in ("weight", "bias")}

    def block(name: str):
        pairs = {
            "norm0": "GroupNorm_0",
            "conv0": "Conv_0",
            "affine": "Dense_0",
            "norm1": "GroupNorm_1",
            "conv1": "Conv_1",
        }
        pairs |= {"skip": "Conv_2"} if f"{name}.skip.weight" in tensors else {}
        made.append({k: v for a, b in pairs.items() for k, v in layer(f"{name}.{a}", f"{b}.").items()})
        if f"{name}.qkv.weight" in tensors:
            weight, bias = tensors[f"{name}.qkv.weight"][:, :, 0, 0], tensors[f"{name}.qkv.bias"]
            parts = layer(f"{name}.norm2", "GroupNorm_0.")
            for j in range(3):
                parts |= {f"NIN_{j}.W": weight[j::3].T.contiguous(), f"NIN_{j}.b": bias[j::3].clone()}
            last = tensors[f"{name}.proj.weight"][:, :, 0, 0]
            made.append(parts | {"NIN_3.W": last.T.contiguous(), "NIN_3.b": tensors[f"{name}.proj.bias"]})

    if "map_noise.freqs" in tensors:
        made.append({"W": tensors["map_noise.freqs"]})
    made += [layer("map_layer0"), layer("map_layer1"), layer(f"enc.{side}x{side}_conv")]
    for level in range(levels):
        at = f"{side >> level}x{side >> level}"
        if level:
            block(f"enc.{at}_down")
            if f"enc.{at}_aux_residual.weight" in tensors:
                made.append(layer(f"enc.{at}_aux_residual", "Conv2d_0."))
        for index in range(blocks):
            block(f"enc.{at}_block{index}")
    for level in reversed(range(levels)):
        at = f"{side >> level}x{side >> level}"
        for part in ("in0", "in1") if level == levels - 1 else ("up",):
            block(f"dec.{at}_{part}")
        for index in range(blocks + 1):
            block(f"dec.{at}_block{index}")
    made += [layer(f"dec.{side}x{side}_aux_norm"), layer(f"dec.{side}x{side}_aux_conv")]
    return {f"all_modules.{i}.{name}": value for i, parts in enumerate(made) for name, value in parts.items()}
