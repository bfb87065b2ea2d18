"""From measurements to images with their uncertainty: ``recon.sample(problem, prior)``.

Names are imported when they are first used, so that ``recon --help`` imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

HOMES = {
    "Problem": "problem",
    "Result": "result",
    "sample": "sampling",
    "SOLVERS": "solvers",
    "POSTERIORS": "posteriors",
    "Active": "posteriors",
    "Ensemble": "posteriors",
    "PRIORS": "networks.load",
    "load_prior": "networks.load",
    "LatentPrior": "latent",
    "Runtime": "runtime",
    "Noise": "noise",
    "State": "state",
    "Estimate": "state",
    "Step": "state",
}

__all__ = [*HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'recon' has no attribute {name!r}")
    return getattr(import_module(f".{HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from .latent import LatentPrior
    from .networks.load import PRIORS, load_prior
    from .noise import Noise
    from .posteriors import POSTERIORS, Active, Ensemble
    from .problem import Problem
    from .result import Result
    from .runtime.runtime import Runtime
    from .sampling import sample
    from .solvers import SOLVERS
    from .state import Estimate, State, Step
