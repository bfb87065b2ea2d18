"""Denoisers ``D(x, sigma) = E[x0 | x0 + sigma eps = x]``: from networks of any parametrisation, or in closed form.

A prior is any callable of that form (`Denoiser`). What else it may say of itself is `About`, and whoever
needs to know asks `about`. Every network's own clock (alpha, t, v, flow) ends here; nobody else knows it.
Wrappers close: each takes a denoiser and gives one, and passes on what is known of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .errors import ConfigError
from .noise import Noise
from .state import Estimate

# --- the protocol ----------------------------------------------------------------------------------------


class Denoiser(Protocol):
    """``D(x, sigma)``: the clean image expected where ``x = x0 + sigma eps``. Any such callable is a prior.

    x has shape (rows, *domain), rows image-major, real or complex; ``sigma > 0`` is a Python float, the same for
    all rows. Returns a tensor of the shape and dtype of x, differentiable in x where a sampler guides by
    gradients; rows do not depend on one another. Beyond that it may have attributes by the names of the fields
    of `About`, each optional, with the default that stands there.
    """

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor: ...


class Space:
    """The space a prior's walk is in: that of the images, unless the prior says otherwise (`recon.latent`)."""

    latent = False  # whether a state is something else than an image

    def pose(self, problem):
        """The `recon.Problem` of what is walked, from that of the images."""
        return problem

    def encoded(self, image: Tensor, problem) -> Tensor:
        """The clean state (B, *domain) that ``image`` is, for a ``problem`` as posed."""
        return image

    def decoded(self, x: Tensor) -> Tensor:
        """The images of clean states."""
        return x

    def refuse_size(self, size: Sequence[int]) -> None:
        """Raise `ConfigError` where an image of (..., H, W) = ``size`` does not fit the prior."""

    def wrapped(
        self, prior: Denoiser, wrap: Callable[[Callable[..., Tensor]], Callable[..., Tensor]]
    ) -> Prior:
        """``prior`` with each of its functions ``f`` replaced by ``wrap(f)``, and all that is known of it."""
        return Prior(wrap(prior), of=prior)


@dataclass(frozen=True)
class About:
    """All that a prior may say of itself beside being callable; the defaults are of one that says nothing.

    ``sigma_min``, ``sigma_max``: the noise levels it was trained for. ``data_var``: variance of its images per
    real component, ``std`` its root, None where the prior does not say it. ``card``: how it was made (a JSON object: name, data, network, sha256, ...).
    ``complex_images``: whether its images are complex, which a card says too, and goes first. ``module``: the
    network, to be moved to a device. ``degraded`` (B, *domain): the images it restores one by one, where it does.
    ``start(noise, sigma, denoise) -> (x, sigma)``: a start of its own in the place of pure noise. ``space``: where
    its walk is, if not among the images. ``volumes``: whether it is a denoiser of volumes (C, D, H, W).
    """

    sigma_min: float | None = None
    sigma_max: float | None = None
    data_var: float = 1.0
    std: float | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    complex_images: bool = False
    module: Any = None
    degraded: Tensor | None = None
    start: Callable[..., tuple[Tensor, float]] | None = None
    space: Space = field(default_factory=Space)
    volumes: bool = False

    @property
    def channels(self) -> int:
        """Of its images, as its card says; a complex image has one, and one of which nothing is said."""
        if self.complex_images:
            return 1
        return self.card.get("channels") or self.card.get("network", {}).get("channels", 1)

    @property
    def allowed(self) -> tuple[float, float]:
        """(lowest, highest) noise level the prior may be asked at; without a range of its own 0 and infinity."""
        return self.sigma_min or 0.0, math.inf if self.sigma_max is None else self.sigma_max

    @property
    def usual(self) -> tuple[float, float]:
        """(lowest, highest) level of a walk where nobody says otherwise; without a range of its own .002 and 80."""
        return (
            0.002 if self.sigma_min is None else float(self.sigma_min),
            80.0 if self.sigma_max is None else self.sigma_max,
        )


