"""Whether an operator of a user's own can be used at all: what it says of itself, and whether it keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .base import Linear, Operator
from .errors import OperatorError


def refuse_unusable(A: Any, dtype: torch.dtype) -> None:
    """Raise `OperatorError` for an ``A`` that measures nothing, is not what it says, or not in the real precision ``dtype``.

    Looked at are the operators in ``A`` that are not defined here; each once forward, a linear one a few times more.
    """
    if not isinstance(A, Operator):
        raise OperatorError(
            f"A is a {type(A).__name__}, not an operator.",
            "An operator knows the shape of its images, and how they are measured.",
            "Write a subclass of operators.Linear with domain and forward, or convert: operators.from_deepinv(physics).",
        )
    for own in foreign(A):
        refuse_domain(own)
        measured_zero(own, own.dtype)
        if dtype != own.dtype:
            refuse_precision(own, dtype)
        if isinstance(own, Linear) and own._broken_law:
            raise OperatorError(
                f"{own!r} is declared linear, and is not.",
                own._broken_law,
                "Take a constant from y instead; derive from operators.Operator what is not linear; operators.check finds more.",
            )


def foreign(A: Operator) -> Iterator[Operator]:
    """The operators in ``A``, itself among them, whose classes are not of this project."""
    if type(A).__module__.partition(".")[0] not in ("operators", "recon"):
        yield A
    for value in vars(A).values():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Operator):
                yield from foreign(item)


def refuse_domain(A: Operator) -> None:
    """Raise `OperatorError` where ``domain`` is no shape."""
    domain = getattr(A, "domain", None)
    if not isinstance(domain, tuple) or not domain or not all(isinstance(n, int) and n > 0 for n in domain):
        raise OperatorError(
            f"{type(A).__name__} has {'no domain' if domain is None else f'the domain {domain!r}'}.",
            "It is the shape of one image without the batch axis, as a tuple.",
            "Add domain = (1, H, W).",
        )


def refuse_precision(A: Operator, dtype: torch.dtype) -> None:
    """Raise `OperatorError` where A cannot take images of the real precision ``dtype``, or does not keep it."""
    try:
        kept = measured_zero(A, dtype).dtype.to_real()
    except OperatorError as error:
        why = error.why
    else:
        why = "" if kept == dtype else f"It gives {kept} for {dtype}."
    if why:
        short = str(dtype).removeprefix("torch.")
        raise OperatorError(
            f"{A!r} holds {A.dtype} and cannot measure {dtype}, in which y is.",
            why,
            f"Convert one: y.to({A.dtype}), or the operator with A.to(torch.{short}).",
        )


def measured_zero(A: Operator, dtype: torch.dtype) -> Tensor:
    """``A 0`` in a real precision; raises `OperatorError` where forward does not get there."""
    given = A._zeros(A.images, dtype, A.device)
    try:
        with torch.no_grad():
            found = A._zero_measurement if dtype == A.dtype else A.forward(given)
    except OperatorError:
        raise
    except Exception as error:
        said = (str(error).splitlines() or [""])[0]
        raise OperatorError(
            f"{A!r} cannot measure an image.",
            f"forward of zeros {tuple(given.shape)} {given.dtype}: {type(error).__name__}: {said}",
            "Correct domain or forward; operators.check(A) measures all that an operator must keep.",
        ) from error
    if not isinstance(found, Tensor):
        raise OperatorError(f"forward of {A!r} returned a {type(found).__name__}.", "It returns a tensor.")
    return found
