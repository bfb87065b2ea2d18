"""What was measured: ``y = A x + n``, ``n ~ N(0, sigma_y^2)`` per real component."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import cast

import torch
from torch import Tensor

from operators.base import Linear, Operator
from operators.errors import OperatorError
from operators.krylov import cg
from operators.per_image import PerImage
from operators.usable import refuse_unusable
from operators.whitened import whitened

from .actions import Actions, core, offered, parts, with_core
from .errors import ConfigError

NEAR_STEPS = 3  # of conjugate gradients, once a problem: from then on a residual costs one product with A^H A


@dataclass(frozen=True, eq=False, init=False)
class Problem:
    """An operator, its measurements y (B, *A.codomain), and their noise.

    ``sigma`` is the standard deviation of the noise PER REAL COMPONENT in the units of y: complex
    measurements have ``E|n|^2 = 2 sigma^2``. Where A measures nothing, y is set to zero, so full k-space
    will do beside a mask. Refused: a y of another shape or kind, on another device, with NaN or
    infinity; a negative sigma.

    A tensor (*A.codomain) or (B, *A.codomain) is the standard deviation of each measurement, infinite where it says
    nothing. The problem is then whitened, for every sampler: A and y are divided by it (`operators.whitened`), and
    ``sigma`` is 1; ``A``, ``y`` and residuals are those of the whitened problem, as in weighted least squares.
    """

    A: Operator
    y: Tensor
    sigma: float

    def __init__(self, A: Operator, y: Tensor, sigma: float | Tensor = 0.0):
        refuse_operator(A, working_dtype(y) if isinstance(y, Tensor) else torch.get_default_dtype())
        if not isinstance(y, Tensor) or tuple(y.shape[1:]) != tuple(A.codomain):
            given = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ConfigError(
                f"y is {given}.",
                f"{A!r} measures (batch, {', '.join(map(str, A.codomain))}).",
                "Add the batch axis with y[None], or build the operator for this size.",
            )
        if y.is_complex() != A.complex_codomain:
            raise ConfigError(
                f"y is {y.dtype}.",
                f"{A!r} gives {'complex' if A.complex_codomain else 'real'} measurements.",
                "Build the operator for the other kind of images, or convert y.",
            )
        if not (y.is_floating_point() or y.is_complex()):
            raise ConfigError(
                f"y is {y.dtype}.", "Measurements are floating-point numbers.", "Convert with y.float()."
            )
        if len(y) == 0:
            raise ConfigError("y holds no image.", f"Its shape is {tuple(y.shape)}.", "Give it at least one.")
        if y.device.type != A.device.type and A._tensors():
            raise ConfigError(
                f"y is on {y.device}, the operator on {A.device}.",
                "They are multiplied with each other.",
                "Move one with .to(device).",
            )
        refuse_no_numbers("y", y)
        if isinstance(sigma, Tensor) and sigma.ndim:
            A, y, sigma = whitened_problem(A, y, sigma)
        if not (is_real(sigma) and math.isfinite(sigma) and sigma >= 0):
            raise ConfigError(
                f"sigma is {sigma!r}.",
                "It is a standard deviation, in the units of y.",
                "Give that of the noise per real component, or 0 for none.",
            )
        object.__setattr__(self, "A", A)
        object.__setattr__(self, "sigma", float(sigma))
        object.__setattr__(self, "y", A.masked(y))

    @cached_property
    def backprojection(self) -> Tensor:
        """``A^H y`` (B, *domain) of a linear A, computed once."""
        with torch.no_grad():
            return cast(Linear, self.A).adjoint(self.y)

    def residual(self, x: Tensor) -> Tensor:
        """``||A x - y|| / (sigma sqrt(m))`` (rows,), m real measurements an image; about 1 at the truth. For sigma 0: relative to ``||y||``.

        x (rows, *domain), as many rows as y.
        """
        if isinstance(self.A, Linear) and self.A.normal_is_cheap:
            near, pull, power = self._near
            away = x - near
            squared = inner64(away, self.A.normal(away) - 2 * pull) + power
            difference = squared.clamp_min(0).sqrt()
        else:
            difference = norm(self.A.forward(x) - self.y)
        if self.sigma == 0:
            return difference / norm(self.y).clamp_min(torch.finfo(difference.dtype).tiny)
        return difference / (self.sigma * math.sqrt(max(self.measurements, 1)))

    @cached_property
    def _near(self) -> tuple[Tensor, Tensor, Tensor]:
        """An image z near the data, ``A^H (y - A z)`` and ``||y - A z||^2`` a row.

        ``||A x - y||^2 = <x - z, A^H A (x - z) - 2 A^H (y - A z)> + ||y - A z||^2``. With z = 0 the terms are as
        large as ``||y||^2`` and cancel to what is left at a solution, which takes float32 all its digits.
        """
        A = cast(Linear, self.A)
        with torch.no_grad():
            near = cg(A.normal, self.backprojection, steps=NEAR_STEPS, tol=0)
            left = self.y - A.forward(near)
            return near, A.adjoint(left), inner64(left, left)

    @property
    def measurements(self) -> int:
        """How many real numbers are measured of one image."""
        return self.A.measured * (2 if self.A.complex_codomain else 1)

    def precomputed(self) -> Problem:
        """Itself, with what all samples of an image share computed: ``A^H y``, and whatever residuals start from."""
        if self.A.linear:
            _ = self.backprojection
            if isinstance(self.A, Linear) and self.A.normal_is_cheap:
                _ = self._near
        return self

    def repeated(self, samples: int) -> Problem:
        """The same measurements for ``samples`` rows an image, image-major: y (B * samples, *codomain), A as it is.

        What is computed already (`precomputed`) is repeated too, not computed again.
        """
        if samples == 1:
            return self
        rows = Problem(self.A, self.y.repeat_interleave(samples, dim=0), self.sigma)
        if "backprojection" in vars(self):
            vars(rows)["backprojection"] = self.backprojection.repeat_interleave(samples, dim=0)
        if "_near" in vars(self):
            vars(rows)["_near"] = tuple(t.repeat_interleave(samples, dim=0) for t in self._near)
        return rows

    def acquire(self, chosen: Tensor, values: Tensor, actions: Actions | str | None = None) -> Problem:
        """The problem with more measured: lines, points or views that were not measured before.

        ``chosen`` (B, *shape) bool marks the new actions of every image (`recon.actions`; (B, 1, 1, W) for
        the columns of MRI); ``values`` (B, *codomain) are measurements of full size, read where chosen.
        y has B rows, or S for each of B images in turn. Raises `ConfigError` for shapes or kinds that do
        not fit, and for what is measured already.
        """
        offer = offered(self.A, actions)
        images, operators = len(chosen), parts(self.A)
        if images == 0 or len(self.y) % images or len(operators) not in (1, images):
            raise ConfigError(
                f"{images} images were chosen for.",
                f"y has {len(self.y)} rows, and {self.A!r} holds {len(operators)} images.",
            )
        own = operators if len(operators) == images else operators * images
        taken = torch.stack([offer.taken(core(A)) for A in operators])
        chosen = chosen.cpu()
        if chosen.dtype != torch.bool or chosen.shape[1:] != taken.shape[1:]:
            raise ConfigError(
                f"chosen is {tuple(chosen.shape)} {chosen.dtype}.",
                f"The {offer.name} of {self.A!r} are marked by (images, {', '.join(map(str, taken.shape[1:]))}) bool.",
            )
        if (taken & chosen).any():
            raise ConfigError(f"Some of the {offer.name} are measured already.", "Each is measured once.")
        wanted = (images, *offer.full(core(operators[0])).codomain)
        if tuple(values.shape) != wanted or values.is_complex() != self.y.is_complex():
            raise ConfigError(
                f"The new measurements are {tuple(values.shape)} {values.dtype}.",
                f"They are {wanted}, {'complex' if self.y.is_complex() else 'real'}: of full size, read where chosen.",
            )
        rows = len(self.y) // images
        spread = [offer.spread(core(A), y) for A, y in zip(own, self.y.split(rows), strict=True)]
        new = chosen.to(self.y.device)[:, None], values.to(self.y)[:, None], torch.stack(spread)
        everything = torch.where(*new)
        if len(operators) == 1 and (chosen == chosen[:1]).all():  # one operator does for all
            own, taken, chosen = own[:1], taken[:1], chosen[:1]
            everything = everything.flatten(0, 1)[None]
        larger = [
            with_core(A, offer.measuring(core(A), mask)) for A, mask in zip(own, taken | chosen, strict=True)
        ]
        y = torch.cat([offer.kept(core(A), part) for A, part in zip(larger, everything, strict=True)])
        A = larger[0] if len(larger) == 1 else PerImage(tuple(cast(list[Linear], larger)))
        return Problem(A, y, self.sigma)


def refuse_operator(A: object, dtype: torch.dtype) -> None:
    """`refuse_unusable` as a `ConfigError`."""
    try:
        refuse_unusable(A, dtype)
    except OperatorError as error:
        raise ConfigError(error.what, error.why, error.do) from error


def whitened_problem(A: Operator, y: Tensor, sigma: Tensor) -> tuple[Operator, Tensor, float]:
    """``A / sigma``, ``y / sigma`` and 1, for a standard deviation of each measurement; raises `ConfigError`."""
    if sigma.ndim == y.ndim and len(sigma) not in (1, len(y)):
        raise ConfigError(
            f"sigma is {tuple(sigma.shape)}.", f"y holds {len(y)} images.", "Give as many, or one."
        )
    try:
        white = whitened(A, sigma.detach().to(y.device))
    except OperatorError as error:
        raise ConfigError(error.what, error.why, error.do) from error
    return white, y / sigma.to(y.device, y.dtype.to_real()), 1.0


def is_real(value: object) -> bool:
    """Whether a value is one real number, of Python, NumPy or torch."""
    if isinstance(value, Tensor):
        return value.ndim == 0 and not value.is_complex() and value.device.type != "meta"
    return isinstance(value, Real) and not isinstance(value, bool)


def working_dtype(y: Tensor) -> torch.dtype:
    """The real precision in which y is solved: float32 for half precision."""
    real = y.dtype.to_real()
    return real if real in (torch.float32, torch.float64) else torch.float32


def refuse_no_numbers(name: str, given: Tensor) -> None:
    """Raise `ConfigError` for a tensor with NaN or infinity, or on a device that holds no numbers."""
    if given.device.type == "meta":
        raise ConfigError(
            f"{name} is on {given.device}.", "That device holds no numbers.", "Move it where they are."
        )
    if not torch.isfinite(torch.view_as_real(given) if given.is_complex() else given).all():
        raise ConfigError(
            f"{name} contains NaN or infinity.",
            "No reconstruction of it would mean anything.",
            "Find out where the acquisition broke; mask what is missing in the operator instead.",
        )


def norm(x: Tensor) -> Tensor:
    """Euclidean norm of each row, (rows,), real, in the precision of x."""
    return (torch.view_as_real(x) if x.is_complex() else x).flatten(1).norm(dim=1)


def inner64(a: Tensor, b: Tensor) -> Tensor:
    """``Re <a, b>`` of each row, (rows,) float64: summed in float64, so that differences of large sums keep their digits."""
    same = a is b
    if a.is_complex():
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    wide = a.to(torch.float64, copy=True)  # the one copy that is made, and multiplied in place
    return wide.mul_(wide if same else b).flatten(1).sum(1)
