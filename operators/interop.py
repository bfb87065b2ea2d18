"""A physics of deepinv as an operator; deepinv is imported only when one is given."""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from torch import Tensor

from .base import Linear
from .errors import OperatorError
from .per_image import PerImage
from .physics import physics_class, to_precision


def from_deepinv(physics: Any, domain: tuple[int, ...]) -> Linear:
    """A ``deepinv.physics.LinearPhysics`` as an operator on images of shape ``domain``.

    Images keep deepinv's shape, real; those of its MRI family become complex, (2, H, W) -> (1, H, W),
    with k-space (B, coils, H, W); either shape is accepted as ``domain``. Stacked measurements become
    one vector a row. Noise is left out. The physics is cloned, then never changed: later changes to
    the original do not show. Data are converted to the precision of the physics and back; build the
    physics in float64 for float64 results. A physics with one mask, filter or set of maps for each of n
    images becomes a `PerImage` of n operators.

    Two things are measured here once: where its adjoint is not that of its ``A``, autograd's takes its
    place, and where it does not take a batch, rows go one at a time. Raises `OperatorError` for a
    physics that is not linear, not of this size, for n images in a way that does not come apart, or whose ``A``
    even autograd transposes wrongly.
    """
    from deepinv.physics import LinearPhysics
    from deepinv.utils.mixins import MRIMixin

    if not isinstance(physics, LinearPhysics):
        raise OperatorError(
            f"from_deepinv was given a {type(physics).__name__}.",
            "It takes a deepinv.physics.LinearPhysics: samplers need an adjoint.",
            "For a nonlinear map, subclass operators.Operator.",
        )
    if isinstance(physics, physics_class()):
        return physics.operator
    as_complex = isinstance(physics, MRIMixin)
    domain = tuple(domain)
    if as_complex and domain[0] == 2:
        domain = (1, *domain[1:])
    images = images_of(physics, (2, *domain[1:]) if as_complex else domain)
    if images == 1:
        return FromDeepinv(physics, domain, as_complex)
    parts = tuple(FromDeepinv(part, domain, as_complex) for part in one_by_one(physics, images))
    together, probe = (
        copy(parts[0]),
        parts[0]._probe(parts[0]._zeros(images, parts[0].dtype, parts[0].device)),
    )
    together.physics = physics.clone()
    if not close(PerImage(parts).forward(probe), together._forward(probe)):
        raise OperatorError(
            f"{type(physics).__name__} is for {images} images.",
            "Cut along their first axis, its parameters do not give the same measurements.",
            "Give one physics for each image: PerImage((from_deepinv(first, domain), from_deepinv(second, domain))).",
        )
    return PerImage(parts)


def images_of(physics: Any, shape: tuple[int, ...]) -> int:
    """How many images of ``shape`` a physics is for: n where its parameters have an entry for each, else 1."""
    lengths = {len(t) for t in (*physics.buffers(), *physics.parameters()) if t.ndim > 1}
    for images in sorted({1} | lengths):
        if measured_rows(physics, images, shape) == images:
            return images
    return 1


def measured_rows(physics: Any, images: int, shape: tuple[int, ...]) -> int | None:
    """The rows of what a physics measures of ``images`` zero images; None where it does not take that many."""
    numbers = [t for t in (*physics.buffers(), *physics.parameters()) if t.is_floating_point()]
    like = numbers[0] if numbers else torch.zeros(())
    try:
        y = physics.clone().A(torch.zeros(images, *shape, dtype=like.dtype, device=like.device))
        return len(y if isinstance(y, Tensor) else y[0])
    except Exception:
        return None


def one_by_one(physics: Any, images: int) -> list[Any]:
    """A physics for several images as one for each: what has a first axis of ``images`` is cut along it."""
    parts = [physics.clone() for _ in range(images)]
    for index, part in enumerate(parts):
        for module in part.modules():
            for held in (module._buffers, module._parameters):
                for name, value in held.items():
                    if value is not None and value.ndim > 1 and len(value) == images:
                        cut = value.detach()[index : index + 1].clone()
                        held[name] = (
                            torch.nn.Parameter(cut, value.requires_grad)
                            if held is module._parameters
                            else cut
                        )
    return parts


