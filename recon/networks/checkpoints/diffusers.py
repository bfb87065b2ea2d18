"""Folders of the `diffusers` library: a `UNet2DModel` with its scheduler, of images or, with an autoencoder, of latents."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from operators.errors import import_extra

from ...errors import ConfigError
from ...latent import LatentPrior
from ...priors import Prior, discrete_label, from_flow, prediction, row_label
from ..weights import sha256
from .adm import PREDICTS
from .building import AS_THEY_ARE, PHOTOGRAPHS, Choices, at_door, finished
from .edm import edm
from .files import unpickled

FOLDERS = ("vae", "unet", "scheduler")
CONFIGS = {"unet": "config.json", "scheduler": "scheduler_config.json"}
WEIGHTS_NAME = "diffusion_pytorch_model"


def is_folder(path: Path) -> bool:
    """Whether a folder is one that diffusers wrote."""
    return (path / "model_index.json").is_file() or any(
        (path / part / CONFIGS["unet"]).is_file() for part in (".", "unet", "vae")
    )


def load_folder(folder: Path, given: Mapping[str, Any]) -> Prior:
    """The prior in a folder: of latents where it has a ``vae``, else of images."""
    options = Choices(folder, "a folder of diffusers", given)
    if (folder / "vae").is_dir():
        options.refuse_rest()
        return load_latent(folder)
    return load_pixels(folder, options)


def load_pixels(folder: Path, options: Choices) -> Prior:
    """The prior of images in ``folder``: a `UNet2DModel` and its scheduler, in ``unet`` and ``scheduler`` or both in it.

    What the network predicts and its noise levels are the scheduler's: a table of DDPM (noise, v, image), VE
    (`ScoreSdeVeScheduler`, images from 0 to 1), rectified flow (`FlowMatch...`), EDM's preconditioning (`EDM...`).
    Photographs are from -1 to 1 for all but VE. Choices: those of all checkpoints, and ``label``, the class. Raises
    `ConfigError` as `load_latent` does.
    """
    library = installed()
    where = {part: folder / part if (folder / part).is_dir() else folder for part in CONFIGS}
    lacking = [name for part, name in CONFIGS.items() if not (where[part] / name).is_file()]
    if lacking:
        raise ConfigError(
            f"{folder} has no {' and no '.join(lacking)}.",
            "A prior of diffusers is a folder with a network and its scheduler: they say what it predicts, and when.",
            "Write both there, with the save_pretrained of the pipeline or of each.",
        )
    unet = read_network(library.UNet2DModel, where["unet"])
    classes = unet.config.num_class_embeds or (
        0 if not unet.config.class_embed_type else unet.class_embedding.linear_1.in_features
    )
    label = options.label(classes)
    if unet.config.out_channels not in (unet.config.in_channels, 2 * unet.config.in_channels):
        raise ConfigError(
            f"{where['unet']} is a network of {unet.config.in_channels} channels that gives {unet.config.out_channels}.",
            "A prior gives as many, or twice as many where it learns a variance.",
            "Take the network of an unconditional diffusion model.",
        )
    rest = [] if label is None else [torch.tensor([label])]
    run = at_door(unet, unet.config.in_channels, 2 ** (len(unet.config.down_block_types) - 1), *rest)
    kind, values = scheduler_kind(where["scheduler"]), PHOTOGRAPHS
    if kind == "ScoreSdeVeScheduler":
        scheduler, values = read_part(library.ScoreSdeVeScheduler, where["scheduler"]), AS_THEY_ARE
        plain = Prior(
            lambda x, s: x + s**2 * prediction(run(x, row_label(s, x)), x),
            sigma_min=scheduler.config.sigma_min,
            sigma_max=scheduler.config.sigma_max,
        )
    elif kind.startswith("FlowMatch"):
        steps = read_part(getattr(library, kind, None), where["scheduler"]).config.num_train_timesteps
        plain = from_flow(lambda z, t: run(z, steps * t), sigma_min=0.002, sigma_max=1000.0)
    elif kind.startswith("EDM"):
        scheduler = read_part(getattr(library, kind, None), where["scheduler"])
        if scheduler.config.prediction_type != "epsilon":
            raise predicts_other(scheduler.config.prediction_type, ("epsilon",))
        options.given = {"sigma_data": scheduler.config.sigma_data} | options.given
        inner = edm(run, options, None)
        plain = Prior(inner, sigma_min=scheduler.config.sigma_min, sigma_max=scheduler.config.sigma_max)
    else:
        scheduler = read_part(library.DDPMScheduler, where["scheduler"])
        table = table_of(scheduler)
        low, high = (math.sqrt((1 - a) / a) for a in (table[0], table[-1]))
        plain = PREDICTS[scheduler.config.prediction_type](
            run, discrete_label(table), sigma_min=low, sigma_max=high
        )
    if unet.config.in_channels == 2:
        values = AS_THEY_ARE
    prior = finished(plain, unet, options, unet.config.in_channels, None, values)
    prior.card["network"] |= {
        "scheduler": kind,
        "widths": list(unet.config.block_out_channels),
        "classes": classes,
    }
    prior.card["sha256"] = sha256(weights_of(where["unet"]))
    options.refuse_rest()
    return prior


NOT_OF_A_TABLE = ("KarrasVe", "Consistency", "LCM", "CM", "VQ", "Unclip", "IPNDM", "SdeVp")
"""In the names of schedulers whose networks have another clock than a table of DDPM."""


def scheduler_kind(folder: Path) -> str:
    """The class that a scheduler's configuration names; raises `ConfigError` for those with a clock of their own."""
    path = folder / CONFIGS["scheduler"]
    try:
        kind = str(json.loads(path.read_text(encoding="utf-8")).get("_class_name", "DDPMScheduler"))
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{path} cannot be read.",
            f"It is to be the scheduler's configuration as JSON: {error}.",
            "Write it again with save_pretrained.",
        ) from error
    if any(kind == f"{name}Scheduler" or name in kind for name in NOT_OF_A_TABLE):
        raise ConfigError(
            f"{folder} has a {kind}.",
            "Its network has a clock that is not known here; known: tables of DDPM, VE, rectified flow, EDM.",
            "Wrap the network: recon.priors.from_eps and others.",
        )
    return kind


