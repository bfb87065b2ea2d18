"""Options that one constructor passes on to another, listed by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

Init = TypeVar("Init", bound=Callable[..., Any])


def forwards_to(target: Callable[..., Any]) -> Callable[[Init], Init]:
    """A decorator: in the signature of a function, ``**options`` stands for the keyword-only parameters of ``target``.

    Those that the function names itself are left out. So ``recon list`` and the check of unknown options see
    every name, which is written once.
    """

    def listed(function: Init) -> Init:
        own = inspect.signature(function)
        named = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        passed = [
            p
            for p in inspect.signature(target).parameters.values()
            if p.kind is p.KEYWORD_ONLY and p.name not in own.parameters
        ]
        function.__signature__ = own.replace(parameters=[*named, *passed])  # pyright: ignore[reportFunctionMemberAccess]
        return function

    return listed
