"""What families of checkpoints share: options and what is assumed without them, loading by name, and the denoiser's door."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ConfigError, nearest
from ...priors import Prior, about, as_complex, prediction, rescaled
from ..card import fits_float32
from ..unet import pad_to_multiple
from ..weights import WithoutMemory

PHOTOGRAPHS, AS_THEY_ARE = (-1.0, 1.0), (0.0, 1.0)


class Choices:
    """Choices of one checkpoint: those given, those found in its tensors, those assumed.

    ``given``: by name. Each is asked for once, with its usual value, which is ``assumed`` where it is not given.
    """

    def __init__(self, path: Path, said: str, given: Mapping[str, Any]):
        self.path, self.said, self.given = path, said, dict(given)
        self.assumed: dict[str, Any] = {}
        self.known: list[str] = []

    def ask(
        self, name: str, usual: Any, holds: Callable[[Any], bool], wanted: str, quiet: bool = False
    ) -> Any:
        """The option ``name``; raises `ConfigError` where ``holds`` is false. ``quiet``: not worth saying if usual."""
        self.known.append(name)
        if name not in self.given:
            if not quiet:
                self.assumed[name] = usual
            return usual
        value = self.given[name]
        if not holds(value):
            raise ConfigError(
                f'The option "{name}" of {self.path} is {value!r}.', f"It is {wanted}.", self.how
            )
        return value

    def choose(self, name: str, usual: Any, among: Iterable[Any], quiet: bool = False) -> Any:
        """One of ``among``."""
        among = tuple(among)
        return self.ask(name, usual, lambda v: v in among, f"one of {', '.join(map(str, among))}", quiet)

    def number(self, name: str, usual: float | None, quiet: bool = False) -> Any:
        """A number above 0."""
        return self.ask(name, usual, lambda v: fits_float32(v) and v > 0, "a number above 0", quiet)

    def count(self, name: str, usual: int | None, quiet: bool = False) -> Any:
        """A whole number above 0."""
        return self.ask(name, usual, lambda v: type(v) is int and v > 0, "a whole number above 0", quiet)

    def flag(self, name: str, usual: bool, quiet: bool = False) -> bool:
        """True or false."""
        return self.ask(name, usual, lambda v: isinstance(v, bool), "true or false", quiet)

    def found(self, name: str, value: Any) -> Any:
        """What the tensors say; an option that says otherwise is refused."""
        self.known.append(name)
        if name in self.given and self.given[name] != value:
            raise ConfigError(
                f'The option "{name}" of {self.path} is {self.given[name]!r}.',
                f"Its tensors are those of a network with {name} = {value}.",
                "Leave it out, or take the checkpoint that it belongs to.",
            )
        return value

    def label(self, classes: int) -> int | None:
        """The class of a network trained on ``classes``; raises `ConfigError` without one."""
        self.known.append("label")
        value = self.given.get("label")
        if not classes and value is None:
            return None
        if not classes:
            raise ConfigError(
                f"{self.path} has no classes.", "Its network is unconditional.", "Leave out label."
            )
        if type(value) is not int or not 0 <= value < classes:
            raise ConfigError(
                f"{self.path} is class-conditional: {classes} classes"
                + ("." if value is None else f", and label is {value!r}."),
                "Its denoiser is that of one class.",
                f"Name it, from 0 to {classes - 1}: load_prior(path, label=0). {self.how}",
            )
        return value

    def refuse_rest(self, ignored: Sequence[str] = ()) -> None:
        """Raise `ConfigError` for an option that nobody asked for."""
        for name in self.given:
            if name not in self.known and name not in ignored:
                raise ConfigError(
                    f'{self.path} has no option "{name}".',
                    f"It is {self.said}, which takes {', '.join(dict.fromkeys(self.known))}.",
                    nearest(name, self.known),
                )

    @property
    def how(self) -> str:
        """Where options are given."""
        beside = self.path / "recon.json" if self.path.is_dir() else self.path.with_suffix(".json")
        return f"Choices are keywords of load_prior, or a JSON mapping in {beside.name} beside it."


def load_into(network: Callable[[], nn.Module], tensors: Mapping[str, Tensor], options: Choices) -> nn.Module:
    """``network()`` with ``tensors`` as its weights, in float32 and frozen; raises `ConfigError` where they do not fit."""
    with WithoutMemory():
        made = network()
    wanted = {name: tuple(value.shape) for name, value in made.state_dict().items()}
    other = [n for n in wanted if n in tensors and tuple(tensors[n].shape) != wanted[n]]
    parts = [
        f"{said} {some(names)}"
        for said, names in (
            ("it lacks", wanted.keys() - tensors.keys()),
            ("it has besides", tensors.keys() - wanted.keys()),
        )
        if names
    ]
    parts += [f"the tensor {n} is {tuple(tensors[n].shape)} and not {wanted[n]}" for n in other[:1]]
    if parts:
        raise mismatch(options.path, options.said, "; ".join(parts))
    bad = [name for name in wanted if not bool(torch.isfinite(tensors[name]).all())]
    if bad:
        raise ConfigError(
            f"{options.path} holds NaN or infinite weights.",
            f"{some(bad)}: its training diverged.",
            "Take an earlier checkpoint.",
        )
    made.load_state_dict({name: tensors[name].float() for name in wanted}, assign=True)
    return made.eval().requires_grad_(False)


def mismatch(path: Path, said: str, why: str) -> ConfigError:
    """The error for tensors that are nearly those of a family."""
    return ConfigError(
        f"{path} looks like {said}, but is not quite.",
        f"{why[:1].upper()}{why[1:]}.",
        "Take the file of the network alone, as its project saved it, or wrap the network: recon.priors.from_eps.",
    )


def some(names: Iterable[str]) -> str:
    """The first of some names, and how many more there are."""
    first, *more = sorted(names)
    return first[:60] + (f" and {len(more)} more" if more else "")


def at_door(
    network: nn.Module, channels: int, multiple: int, *rest: Any
) -> Callable[[Tensor, Tensor], Tensor]:
    """The `prediction` of ``network(x, label, *rest)`` in its own precision, on sides padded to ``multiple``, cropped and cast back.

    All rows have one label, which goes through the embedding as one row: an image does not depend on how many
    go through together. Raises `ConfigError` for x of other ``channels``.
    """

    def run(x: Tensor, label: Tensor) -> Tensor:
        refuse_channels(x, channels)
        height, width = x.shape[-2:]
        inside = next(network.parameters())
        moved = [part.to(inside.device) if isinstance(part, Tensor) else part for part in rest]
        padded = pad_to_multiple(x.to(inside.dtype), multiple)
        answer = prediction(network(padded, label[:1].float(), *moved), padded)
        return answer[..., :height, :width].to(x.dtype)

    return run


def refuse_channels(x: Tensor, channels: int) -> None:
    """Raise `ConfigError` for a state of other channels than the network's."""
    if x.ndim != 4 or x.shape[1] != channels:
        raise ConfigError(
            f"The prior is of images of {channels} channel{'s' * (channels > 1)}, and was given {tuple(x.shape[1:])}.",
            "Its network takes no others.",
            "Take an operator on such images, or a prior of these.",
        )