def predicts_other(kind: str, known: Any) -> ConfigError:
    """The error for a network that predicts what is not known here."""
    return ConfigError(
        f"The network predicts {kind!r}.",
        f"Known: {', '.join(known)}.",
        "Wrap it: recon.priors.from_eps and others.",
    )


def table_of(scheduler: Any) -> list[float]:
    """The table ``abar`` of a scheduler; raises `ConfigError` for one that ends at pure noise, or predicts what is not known."""
    if scheduler.config.prediction_type not in PREDICTS:
        raise predicts_other(scheduler.config.prediction_type, PREDICTS)
    if not bool((scheduler.alphas_cumprod > 0).all()):
        raise ConfigError(
            "The scheduler's table ends at pure noise.",
            "Its last level is an infinite sigma.",
            "Set rescale_betas_zero_snr to false in the scheduler's card, if the network allows it.",
        )
    return [float(a) for a in scheduler.alphas_cumprod.double()]


def load_latent(folder: str | Path) -> LatentPrior:
    """The latent prior in ``folder``: ``vae``, ``unet`` and ``scheduler``, each written by its `save_pretrained`.

    Images are real (rows, channels, H, W) between 0 and 1; the latents of one image have the shape
    (channels, height, width) that the network was trained on, times ``scaling_factor`` of the
    autoencoder's card. ``encode`` gives the mean of its Gaussian. Weights are safetensors, from the disk
    only. ``sigma_min`` and ``sigma_max`` are the ends of the scheduler's table, between which labels are
    interpolated. Raises `ConfigError` without the extra, for a folder that lacks a part, for one that is
    damaged or whose weights are not all of its network, and for networks that need a class or another clock.
    """
    library = installed()
    folder = Path(folder)
    missing = [part for part in FOLDERS if not (folder / part).is_dir()]
    if missing:
        raise ConfigError(
            f"{folder} has no {' and no '.join(missing)}.",
            f"A latent prior of diffusers is a folder with {', '.join(FOLDERS)} inside.",
            "Write each part there with its save_pretrained.",
        )
    vae = read_network(library.AutoencoderKL, folder / "vae")
    unet = read_network(library.UNet2DModel, folder / "unet")
    scheduler = read_part(library.DDPMScheduler, folder / "scheduler")
    refuse_other_networks(vae.config, unet.config)

    def network(z: Tensor, label: Tensor) -> Tensor:
        return unet(z.to(unet.dtype), label).sample.to(z.dtype)

    table = table_of(scheduler)
    low, high = (math.sqrt((1 - a) / a) for a in (table[0], table[-1]))
    denoise = PREDICTS[scheduler.config.prediction_type](
        network, discrete_label(table), sigma_min=low, sigma_max=high
    )
    scale, shift = vae.config.scaling_factor, getattr(vae.config, "shift_factor", None) or 0.0

    def encode(image: Tensor) -> Tensor:
        mean = vae.encode((2 * image - 1).to(vae.dtype)).latent_dist.mean
        return ((mean - shift) * scale).to(image.dtype)

    def decode(z: Tensor) -> Tensor:
        return (vae.decode((z / scale + shift).to(vae.dtype)).sample.to(z.dtype) + 1) / 2

    size = unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    prior = LatentPrior(encode, decode, denoise, (unet.config.in_channels, height, width))
    prior.module = nn.ModuleDict({"network": unet, "vae": vae})
    return prior


