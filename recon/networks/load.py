"""Priors from disk: our own, by the name they ship under or by path, with a card beside them; and other projects'."""

from __future__ import annotations

from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import ConfigError, nearest
from ..latent import LatentPrior
from ..priors import Prior, as_complex
from .autoencoder import Autoencoder
from .card import read_card
from .checkpoints.families import family_of, is_checkpoint, prior_of_checkpoint
from .checkpoints.files import PICKLES, options_beside
from .precondition import Preconditioned
from .weights import AUTOENCODER, checkpoint_error, make_network, read_tensors

WEIGHTS = resources.files("recon") / "weights"
CARD_KEYS = ("network", "sha256")  # a card has both


def shipped() -> list[str]:
    """Names of the priors inside the package."""
    return sorted(entry.name[: -len(".json")] for entry in WEIGHTS.iterdir() if entry.name.endswith(".json"))


def load_prior(name: str | Path, *, verify: bool = True, **options: Any) -> Prior:
    """A denoiser by the name it ships under ("brain-mri"), or by the path of weights: our own or another project's.

    The card (JSON) of our own says how to build the network and what it was trained on; it becomes
    ``prior.card``. A card with an autoencoder makes a `recon.LatentPrior`. Raises `ConfigError` for an
    unknown name, a card that lacks something or contradicts its weights, damaged weights, NaN in
    them, and, with ``verify``, a sha256 that is not the card's; none of these takes memory of size.

    Checkpoints without such a card, files of tensors, ``.pt2`` of torch.export, folders of diffusers: their family is
    recognised by the names of their tensors (`recon.networks.checkpoints.families`). ``options`` of the family,
    as keywords or in a JSON mapping beside the file, say what tensors do not, ``label`` the class, ``values`` the two
    numbers that are black and white for the network; ``prior.card`` says what was found and what assumed. Images
    are from 0 to 1, or complex. Raises `ConfigError` for what is of no family, lacks something, or needs code.
    """
    path = Path(name)
    if is_checkpoint(path) and not has_card(path):
        return prior_of_checkpoint(path, options)
    if options:
        raise ConfigError(
            f"{name} was given {', '.join(options)}.",
            "It has a card, which says all.",
            "Leave the options out.",
        )
    path = find_card(name)
    card = read_card(path)
    if card["network"]["kind"] != "UNet":
        raise ConfigError(
            f"{name} is an {card['network']['kind']}, not a prior.",
            "It encodes and decodes images; nothing says which latents are likely.",
            "Name it as `autoencoder` of a training, whose result is a latent prior: recon train.",
        )
    return build_prior(card, read_tensors(card, path, verify))


