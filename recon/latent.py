"""Latent priors: an encoder, a decoder, and a denoiser of what lies between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from operators.base import Linear, Operator

from .errors import ConfigError
from .priors import Denoiser, Prior, Space
from .problem import Problem

Map = Callable[[Tensor], Tensor]


class LatentPrior(Prior, Space):
    """A denoiser ``denoise(z, sigma)`` of latents z (rows, *shape), with ``decode(z)`` to images and ``encode`` back.

    ``shape`` of the latents of one image; by default that of what ``encode`` makes of the problem's images.

    `recon.sample` walks in the latent space, on the operator after ``decode``, which is not linear, and
    decodes once at the end: samplers that need a linear operator are refused. ``encode`` is called for a
    warm start, and by STSL for its own start. Any callables will do; the decoder has to be differentiable, and
    gives images of the operator's domain: complex ones where that is complex. The last two sides of an
    image are multiples of ``factor``. ``about``: sigma_min, sigma_max, data_var of the latents; default
    ``denoise``'s own.
    """

    latent = True

    def __init__(
        self,
        encode: Map,
        decode: Map,
        denoise: Denoiser,
        shape: Sequence[int] | None = None,
        *,
        factor: int = 1,
        **about: Any,
    ):
        if shape is not None and (not shape or any(not isinstance(n, int) or n < 1 for n in shape)):
            raise ConfigError(f"The shape of the latents is {shape}.", "It is that of one image's, without the batch axis.", "For example (4, 32, 32).")  # fmt: skip
        super().__init__(denoise, of=denoise, **about)
        self.encode, self.decode = encode, decode
        self.shape, self.factor = None if shape is None else tuple(shape), factor

    @property
    def space(self) -> Space:
        """That of its latents, which the prior itself knows."""
        return self

    def wrapped(
        self, prior: Denoiser, wrap: Callable[[Callable[..., Tensor]], Callable[..., Tensor]]
    ) -> Prior:
        """The prior whose encoder, decoder and denoiser are each ``wrap(function)``."""
        inner = Prior(wrap(self.function), of=self)
        return LatentPrior(wrap(self.encode), wrap(self.decode), inner, self.shape, factor=self.factor)

    def refuse_size(self, size: Sequence[int]) -> None:
        """Raise `ConfigError` where an image of (..., H, W) = ``size`` does not fit the autoencoder."""
        sides = size[-2:]
        if any(side % self.factor for side in sides):
            raise ConfigError(
                f"The images are {' x '.join(map(str, sides))}.",
                f"The sides of this latent prior's images are multiples of {self.factor}.",
                f"Bring them to {' x '.join(str(n + -n % self.factor) for n in sides)}, or take a prior of images.",
            )

    def encoded(self, image: Tensor, problem: Problem) -> Tensor:
        """``encode(image)`` (B, *shape), its shape checked."""
        return cast(Decoded, problem.A).encoded(image)

    def decoded(self, x: Tensor) -> Tensor:
        """``decode(x)``."""
        return self.decode(x)

    def pose(self, problem: Problem) -> Problem:
        """The same measurements, of latents. Raises `ConfigError` where the decoder's images are not the operator's."""
        self.refuse_size(problem.A.domain)
        y, shape = problem.y, self.shape
        kind = torch.float64 if y.dtype.to_real() == torch.float64 else torch.float32
        with torch.no_grad():
            if shape is None:
                shape = tuple(self.encode(problem.A._zeros(1, kind, y.device)).shape[1:])
            A = Decoded(problem.A, self, shape)
            A.image(torch.zeros(1, *shape, dtype=kind, device=y.device))
        return Problem(A, y, problem.sigma)


class Decoded(Operator):
    """``A(decode(z))``: what was measured, of latents. Not linear, even where A is."""

    def __init__(self, A: Operator, latent: LatentPrior, shape: tuple[int, ...]):
        self.A, self.latent = A, latent
        self.domain, self.images = shape, A.images

    @cached_property
    def codomain(self) -> tuple[int, ...]:
        """That of A."""
        return self.A.codomain

    @cached_property
    def complex_codomain(self) -> bool:
        """That of A."""
        return self.A.complex_codomain

    def forward(self, x: Tensor) -> Tensor:
        """``A(decode(x))``."""
        return self.A.forward(self.image(x))

    def image(self, z: Tensor) -> Tensor:
        """``decode(z)``, its shape and kind checked."""
        image = self.latent.decode(z)
        wanted = (len(z), *self.A.domain)
        if tuple(image.shape) != wanted or image.is_complex() != self.A.complex_domain:
            kind = "complex" if self.A.complex_domain else "real"
            raise ConfigError(
                f"The decoder was given latents {tuple(z.shape)} and returned {tuple(image.shape)} {image.dtype}.",
                f"{self.A!r} measures {kind} images {wanted}.",
                "Give the prior the shape of its latents for images of this size; make complex images in the decoder.",
            )
        return image

    def encoded(self, image: Tensor) -> Tensor:
        """``encode``, its shape checked."""
        with torch.no_grad():
            latent = self.latent.encode(image)
        if tuple(latent.shape) != (len(image), *self.domain):
            raise ConfigError(
                f"The encoder was given {tuple(image.shape)} and returned {tuple(latent.shape)}.",
                f"The latents of this prior are (rows, {', '.join(map(str, self.domain))}).",
                "Give the prior the shape of its latents for images of this size.",
            )
        return latent

    def start_from(self, y: Tensor) -> Tensor:
        """``encode(A^H y)``, for a linear A: where an inversion starts."""
        return self.encoded(cast(Linear, self.A).adjoint(y))

    @property
    def measured(self) -> int:
        """That of A."""
        return self.A.measured

    def masked(self, y: Tensor) -> Tensor:
        """y as A masks it."""
        return self.A.masked(y)

    def __repr__(self) -> str:
        return f"Decoded({self.A!r}, latents {self.domain})"
