"""Training behind ``recon train``: of priors and of the autoencoders of latent priors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import unknown
from ..registry.configuration import construct, parameters
from .autoencoder import AutoencoderTraining, train_autoencoder
from .prior import PriorTraining, train_prior
from .settings import Training
from .start import with_settings_of_start
from .team import speaks_for_all

TRAININGS: dict[str, tuple[type[Training], Callable[..., Path]]] = {
    "prior": (PriorTraining, train_prior),
    "autoencoder": (AutoencoderTraining, train_autoencoder),
}
"""``kind`` of a training -> its settings, and what runs it."""
NETWORK_KINDS = {"prior": "UNet", "autoencoder": "Autoencoder"}


def make_training(settings: Mapping[str, Any]) -> Training:
    """The training that a configuration describes; its ``kind`` is a prior unless it says so.

    What it does not say of its network is taken from the card of ``init``. Raises `ConfigError` for an unknown
    kind or key, and for values that no training can have.
    """
    settings = dict(settings)
    kind = str(settings.pop("kind", "prior"))
    if kind not in TRAININGS:
        raise unknown("kind of training", kind, TRAININGS)
    target = TRAININGS[kind][0]
    settings = with_settings_of_start(settings, parameters(target)[0], NETWORK_KINDS[kind])
    return construct(target, settings, "A training")


def train(
    training: Training, *, reads: Sequence[str | Path] = (), log: Callable[[object], object] = print
) -> list[str]:
    """Run a training, or go on with it; returns what was made and what to do next, a line each.

    ``reads`` are files that the command reads besides, such as its configuration: none is written over.
    """
    kind, (_, run) = next((kind, entry) for kind, entry in TRAININGS.items() if type(training) is entry[0])
    run(training, reads=reads, log=log)
    if not speaks_for_all():
        return []
    made = f"The {kind} is {training.weights}, with its card beside it."
    if kind == "autoencoder":
        return [
            made,
            "Next: recon train a prior of its latents, whose configuration names it as autoencoder.",
        ]
    sampler = " --sampler dps" if getattr(training, "autoencoder", None) else ""
    return [made, f"Next: recon reconstruct FILE --prior {training.weights}{sampler}"]