class FromDeepinv(Linear):
    """``y = A x`` of a deepinv physics, without its noise and sensor model; see `from_deepinv`."""

    def __init__(self, physics: Any, domain: tuple[int, ...], complex_domain: bool):
        self.physics, self.domain, self.complex_domain = physics.clone(), domain, complex_domain
        self.parts: tuple[tuple[int, ...], ...] = ()
        self.batched, self.own_adjoint = False, True
        x = self._probe(self._zeros(2, self.dtype, self.device))
        try:
            y = self.forward(x)
        except Exception as error:
            raise OperatorError(
                f"{type(physics).__name__}.A failed on images of shape {(1, *domain)}.",
                f"It says: {error}",
                "Give the domain of its images, without the batch axis.",
            ) from error
        if len(y) != len(x):
            raise OperatorError(
                f"{type(physics).__name__}.A measured one image and returned {len(y) // len(x)}.",
                "It has parameters for several images, which cannot be told apart here.",
                "Give one physics for each image: PerImage((from_deepinv(first, domain), from_deepinv(second, domain))).",
            )
        self.batched = self._takes_batches(x, y)
        if not self.batched:
            self.physics = physics.clone()  # what fails may leave the parameters of the physics changed
        self.own_adjoint = self._adjoint_is_exact(x, y)
        if not self.own_adjoint and not self._adjoint_is_exact(x, y):
            raise OperatorError(
                f"{type(physics).__name__}.A_adjoint is not the adjoint of its A, nor is autograd's.",
                "Its A has an approximate derivative of its own, on which no solver converges.",
                "Choose its exact variant (Tomography: adjoint_via_backprop=True), or operators.CT.",
            )

    def _probe(self, like: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(like.ndim)
        return torch.randn(like.shape, dtype=like.dtype, generator=generator).to(like.device)

    def _takes_batches(self, x: Tensor, y: Tensor) -> bool:
        self.batched = True
        try:
            together = self.forward(x)
            back = self.adjoint(y), torch.cat([self.adjoint(row) for row in y.split(1)])
        except Exception:
            return False
        return close(together, y) and close(*back)

    def _adjoint_is_exact(self, x: Tensor, y: Tensor) -> bool:
        """One dot test with zero-mean probes, since non-negative ones hide most of a mismatch."""
        probe = self._probe(y)
        try:
            back = self.adjoint(probe)
        except Exception:
            return False
        left, right = ((a.conj() * b).real.sum() for a, b in ((y, probe), (x, back)))
        size = y.norm() * probe.norm() + x.norm() * back.norm()
        return back.shape == x.shape and bool((left - right).abs() <= 1e-5 * size)

    @property
    def dtype(self) -> torch.dtype:
        return next((t.dtype.to_real() for t in self._numbers()), torch.get_default_dtype())

    @property
    def device(self) -> torch.device:
        """Where the buffers and parameters of the physics are; the CPU if it has none."""
        return next((t.device for t in self._numbers()), torch.device("cpu"))

    def _numbers(self) -> list[Tensor]:
        tensors = (*self.physics.buffers(), *self.physics.parameters())
        return [t for t in tensors if t.is_floating_point() or t.is_complex()]

    def _kind(self, is_complex: bool) -> torch.dtype:
        return self.dtype.to_complex() if is_complex else self.dtype

    def to(self, target: torch.device | torch.dtype | str) -> FromDeepinv:
        """On a device. A precision leaves the physics as built: some of its parts cannot be converted."""
        if isinstance(target, torch.dtype):
            return self
        other = super().to(target)
        other.physics = self.physics.clone().to(target)
        return other

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._forward(rows) for rows in self._rows(x)])

    def adjoint(self, y: Tensor) -> Tensor:
        if not self.own_adjoint:
            return super().adjoint(y)
        return torch.cat([self._adjoint(rows) for rows in self._rows(y)])

    def _rows(self, t: Tensor) -> tuple[Tensor, ...]:
        return (t,) if self.batched else t.split(1)

    def _forward(self, x: Tensor) -> Tensor:
        y = self.physics.A(self._theirs(x))
        if not isinstance(y, Tensor):
            self.parts = self.parts or tuple(tuple(part.shape[1:]) for part in y)
            y = torch.cat([part.flatten(1) for part in y], 1)
        elif self.complex_domain:
            y = torch.complex(*y.unbind(1))
            y = y if self._multicoil else y[:, None]
        return to_precision(y, x.dtype)

    def _adjoint(self, y: Tensor) -> Tensor:
        x = self.physics.A_adjoint(self._theirs(y, measured=True))
        return to_precision(torch.complex(*x.unbind(1))[:, None] if self.complex_domain else x, y.dtype)

    @property
    def _multicoil(self) -> bool:
        from deepinv.physics import MultiCoilMRI

        return isinstance(self.physics, MultiCoilMRI)

    def _theirs(self, t: Tensor, measured: bool = False) -> Any:
        """In the shapes and precision of the physics."""
        t = to_precision(t, self.dtype)
        if measured and self.parts:
            from deepinv.utils import TensorList

            flat = t.split([torch.Size(part).numel() for part in self.parts], 1)
            return TensorList([p.unflatten(1, part) for p, part in zip(flat, self.parts, strict=True)])
        if t.is_complex():
            t = t if measured and self._multicoil else t[:, 0]
            return torch.stack((t.real, t.imag), 1)
        return t

    def __repr__(self) -> str:
        return f"from_deepinv({type(self.physics).__name__}, {self.domain})"


def close(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors agree to 1e-5 of the second one's norm."""
    return a.shape == b.shape and bool((a - b).norm() <= 1e-5 * b.norm())
