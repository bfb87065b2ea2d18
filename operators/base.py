"""What a forward operator is: a map on batches that knows its domain; linear ones know their adjoint. And their algebra:
``A @ B``, ``A + B``, ``c * A``, ``A.H``, ``A.N``, identity and scale."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, ClassVar

import torch
from torch import Tensor

from .errors import OperatorError
from .physics import to_deepinv

BROKEN = 1e-3  # relative error of a law: far above rounding, far below a mistake
RESERVED = ("H", "N", "forward", "adjoint", "normal", "to", "solve_normal", "codomain")


class Operator:
    """A map ``A: X -> Y`` on tensors with a leading batch axis; immutable.

    A subclass states two things. ``domain``: the shape of one image without the batch axis, such as
    (1, H, W), (1, D, H, W) for a volume. ``forward(x)``: see there. Images are real unless the class
    says ``complex_domain = True``; whether measurements are complex, and their shape ``codomain``, is
    found by applying ``forward`` once to zeros.

    ``images`` is the number of images that have an operator of their own (`PerImage`), 1 otherwise; a
    batch then holds the same number of rows for each, image by image.

    ``lipschitz``, of an operator that is not linear: a bound of ``||A'(x)||`` for the images that occur, by which samplers
    choose the size of a gradient step; None where none is known. Linear ones have `operator_norm`.

    What every method overridden must keep, and `check` measures: the precision and device of its input;
    the input itself, unchanged; rows of a batch independent of one another; differentiable torch calls;
    no random numbers and no state, so that the same input gives the same result.
    """

    domain: tuple[int, ...]
    complex_domain: bool = False
    linear: ClassVar[bool] = False
    lipschitz: float | None = None
    images: int = 1  # a batch holds a multiple of so many rows; more than one only with PerImage

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        taken = [name for name in vars(cls).get("__annotations__", {}) if name in RESERVED]
        if taken:
            raise TypeError(
                f"{cls.__name__}: {', '.join(taken)} cannot be a field, since every operator has a "
                "member of that name. Choose another name for the field."
            )
        cls.__repr__ = cls.__repr__  # its own or inherited: a dataclass would print whole tensors

    def forward(self, x: Tensor) -> Tensor:
        """``A x``: (B, *domain) -> (B, *codomain), for any B.

        ``x`` is real or complex as ``complex_domain`` says, in any precision that the operator's tensors
        can be converted to. Written in differentiable torch calls, since samplers and the adjoint
        differentiate it; x is left as it is. Not checked here: calling ``A(x)`` checks shape and kind.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define forward(self, x).")

    def __call__(self, x: Tensor) -> Tensor:
        """``A x`` after a check of shape and kind; raises `OperatorError`."""
        self._require(x, self.domain, self.complex_domain, "image")
        return self.forward(x)

    def _require(self, x: Tensor, shape: tuple[int, ...], is_complex: bool, what: str) -> None:
        if not isinstance(x, Tensor):
            raise OperatorError(
                f"{type(self).__name__} was given a {type(x).__name__}, not a tensor.",
                do="Convert it: torch.as_tensor(x).",
            )
        if tuple(x.shape[1:]) != tuple(shape):
            raise OperatorError(
                f"{type(self).__name__} was given {what}s of shape {tuple(x.shape)}.",
                f"It takes (batch, {', '.join(map(str, shape))}).",
                "Add the batch axis with x[None], or build the operator for this size.",
            )
        if x.is_complex() != is_complex:
            kind, other = ("complex", "real") if is_complex else ("real", "complex")
            raise OperatorError(
                f"{type(self).__name__} takes {kind} {what}s and was given {other} ones ({x.dtype}).",
                do="Convert with torch.complex(x, zeros_like(x)), or take x.real."
                if is_complex
                else "Take x.real or x.abs().",
            )

    @cached_property
    def codomain(self) -> tuple[int, ...]:
        """Shape of one measurement, without the batch axis."""
        return tuple(self._zero_measurement.shape[1:])

    @property
    def measured(self) -> int:
        """How many numbers of one measurement (complex ones count once) are measured: all of ``codomain``, or what a mask lets through."""
        return math.prod(self.codomain)

    def masked(self, y: Tensor) -> Tensor:
        """``y`` (B, *codomain) with zeros where nothing is measured; y itself for operators without a mask.

        A projection: ``masked(A x) = A x``, and ``A^H masked(y) = A^H y`` of a linear A. What a nonlinear operator can
        never give may be taken off in the same way: values that a sensor clips.
        """
        return y

    @cached_property
    def complex_codomain(self) -> bool:
        """Whether measurements are complex."""
        return self._zero_measurement.is_complex()

    @cached_property
    def _zero_measurement(self) -> Tensor:
        """``A 0`` for the smallest batch; fixes shape and kind of the codomain."""
        with torch.no_grad():
            return self.forward(self._zeros(self.images, self.dtype, self.device))

    def _zeros(self, batch: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        dtype = dtype.to_complex() if self.complex_domain else dtype.to_real()
        return torch.zeros(batch, *self.domain, dtype=dtype, device=device)

    @property
    def dtype(self) -> torch.dtype:
        """Real dtype of the operator's own tensors; float32 where it has none."""
        kinds = [t.dtype.to_real() for t in self._tensors() if t.is_floating_point() or t.is_complex()]
        return kinds[0] if kinds else torch.get_default_dtype()

    @property
    def device(self) -> torch.device:
        """Device of the operator's own tensors; the processor where it has none."""
        return next((t.device for t in self._tensors()), torch.device("cpu"))

    def _tensors(self) -> list[Tensor]:
        found: list[Tensor] = []
        for name, value in vars(self).items():
            if not is_cache(type(self), name):
                for item in value if isinstance(value, tuple) else (value,):
                    if isinstance(item, Operator):
                        found += item._tensors()
                    elif isinstance(item, Tensor):
                        found.append(item)
        return found

    def to(self, target: torch.device | torch.dtype | str) -> Any:
        """The same operator on a device, or in a precision: float64 takes complex64 to complex128."""
        other = copy.copy(self)
        for name in [n for n in vars(other) if is_cache(type(self), n)]:
            del other.__dict__[name]
        for name, value in vars(other).items():
            if isinstance(value, tuple):
                other.__dict__[name] = tuple(converted(item, target) for item in value)
            else:
                other.__dict__[name] = converted(value, target)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Operator:
        """Itself: it never changes, and sparse tensors have no deep copy."""
        return self

    def __matmul__(self, inner: Operator) -> Operator:
        """``A @ B``: first B, then A."""
        return compose(self, inner)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(domain={getattr(self, 'domain', None)})"


class Linear(Operator):
    """A linear operator: ``forward`` is enough, the adjoint follows by autograd.

    ``<A x, y> = <x, A^H y>`` in the real inner product ``Re sum conj(a) b``. An operator with a real
    domain and a complex codomain has adjoint ``Re(A^H y)``. A subclass may override ``adjoint``,
    ``normal`` (``A^H A``) and ``solve_normal`` where it has something faster; `check` compares.
    """

    linear: ClassVar[bool] = True
    normal_is_cheap: ClassVar[bool] = False  # cheaper than forward, as for MRI with masks of whole lines

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^H y``: (B, *codomain) -> (B, *domain), in the precision of y and differentiable in it.

        By autograd here, which costs a forward and a backward pass. An override computes the same, its own
        derivative being A, and leaves y as it is.
        """
        differentiable = torch.is_grad_enabled() and y.requires_grad
        with torch.enable_grad():
            x = self._zeros(len(y), y.dtype, y.device).requires_grad_()
            (gradient,) = torch.autograd.grad(self.forward(x), x, y, create_graph=differentiable)
        return gradient

    def normal(self, x: Tensor) -> Tensor:
        """``A^H A x``: (B, *domain) -> (B, *domain), differentiable in x; override it where it is cheaper than both."""
        return self.adjoint(self.forward(x))

    def solve_normal(self, b: Tensor, weight: float) -> Tensor | None:
        """``(A^H A + weight I)^-1 b`` (B, *domain) in closed form, weight > 0, or None where the operator has none.

        Differentiable in b, which is left as it is. Who calls it takes conjugate gradients after a None. The relative rounding error is about eps ||A||^2 / weight: for small weights, form b in float64.
        """
        return None

    @cached_property
    def _broken_law(self) -> str:
        """What forward and adjoint break of a linear operator's laws, found once with random images; nothing if they keep them."""
        draw = torch.Generator().manual_seed(0)

        def probe(shape: tuple[int, ...], is_complex: bool) -> Tensor:
            dtype = self.dtype.to_complex() if is_complex else self.dtype
            return torch.randn(self.images, *shape, dtype=dtype, generator=draw).to(self.device)

        with torch.no_grad():
            x, z = (probe(self.domain, self.complex_domain) for _ in range(2))
            y = probe(self.codomain, self.complex_codomain)
            both = self.forward(torch.stack((x, z), 1).flatten(0, 1))  # image-major
            if len(both) != 2 * self.images:
                return f"forward of {2 * self.images} images gives {tuple(both.shape)}: the first axis is that of the images."
            image, other = both[::2], both[1::2]
            size = image.norm() + other.norm()
            if not self._zero_measurement.norm() <= BROKEN * size:
                return "A 0 is not 0: forward adds a constant."
            if not (self.forward(x - 2 * z) - image + 2 * other).norm() <= BROKEN * size:
                return "A (x - 2 z) is not A x - 2 A z."
            back = self.adjoint(y)
            difference = ((image.conj() * y).real.sum() - (x.conj() * back).real.sum()).abs()
            kept = difference <= BROKEN * (image.norm() * y.norm() + x.norm() * back.norm())
        return "" if kept else "<A x, y> is not <x, A^H y>: adjoint is not that of forward."

    @property
    def H(self) -> Linear:
        """The adjoint as an operator."""
        return Adjoint(self)

    @property
    def N(self) -> Linear:
        """``A^H A`` as an operator."""
        return Normal(self)

    def __add__(self, other: Linear) -> Linear:
        return Sum((self, other))

    def __mul__(self, factor: float | complex) -> Linear:
        return multiply(factor, self)

    __rmul__ = __mul__

    def __neg__(self) -> Linear:
        return self * -1.0

    def __sub__(self, other: Linear) -> Linear:
        return self + -other

    def as_deepinv(self) -> Any:
        """This operator as a ``deepinv.physics.LinearPhysics``, in deepinv's conventions."""
        return to_deepinv(self)


@dataclass(frozen=True, eq=False, repr=False)
class Adjoint(Linear):
    """``A^H`` as an operator; its adjoint is ``A``."""

    inner: Linear

    @property
    def domain(self) -> tuple[int, ...]:
        return self.inner.codomain

    @property
    def images(self) -> int:
        return self.inner.images

    @property
    def complex_domain(self) -> bool:
        return self.inner.complex_codomain

    @property
    def H(self) -> Linear:
        return self.inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner.adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.forward(y)

    def __repr__(self) -> str:
        return f"{self.inner!r}.H"


@dataclass(frozen=True, eq=False, repr=False)
class Normal(Linear):
    """``A^H A`` as an operator; its own adjoint."""

    inner: Linear

    @property
    def domain(self) -> tuple[int, ...]:
        return self.inner.domain

    @property
    def images(self) -> int:
        return self.inner.images

    @property
    def complex_domain(self) -> bool:
        return self.inner.complex_domain

    @property
    def H(self) -> Linear:
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.inner.normal(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.normal(y)

    def __repr__(self) -> str:
        return f"{self.inner!r}.N"


@dataclass(frozen=True, eq=False, repr=False)
class Chain(Operator):
    """``outer(inner(x))`` where at least one of the two is not linear."""

    outer: Operator
    inner: Operator

    @property
    def domain(self) -> tuple[int, ...]:
        return self.inner.domain

    @property
    def images(self) -> int:
        return math.lcm(self.outer.images, self.inner.images)

    @property
    def complex_domain(self) -> bool:
        return self.inner.complex_domain

    @property
    def measured(self) -> int:
        return self.outer.measured

    def masked(self, y: Tensor) -> Tensor:
        """Through a scale on the left."""
        if not isinstance(self.outer, Scale):
            return self.outer.masked(y)
        factor = 1 if self.inner.linear else self.outer.factor or 1
        return factor * self.inner.masked(y / factor)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer.forward(self.inner.forward(x))

    def __repr__(self) -> str:
        return f"{self.outer!r} @ {self.inner!r}"


class LinearChain(Chain, Linear):
    """``A B x``; adjoint ``B^H A^H y``, normal ``B^H (A^H A) B x``."""

    outer: Linear
    inner: Linear

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))

    def normal(self, x: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.normal(self.inner.forward(x)))

    def solve_normal(self, b: Tensor, weight: float) -> Tensor | None:
        """Through a scale on either side: ``(|c|^2 A^H A + w I)^-1 b``."""
        if isinstance(self.inner, Scale):
            scale, other = self.inner, self.outer
        elif isinstance(self.outer, Scale):
            scale, other = self.outer, self.inner
        else:
            return None
        power = abs(scale.factor) ** 2
        return b / weight if power == 0 else other.solve_normal(b / power, weight / power)