def has_card(path: Path) -> bool:
    """Whether weights are our own: with a card beside them, and not another project's with options in its place.

    So are those that are not there: what a prior is, `find_card` says.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return path.suffix == ".safetensors"
    if not path.with_suffix(".json").is_file():
        return False
    try:
        beside = options_beside(path)
        with safe_open(path, "pt") as file:
            return any(key in beside for key in CARD_KEYS) or family_of(file.keys()) is None
    except (ConfigError, SafetensorError, OSError):  # said by whoever reads them in full
        return True


def build_prior(card: dict[str, Any], tensors: dict[str, Tensor]) -> Prior:
    """The prior of a card and its tensors, both of which fit each other."""
    inner = {key: tensors[key] for key in tensors if not key.startswith(AUTOENCODER)}
    model = Preconditioned(
        load_network(card["network"], inner), card["sigma_data"], card["sigma_min"], card["sigma_max"]
    )
    plain = Prior(model, of=model, data_var=card["sigma_data"] ** 2, card=card)
    if "autoencoder" in card:
        outer = {k[len(AUTOENCODER) :]: tensors[k] for k in tensors if k.startswith(AUTOENCODER)}
        return latent_prior(plain, model, Latents(card["autoencoder"], outer), card["complex_images"])
    prior = as_complex(plain) if card["complex_images"] else plain
    prior.module = model
    return prior


def load_network(settings: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    """The network that a card describes with its weights, frozen, in float32."""
    network = make_network(settings)
    network.load_state_dict({key: value.float() for key, value in tensors.items()})
    return network.eval().requires_grad_(False)


# --- latents -----------------------------------------------------------------------------------------------


class Latents(nn.Module):
    """An autoencoder with latents of mean 0 and variance 1 per channel: ``encode(x) = (E(x) - m) / s``.

    Images (B, C, H, W) real to latents (B, channels, H/f, W/f) and back, f = ``factor``; m and s are from the card.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, card: dict[str, Any], tensors: dict[str, Tensor]):
        super().__init__()
        self.card = card
        self.network: Autoencoder = load_network(card["network"], tensors)
        self.channels, self.factor = self.network.latents, self.network.factor
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(card[f"latent_{name}"]).view(-1, 1, 1), False)

    def encode(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to standardised latents (B, channels, H/f, W/f)."""
        return (self.network.encode(x) - self.mean) / self.std

    def decode(self, z: Tensor) -> Tensor:
        """Standardised latents (B, channels, h, w) to images (B, C, f h, f w)."""
        return self.network.decode(z * self.std + self.mean)


def load_autoencoder(name: str | Path) -> Latents:
    """The autoencoder that ``recon train`` wrote, by the path of its .safetensors or card.

    Raises `ConfigError` as `load_prior` does, and for weights of a prior.
    """
    path = find_card(name)
    card = read_card(path)
    if card["network"]["kind"] != "Autoencoder":
        raise ConfigError(
            f"{name} is a {card['network']['kind']}.",
            "An autoencoder is wanted.",
            "Train one: kind: autoencoder.",
        )
    about = ("name", "data", "citation", "complex_images", "normalisation")  # which the prior's card says too
    kept = {key: value for key, value in card.items() if key not in about}
    return Latents(kept, read_tensors(card, path))


def latent_prior(
    denoise: Prior, model: Preconditioned, latents: Latents, complex_images: bool
) -> LatentPrior:
    """The prior of a denoiser of latents (channels, H/f, W/f); of complex images each set has latents of its own."""

    def encode(image: Tensor) -> Tensor:
        if not complex_images:
            return latents.encode(image).to(image.dtype)
        pairs = torch.view_as_real(image.flatten(0, 1)).movedim(-1, 1)
        return latents.encode(pairs).to(pairs.dtype).unflatten(0, image.shape[:2])

    def decode(z: Tensor) -> Tensor:
        if not complex_images:
            return latents.decode(z).to(z.dtype)
        pairs = latents.decode(z.flatten(0, 1)).to(z.dtype).movedim(1, -1).contiguous()
        return torch.view_as_complex(pairs).unflatten(0, z.shape[:2])

    def each_set(z: Tensor, sigma: float) -> Tensor:
        return denoise(z.flatten(0, 1), sigma).unflatten(0, z.shape[:2])

    inner = Prior(each_set, of=denoise) if complex_images else denoise
    prior = LatentPrior(encode, decode, inner, factor=latents.factor)
    prior.module = nn.ModuleDict({"network": model, "latents": latents})
    return prior


def find_card(name: str | Path) -> Path:
    """The card of a prior by the name it ships under, or by the path of its card or weights; raises `ConfigError`."""
    path = Path(name)
    if path.suffix in (".json", ".safetensors"):
        card = path.with_suffix(".json")
        if not card.is_file():
            raise ConfigError(
                f"There is no prior at {path}.",
                f"A prior is {path.stem}.safetensors with its card {path.stem}.json beside it.",
                "recon train writes both.",
            )
        return card
    if path.suffix.lower() in PICKLES:
        raise checkpoint_error(path)
    if str(name) not in shipped():
        raise ConfigError(
            f'There is no prior named "{name}".',
            f"Known: {', '.join(shipped()) or 'none'}.",
            nearest(str(name), shipped()) + " A prior of your own is named by the path of its .safetensors.",
        )
    return Path(str(WEIGHTS / f"{name}.json"))


PRIORS = {name: partial(load_prior, name) for name in shipped()}
"""The priors that ship with the package: name -> a function that loads it."""