def about(prior: Any) -> About:
    """What ``prior`` says of itself, and the defaults for what it does not: the one way to ask."""
    said = {f.name: getattr(prior, f.name, None) for f in fields(About)}
    said = {name: value for name, value in said.items() if value is not None}
    if said.get("card"):
        said["complex_images"] = bool(said["card"]["complex_images"])
    said["std"] = math.sqrt(said["data_var"]) if "data_var" in said else None
    return About(**said)


SLICES_IN_NETWORK = 32
TAKEN_OVER = ("sigma_min", "sigma_max", "data_var", "card", "complex_images")


class Prior:
    """A denoiser made of ``function(x, sigma)``, with what is known of it: fields of `About` by keyword.

    ``of``: a denoiser whose levels, variance, card and kind of images it takes over where they are not given. What
    is not known is not an attribute: ask `about`.
    """

    module: Any
    card: Any

    def __init__(self, function: Denoiser, of: Any = None, **known: Any):
        self.function = function
        for name in TAKEN_OVER:
            if known.get(name) is None:
                known[name] = getattr(of, name, None)
        for name, value in known.items():
            if value is not None:
                setattr(self, name, value)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return self.function(x, sigma)


# --- networks of other parametrisations ------------------------------------------------------------------


def vp_scale(sigma: float) -> float:
    """``a = 1 / sqrt(1 + sigma^2)``: a variance-preserving state is ``a x``."""
    return 1 / math.sqrt(1 + sigma**2)


def prediction(answer: Any, x: Tensor) -> Tensor:
    """The prediction in what a network returned for x (rows, C, ...), of the shape of x.

    It is ``answer`` itself, its ``sample``, or the first part of a tuple or list; of twice the channels, C of a
    mean and C of a learned variance, the mean's. Raises `ConfigError` for what is none of these.
    """
    found = answer
    if isinstance(answer, tuple | list):
        found = answer[0] if answer else None
    elif not isinstance(answer, Tensor):
        found = answer.get("sample") if isinstance(answer, Mapping) else getattr(answer, "sample", None)
    if not isinstance(found, Tensor):
        raise ConfigError(
            f"The network returned a {type(answer).__name__} where a prediction is wanted.",
            "That is a tensor, an object with a tensor named sample, or a tuple that begins with one.",
            "Wrap the network in a function that returns the tensor.",
        )
    if found.ndim == x.ndim > 1 and found.shape[1] == 2 * x.shape[1] > 0:
        found = found[:, : x.shape[1]]
    if found.shape != x.shape:
        raise ConfigError(
            f"The network was given {tuple(x.shape)} and returned {tuple(found.shape)}.",
            "A prediction has the shape of the state, or twice its channels where a variance is learned as well.",
            "Take a network for images of this many channels, or an operator on images of the network's.",
        )
    return found


def from_eps(network, label: Callable[[float], float], scale=vp_scale, **about) -> Prior:
    """``D = x - sigma e(a x, label)``: a network that predicts the noise; ``scale`` is a(sigma).

    The network may return whatever `prediction` takes, here and in `from_v`, `from_x0` and `from_flow`.
    """

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return x - sigma * prediction(network(scale(sigma) * x, row_label(label(sigma), x)), x)

    return Prior(denoise, **about)


def from_v(network, label: Callable[[float], float], scale=vp_scale, **about) -> Prior:
    """``D = (a z - s v) / (a^2 + s^2)`` with z = a x, s = a sigma: a network that predicts v = a e - s x0."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        a = scale(sigma)
        v = prediction(network(a * x, row_label(label(sigma), x)), x)
        return (a * a * x - a * sigma * v) / (a * a * (1 + sigma**2))

    return Prior(denoise, **about)


def from_x0(network, label: Callable[[float], float], scale=vp_scale, **about) -> Prior:
    """``D = network(a x, label)``: a network that predicts the clean image."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return prediction(network(scale(sigma) * x, row_label(label(sigma), x)), x)

    return Prior(denoise, **about)


