"""An operator as a physics of deepinv, which is imported only when a physics is made: it costs seconds."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from .errors import OperatorError


def to_deepinv(operator: Any) -> Any:
    """A linear ``operator`` as a noise-free ``deepinv.physics.LinearPhysics``.

    Complex images and measurements become two real channels: (B, 1, H, W) -> (B, 2, H, W) and multi-coil
    k-space (B, coils, H, W) -> (B, 2, coils, H, W). Moves with ``.to(device | dtype)`` and clones as any
    physics; its parameters are the operator's and cannot be updated.
    """
    return physics_class()(operator)


@cache
def physics_class() -> type:
    """The class of `to_deepinv`'s physics, made when first needed so that deepinv is not imported before."""
    from deepinv.physics import LinearPhysics

    class OperatorPhysics(LinearPhysics):
        """A noise-free physics around an operator; see `to_deepinv`."""

        operator: Any = None  # set after the module exists; never a buffer: it may be sparse

        def __init__(self, operator: Any):
            shape = operator.domain
            if operator.complex_domain:
                shape = tuple(
                    two_channels(torch.empty(1, *shape, dtype=torch.complex64, device="meta")).shape[1:]
                )
            super().__init__(img_size=shape, device=operator.device)
            self.operator = operator

        def A(self, x: Tensor, **parameters: Any) -> Tensor:
            refuse(parameters)
            a = self.operator
            return two_channels(a.forward(from_two_channels(x, a.domain, a.complex_domain)))

        def A_adjoint(self, y: Tensor, **parameters: Any) -> Tensor:
            refuse(parameters)
            a = self.operator
            return two_channels(a.adjoint(from_two_channels(y, a.codomain, a.complex_codomain)))

        def A_adjoint_A(self, x: Tensor, **parameters: Any) -> Tensor:
            refuse(parameters)
            a = self.operator
            return two_channels(a.normal(from_two_channels(x, a.domain, a.complex_domain)))

        def _apply(self, fn: Any, recurse: bool = True) -> Any:
            super()._apply(fn, recurse)
            if self.operator is not None:
                moved = fn(torch.zeros((), dtype=self.operator.dtype, device=self.operator.device))
                self.operator = self.operator.to(moved.device).to(moved.dtype)
            return self

    def refuse(parameters: dict[str, Any]) -> None:
        if parameters:
            raise OperatorError(
                f"This physics was given {', '.join(parameters)}.",
                "It wraps an operator, whose parameters do not change.",
                "Build another operator and wrap that.",
            )

    return OperatorPhysics


def to_precision(t: Tensor, dtype: torch.dtype) -> Tensor:
    """``t`` in the precision of ``dtype``: complex stays complex, real stays real."""
    return t.to(dtype.to_complex() if t.is_complex() else dtype.to_real())


def two_channels(t: Tensor) -> Tensor:
    """Complex (B, 1, ...) -> real (B, 2, ...), complex (B, C, ...) -> (B, 2, C, ...); real stays."""
    if not t.is_complex():
        return t
    t = t[:, 0] if t.shape[1] == 1 else t
    return torch.stack((t.real, t.imag), 1)


def from_two_channels(t: Tensor, shape: tuple[int, ...], is_complex: bool) -> Tensor:
    """The inverse of `two_channels`: real channels -> complex (B, *shape); real stays."""
    return torch.complex(t[:, 0], t[:, 1]).reshape(len(t), *shape) if is_complex else t