@dataclass(frozen=True, eq=False, repr=False)
class Sum(Linear):
    """``(A + B + ...) x`` of operators on one domain with one codomain."""

    terms: tuple[Linear, ...]

    def __post_init__(self):
        shapes = {(t.domain, t.complex_domain, t.codomain) for t in self.terms}
        if len(shapes) > 1:
            raise OperatorError(
                f"Cannot add {' and '.join(map(repr, self.terms))}.",
                "A sum needs one domain and one codomain.",
            )

    @property
    def domain(self) -> tuple[int, ...]:
        return self.terms[0].domain

    @property
    def images(self) -> int:
        return math.lcm(*(t.images for t in self.terms))

    @property
    def complex_domain(self) -> bool:
        return self.terms[0].complex_domain

    def forward(self, x: Tensor) -> Tensor:
        return reduce(Tensor.add, (t.forward(x) for t in self.terms))

    def adjoint(self, y: Tensor) -> Tensor:
        return reduce(Tensor.add, (t.adjoint(y) for t in self.terms))

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.terms))


@dataclass(frozen=True, eq=False, repr=False)
class Scale(Linear):
    """``factor * x`` on images of shape ``domain``; ``A @ Scale(s, A.domain)`` absorbs units into A."""

    factor: float | complex
    domain: tuple[int, ...]
    complex_domain: bool = False

    def __post_init__(self):
        if isinstance(self.factor, complex) and not self.complex_domain:
            raise OperatorError(
                f"Scale({self.factor}) on real images.",
                "A complex factor takes real images to complex ones.",
                "Use complex_domain=True, or a real factor.",
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x

    def adjoint(self, y: Tensor) -> Tensor:
        return self.factor.conjugate() * y

    def solve_normal(self, b: Tensor, weight: float) -> Tensor:
        return b / (abs(self.factor) ** 2 + weight)

    def __repr__(self) -> str:
        return f"Scale({self.factor}, {self.domain})"


class Identity(Scale):
    """``x`` itself, on images of shape ``domain``: denoising."""

    def __init__(self, domain: tuple[int, ...], complex_domain: bool = False):
        super().__init__(1.0, tuple(domain), complex_domain)

    def __repr__(self) -> str:
        return f"Identity({self.domain})"


def compose(outer: Operator, inner: Operator) -> Operator:
    """``outer @ inner``; raises `OperatorError` where the inner's codomain is not the outer's domain."""
    if tuple(inner.codomain) != tuple(outer.domain) or inner.complex_codomain != outer.complex_domain:
        raise OperatorError(
            f"Cannot compose {outer!r} @ {inner!r}.",
            f"The right one gives {batch_description(inner.codomain, inner.complex_codomain)}, the left one "
            f"takes {batch_description(outer.domain, outer.complex_domain)}.",
        )
    return (LinearChain if outer.linear and inner.linear else Chain)(outer, inner)


def multiply(factor: float | complex, operator: Linear) -> Linear:
    """``factor * A``: the scale acts on the measurements where A's images are real, else on the images."""
    if isinstance(operator.complex_domain, bool) and operator.complex_domain:
        return LinearChain(operator, Scale(factor, tuple(operator.domain), True))
    return LinearChain(Scale(factor, operator.codomain, operator.complex_codomain), operator)


def batch_description(shape: tuple[int, ...], is_complex: bool) -> str:
    """Such as "complex (batch, 1, 8, 8)", for messages."""
    return f"{'complex' if is_complex else 'real'} (batch, {', '.join(map(str, shape))})"


def is_cache(kind: type, name: str) -> bool:
    """Whether an instance attribute is the stored value of a ``cached_property``."""
    return isinstance(getattr(kind, name, None), cached_property)


def converted(value: Any, target: torch.device | torch.dtype | str) -> Any:
    """A field on another device or in another precision; what is not a number stays as it is."""
    if isinstance(value, Operator):
        return value.to(target)
    if not isinstance(value, Tensor):
        return value
    if not isinstance(target, torch.dtype):
        return value.to(target)
    if value.is_complex():
        return value.to(target.to_complex())
    return value.to(target.to_real()) if value.is_floating_point() else value