def from_flow(velocity, **about) -> Prior:
    """``D = z - t u(z, t)``, t = sigma / (1 + sigma), z = (1 - t) x: rectified flow, z = (1 - t) x0 + t e."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        t = sigma / (1 + sigma)
        z = (1 - t) * x
        return z - t * prediction(velocity(z, row_label(t, x)), x)

    return Prior(denoise, **about)


def discrete_label(alphas_cumprod) -> Callable[[float], float]:
    """sigma -> the (fractional) index of a DDPM table: ``ln abar`` is interpolated, ``abar = 1 / (1 + sigma^2)``."""
    table = [math.log(float(a)) for a in alphas_cumprod]

    def label(sigma: float) -> float:
        wanted = -math.log1p(sigma**2)
        if wanted >= table[0]:
            return 0.0
        for index, (high, low) in enumerate(pairwise(table)):
            if wanted >= low:
                return index + (high - wanted) / (high - low)
        return float(len(table) - 1)

    return label


def row_label(value: float, x: Tensor) -> Tensor:
    """``value`` for each row of x, (rows,), in its real dtype and on its device."""
    return torch.full((len(x),), float(value), dtype=x.dtype.to_real(), device=x.device)


# --- wrappers --------------------------------------------------------------------------------------------


def rescaled(prior, low: float, high: float) -> Prior:
    """A denoiser of images from ``low`` to ``high`` as one of images from 0 to 1.

    ``D(x, s) = (D'(low + w x, w s) - low) / w``, w = high - low; of photographs from -1 to 1, ``(D'(2x - 1, 2s) + 1) / 2``.
    Noise levels and variance that it knows of itself are divided by w and its square.
    """
    width, known = high - low, about(prior)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return (prior(low + width * x, width * sigma) - low) / width

    return Prior(
        denoise,
        of=prior,
        sigma_min=None if known.sigma_min is None else known.sigma_min / width,
        sigma_max=None if known.sigma_max is None else known.sigma_max / width,
        data_var=known.data_var / width**2,
    )


def as_complex(prior, channels: int = 2) -> Prior:
    """A denoiser of two real channels, for complex images (rows, sets, H, W): each set is one image.

    With ``channels`` 1 it is a denoiser of one channel, and real and imaginary part are an image each.
    """

    def denoise(x: Tensor, sigma: float) -> Tensor:
        if not x.is_complex():
            raise TypeError(f"as_complex: the state is {x.dtype}; this prior is for complex images.")
        parts = torch.view_as_real(x.flatten(0, 1)).movedim(-1, 1)
        if channels == 1:
            clean = prior(parts.flatten(0, 1)[:, None], sigma).view(parts.shape)
        else:
            clean = prior(parts, sigma)
        return torch.view_as_complex(clean.movedim(1, -1).contiguous()).reshape(x.shape)

    return Prior(denoise, of=prior, complex_images=True)


def slicewise(prior, together: int = SLICES_IN_NETWORK) -> Prior:
    """A 2-D denoiser on volumes (rows, C, D, H, W): the slices of D become rows around the network.

    At most ``together`` slices are in the network at a time, so that its memory does not grow with the volume.
    """
    denoise_slices = in_chunks(prior, together)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        rows, channels, depth, height, width = x.shape
        slices = x.movedim(2, 1).reshape(rows * depth, channels, height, width)
        clean = denoise_slices(slices, sigma).reshape(rows, depth, channels, height, width)
        return clean.movedim(1, 2)

    return Prior(denoise, of=prior, volumes=True)


def for_images(prior, domain: Sequence[int]):
    """``prior`` as it is, or slice by slice on volumes (C, D, H, W) where it is a network of 2-D images, which has a card."""
    known = about(prior)
    planes = known.card and not (known.volumes or known.space.latent)
    return slicewise(prior) if len(domain) == 4 and planes else prior


def chunked(prior, rows: int) -> Prior:
    """At most ``rows`` rows through the network at a time, which bounds its memory and changes no result.

    Also where a sampler differentiates through it: see `by_chunks`.
    """
    return about(prior).space.wrapped(prior, lambda function: in_chunks(function, rows))


def in_chunks(function: Callable[..., Tensor], rows: int) -> Callable[..., Tensor]:
    """``function(x, *rest)``, at most ``rows`` rows of x at a time."""

    return lambda x, *rest: by_chunks(lambda part: function(part, *rest), rows, x)


def flow(prior, solver, steps: int, grid: Callable[..., list[float]]) -> Prior:
    """A one-step denoiser made an n-step one: ``solver`` walks from sigma to 0 on ``grid(steps, sigma)``.

    Raises `ConfigError` for a stochastic solver: a denoiser is a function of (x, sigma).
    """
    if getattr(solver, "stochastic", False):
        raise ConfigError(
            f"flow was given {solver!r}, which adds noise.",
            "A denoiser gives one image for one state.",
            "Use a deterministic solver: euler, heun, dpm++2m, or ddim with eta=0.",
        )

    def denoise(x: Tensor, sigma: float) -> Tensor:
        def see(x: Tensor, sigma: float) -> Estimate:
            return Estimate.keep_state(x, sigma, prior(x, sigma))

        past, draw = (), Noise(0, range(len(x))).at(0)
        for s, t in pairwise(grid(steps, sigma)):
            step = solver.step(see, x, s, t, past, draw)
            x, past = step.mean, step.past
        return x

    return Prior(denoise, of=prior)


# --- closed form -----------------------------------------------------------------------------------------


class Gaussian:
    """The exact denoiser of ``x0 ~ N(mean, covariance)`` per real component.

    ``D = m + C (C + s^2)^-1 (x - m)``. ``mean`` (*domain); ``covariance``: a float c (``c I``), a tensor
    of the domain's shape (diagonal), or (n, n) over the flattened real view.
    """

    def __init__(self, mean: Tensor, covariance: float | Tensor):
        self.mean, self.covariance = mean, covariance
        dense = isinstance(covariance, Tensor) and covariance.shape != mean.shape
        if dense:
            self.eigenvalues, self.basis = torch.linalg.eigh(covariance)
        self.dense = dense
        scale = covariance if not isinstance(covariance, Tensor) else covariance.diagonal().mean() if dense else covariance.mean()  # fmt: skip
        self.data_var = float(scale)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        difference = x - self.mean
        if not self.dense:
            return self.mean + self.covariance / (self.covariance + sigma**2) * difference
        flat = (torch.view_as_real(difference) if x.is_complex() else difference).flatten(1)
        shrink = self.eigenvalues / (self.eigenvalues + sigma**2)
        flat = (flat @ self.basis * shrink) @ self.basis.T
        if x.is_complex():
            return self.mean + torch.view_as_complex(flat.reshape(*x.shape, 2).contiguous())
        return self.mean + flat.reshape(x.shape)


class Mixture:
    """The exact denoiser of ``sum_k w_k N(m_k, t^2 I)``: ``D = x + s^2 (mbar - x) / (t^2 + s^2)``.

    ``mbar`` is the mean of the means under the responsibilities at x. ``means`` (K, *domain) real or
    complex, ``weights`` (K,), ``std`` t.
    """

    def __init__(self, means: Tensor, weights: Tensor, std: float):
        self.means, self.log_weights, self.std = means, weights.log(), std
        self.data_var = std**2

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        variance = self.std**2 + sigma**2
        difference = x[:, None] - self.means
        distance = (difference.abs() ** 2).flatten(2).sum(2)
        share = torch.softmax(self.log_weights - distance / (2 * variance), dim=1).to(x.dtype)
        centre = torch.einsum("bk,k...->b...", share, self.means)
        return x + sigma**2 / variance * (centre - x)


def by_chunks(function: Callable[..., Tensor], rows: int, *tensors: Tensor) -> Tensor:
    """``function(*tensors)``, whose rows do not depend on one another, on at most ``rows`` rows at a time.

    Where a gradient is wanted each chunk runs again in the backward pass, a third more time for a network,
    so that the activations of one chunk are kept and not those of all; the values are the same.
    """
    if len(tensors[0]) <= rows:
        return function(*tensors)
    traced = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    parts = []
    for part in zip(*(tensor.split(rows) for tensor in tensors), strict=True):
        if traced:
            parts.append(checkpoint(function, *part, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(function(*part))
    return torch.cat(parts)