def installed() -> Any:
    """The module `diffusers`; raises `ConfigError`, with the extra to install, if it is missing."""
    return import_extra("diffusers", "latent", "The networks of this folder are read with", ConfigError)


def read_part(kind: Any, folder: Path, **options: Any) -> Any:
    """What ``kind.from_pretrained`` makes of a folder; raises `ConfigError` for whatever it cannot read."""
    try:
        return kind.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:  # the library raises what its configuration classes happen to raise
        raise ConfigError(
            f"{folder} cannot be read as {kind.__name__}.",
            f"It is damaged, or of another kind: {(str(error).splitlines() or [type(error).__name__])[0]}.",
            "Write it again with save_pretrained.",
        ) from error


def read_network(kind: Any, folder: Path) -> Any:
    """A network, frozen, with exactly the weights that it has; the library would make up those that are missing."""
    weights = weights_of(folder)
    pickles = weights.suffix == ".bin"
    if pickles:
        unpickled(weights)  # refuses what is not tensors alone; the library then reads it in the same way
    options = dict(use_safetensors=not pickles, low_cpu_mem_usage=False, output_loading_info=True)
    network, told = read_part(kind, folder, **options)
    for said, names in (
        ("lack", told["missing_keys"]),
        ("have more than the network:", told["unexpected_keys"]),
    ):
        if names:
            raise ConfigError(
                f"{folder} does not hold the network that its configuration describes.",
                f"Its weights {said} {names[0]}{f' and {len(names) - 1} others' if len(names) > 1 else ''}.",
                "Write both again with save_pretrained.",
            )
    if not all(bool(p.isfinite().all()) for p in network.parameters()):
        raise ConfigError(
            f"{folder} holds NaN or infinite weights.",
            "Its training diverged.",
            "Take an earlier checkpoint.",
        )
    return network.eval().requires_grad_(False)


def weights_of(folder: Path) -> Path:
    """The file of a network's weights, as safetensors or, where there are none, as pickled tensors."""
    pickled = folder / f"{WEIGHTS_NAME}.bin"
    safe = folder / f"{WEIGHTS_NAME}.safetensors"
    return pickled if pickled.is_file() and not safe.is_file() else safe


def refuse_other_networks(vae, unet) -> None:
    """Raises `ConfigError` for an input that `load_latent` does not provide."""
    if unet.time_embedding_type != "positional" or unet.class_embed_type or unet.num_class_embeds:
        raise ConfigError(
            "The network needs a class, or the logarithm of sigma.",
            "It is called with a state and a step of the scheduler's table alone.",
            "Write your own wrapper: recon.priors.from_eps, recon.LatentPrior.",
        )
    if unet.in_channels != unet.out_channels or unet.in_channels != vae.latent_channels:
        raise ConfigError(
            f"The network takes {unet.in_channels} channels and gives {unet.out_channels}.",
            f"The autoencoder's latents have {vae.latent_channels}.",
            "The two have to be trained for each other.",
        )
    if unet.sample_size is None:
        raise ConfigError("The network's card has no sample_size.", "It is the size of the latents.")