def finished(
    denoise: Prior,
    network: nn.Module,
    options: Choices,
    channels: int,
    shape: Any,
    usual_values: tuple[float, float],
) -> Prior:
    """The prior of a denoiser in the network's own scale: brought to ours, complex where it is, with its card.

    Takes the options all families have: ``values``, the two numbers that are 0 and 1 for us; ``complex_images``:
    two channels are real and imaginary part, or with one channel each part is an image; ``data_std``: the standard
    deviation of our images per real component.
    """
    low, high = options.ask("values", list(usual_values), are_ends, "two numbers, the lower first", True)
    is_complex = options.flag("complex_images", channels == 2, channels != 2)
    if is_complex and channels > 2:
        raise ConfigError(
            f"{options.path} is a network of {channels} channels.",
            "Complex images are one or two channels.",
            "Leave out complex_images.",
        )
    std = options.number("data_std", 0.25, True)
    prior = rescaled(denoise, float(low), float(high))
    if is_complex:
        prior = as_complex(prior, channels)
    card = {
        "name": options.path.stem,
        "family": options.said,
        "network": {"kind": type(network).__name__, **({} if shape is None else as_json(asdict(shape)))},
        "parameters": sum(p.numel() for p in network.parameters()),
        "channels": channels,
        "complex_images": is_complex,
        "values": [float(low), float(high)],
        "sigma_min": about(prior).sigma_min,
        "sigma_max": about(prior).sigma_max,
        "assumed": options.assumed,
        "data": [],
    }
    return Prior(prior, of=prior, data_var=std**2, module=nn.ModuleDict({"network": network}), card=card)


def as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a network with sets and tuples as lists, as a card holds them."""
    return {
        key: sorted(value)
        if isinstance(value, frozenset)
        else list(value)
        if isinstance(value, tuple)
        else value
        for key, value in settings.items()
    }


def are_ends(values: Any) -> bool:
    """Whether a value is two numbers, the lower first."""
    return (
        isinstance(values, list | tuple)
        and len(values) == 2
        and all(map(fits_float32, values))
        and values[0] < values[1]
    )


def one_hot(label: int | None, classes: int) -> list[Tensor]:
    """``[(1, classes)]`` with 1 at the label, or nothing."""
    return [] if label is None else [F.one_hot(torch.tensor([label]), classes).float()]
