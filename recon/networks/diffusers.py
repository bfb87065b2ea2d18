"""Latent priors from a folder of the `diffusers` library: an `AutoencoderKL` and a `UNet2DModel`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import ConfigError
from ..latent import LatentPrior
from ..priors import discrete_label, from_eps, from_v, from_x0

FOLDERS = ("vae", "unet", "scheduler")
PREDICTS = {"epsilon": from_eps, "v_prediction": from_v, "sample": from_x0}


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
    refuse_other_networks(vae.config, unet.config, scheduler)

    def network(z: Tensor, label: Tensor) -> Tensor:
        return unet(z.to(unet.dtype), label).sample.to(z.dtype)

    table = [float(a) for a in scheduler.alphas_cumprod.double()]
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
    try:
        import diffusers
    except ImportError as error:
        raise ConfigError(
            "The library diffusers is not installed.",
            "It reads the networks of this folder.",
            'Install the extra: pip install "recon-posterior[latent]".',
        ) from error
    return diffusers


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
    options = dict(use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True)
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


def refuse_other_networks(vae, unet, scheduler) -> None:
    """Raises `ConfigError` for a clock, a parametrisation or an input that `load_latent` does not provide."""
    kind = scheduler.config.prediction_type
    if kind not in PREDICTS:
        raise ConfigError(f"The network predicts {kind!r}.", f"Known: {', '.join(PREDICTS)}.")
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
    if not bool((scheduler.alphas_cumprod > 0).all()):
        raise ConfigError(
            "The scheduler's table ends at pure noise.",
            "Its last level is an infinite sigma.",
            "Set rescale_betas_zero_snr to false in the scheduler's card, if the network allows it.",
        )
