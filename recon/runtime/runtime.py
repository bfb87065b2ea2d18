"""Where and how a prior runs: device, precision, compilation, layout, rows at a time. Only this file knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..priors import Prior, about, in_chunks
from .allocation import keep_memory

PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
BF16 = (
    "_is_amx_tile_supported",
    "_is_avx512_bf16_supported",
)  # of torch.cpu: instructions that multiply bf16


@dataclass(frozen=True)
class Runtime:
    """``device``: "auto", "cpu", "cuda", "cuda:1", "mps". ``dtype`` of the network: "float32", "bf16", "fp16", "auto".

    "auto" is bf16 on a processor with instructions for it, where the network takes half the time and the mean of samples
    differs by less than .02 dB, and float32 elsewhere: `precision` says which. ``chunk``: rows through the network at a time, 0 for all. ``slices`` of a volume reconstructed
    together, 0 for what the device's memory holds. Neither changes a result. The state stays in float32 or better
    whatever ``dtype`` says; results are cast back at the network's door.
    """

    device: str = "auto"
    dtype: str = "float32"
    compile: bool = False
    channels_last: bool = True
    chunk: int = 0
    slices: int = 0

    def __post_init__(self):
        if self.dtype not in (*PRECISIONS, "auto"):
            raise ConfigError(f"dtype is {self.dtype!r}.", f"It is one of {', '.join(PRECISIONS)}, auto.")
        for name in ("chunk", "slices"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}.", "It is a number, or 0 to leave it open."
                )
        self.torch_device()

    def torch_device(self) -> torch.device:
        """The device itself; raises `ConfigError` where the machine has none of that kind."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
        except RuntimeError as error:
            raise ConfigError(f"device is {self.device!r}.", "torch knows no such device.", "Use auto, cpu or cuda.") from error  # fmt: skip
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ConfigError(
                f"device is {self.device!r}.",
                f"This machine shows torch {torch.cuda.device_count()} CUDA devices.",
                "Use --device cpu, or check the driver with nvidia-smi.",
            )
        return device

    @property
    def precision(self) -> str:
        """The precision of the network: ``dtype``, and what "auto" stands for on this machine."""
        if self.dtype != "auto":
            return self.dtype
        return "bf16" if self.torch_device().type == "cpu" and multiplies_bf16() else "float32"

    def prepare(self, prior: Prior) -> Prior:
        """The prior, moved and wrapped; one without ``module`` (a closed form) is only chunked.

        Of a `recon.LatentPrior` encoder and decoder run as the denoiser does. On a processor also `keep_memory`,
        which concerns the whole process.
        """
        if self.torch_device().type == "cpu":
            keep_memory()
        module = about(prior).module
        if module is not None:
            module.to(self.torch_device())
            if self.channels_last:
                module.to(memory_format=torch.channels_last)
            if self.compile:
                module.network.compile()
        dtype = None if module is None else PRECISIONS[self.precision]
        if dtype is None and not self.chunk:
            return prior

        def wrap(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
            function = function if dtype is None else autocast_to(function, dtype)
            return in_chunks(function, self.chunk) if self.chunk else function

        return about(prior).space.wrapped(prior, wrap)


def multiplies_bf16() -> bool:
    """Whether this processor has instructions for products of bf16; without them they take longer than float32's."""
    return any(getattr(torch.cpu, name, bool)() for name in BF16)


def autocast_to(function: Callable[..., Tensor], dtype: torch.dtype) -> Callable[..., Tensor]:
    """Run the network's matrix work in ``dtype`` (autocast); the result is as wide as x."""

    def run(x: Tensor, *rest: Any) -> Tensor:
        with torch.autocast(x.device.type, dtype=dtype):
            result = function(x, *rest)
        return result.to(x.dtype if x.is_complex() == result.is_complex() else result.dtype)

    return run
