"""Operators made of operators: ``A @ B``, ``A + B``, ``c * A``, ``A.H``, ``A.N``; identity and scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from .base import Linear, Operator
from .errors import OperatorError


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
        return (self.inner if isinstance(self.outer, Scale) else self.outer).masked(y)

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


@dataclass(frozen=True, eq=False, repr=False)
class PerImage(Linear):
    """Several images in one batch, each under its own operator: rows b S ... (b + 1) S - 1 under ``operators[b]``.

    The operators share domain and codomain; a batch holds the same number S of rows for each image.
    """

    operators: tuple[Linear, ...]

    def __post_init__(self):
        if any(a.images > 1 for a in self.operators):
            raise OperatorError("PerImage was given a PerImage.", do="Give it all operators in one tuple.")
        kinds = {(tuple(a.domain), a.complex_domain, a.codomain, a.complex_codomain) for a in self.operators}
        if len(kinds) != 1:
            raise OperatorError(
                f"PerImage was given {len(self.operators)} operators of {len(kinds)} kinds.",
                "All images of a batch need one domain and one codomain, and there is at least one.",
                "Reconstruct images of different sizes one after another.",
            )

    @property
    def domain(self) -> tuple[int, ...]:
        return self.operators[0].domain

    @property
    def complex_domain(self) -> bool:
        return self.operators[0].complex_domain

    @property
    def codomain(self) -> tuple[int, ...]:
        return self.operators[0].codomain

    @property
    def complex_codomain(self) -> bool:
        return self.operators[0].complex_codomain

    @property
    def measured(self) -> int:
        return sum(a.measured for a in self.operators) // len(self.operators)

    def masked(self, y: Tensor) -> Tensor:
        return torch.cat([a.masked(r) for a, r in zip(self.operators, self._split(y), strict=True)])

    @property
    def images(self) -> int:
        return len(self.operators)

    def _split(self, rows: Tensor) -> tuple[Tensor, ...]:
        if len(rows) == 0 or len(rows) % self.images:
            raise OperatorError(
                f"PerImage was given {len(rows)} rows for {self.images} images.",
                "Rows are image by image, the same number for each.",
                "Repeat each image's rows with repeat_interleave.",
            )
        return rows.split(len(rows) // self.images)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([a.forward(r) for a, r in zip(self.operators, self._split(x), strict=True)])

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.cat([a.adjoint(r) for a, r in zip(self.operators, self._split(y), strict=True)])

    def normal(self, x: Tensor) -> Tensor:
        return torch.cat([a.normal(r) for a, r in zip(self.operators, self._split(x), strict=True)])

    def solve_normal(self, b: Tensor, weight: float) -> Tensor | None:
        parts = [a.solve_normal(r, weight) for a, r in zip(self.operators, self._split(b), strict=True)]
        solved = [part for part in parts if part is not None]
        return torch.cat(solved) if len(solved) == len(parts) else None

    def __repr__(self) -> str:
        return f"PerImage({', '.join(map(repr, self.operators))})"


def compose(outer: Operator, inner: Operator) -> Operator:
    """``outer @ inner``; raises `OperatorError` where the inner's codomain is not the outer's domain."""
    if tuple(inner.codomain) != tuple(outer.domain) or inner.complex_codomain != outer.complex_domain:
        raise OperatorError(
            f"Cannot compose {outer!r} @ {inner!r}.",
            f"The right one gives {describe(inner.codomain, inner.complex_codomain)}, the left one "
            f"takes {describe(outer.domain, outer.complex_domain)}.",
        )
    return (LinearChain if outer.linear and inner.linear else Chain)(outer, inner)


def multiply(factor: float | complex, operator: Linear) -> Linear:
    """``factor * A``: the scale acts on the measurements where A's images are real, else on the images."""
    if isinstance(operator.complex_domain, bool) and operator.complex_domain:
        return LinearChain(operator, Scale(factor, tuple(operator.domain), True))
    return LinearChain(Scale(factor, operator.codomain, operator.complex_codomain), operator)


def describe(shape: tuple[int, ...], is_complex: bool) -> str:
    return f"{'complex' if is_complex else 'real'} (batch, {', '.join(map(str, shape))})"
