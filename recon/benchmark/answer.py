"""What every method of a benchmark gives back."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Answer:
    """Images of one scene, in the prior's units.

    ``samples`` (S, *domain): posterior samples, S = 1 for point estimates. ``mean`` (*domain).
    ``network_calls`` of the prior, per sample. ``seconds`` of wall time for all samples together.
    ``weights`` (S,), adding up to 1: those of an ensemble's particles; None where all samples count the same.
    ``notes``: what the method was set to or found, such as ``{"lambda": 0.003}``. ``phase=False``: magnitudes
    alone, which cannot be measured again and so have no residual.
    """

    samples: Tensor
    mean: Tensor
    network_calls: int
    seconds: float
    weights: Tensor | None = None
    notes: dict[str, float | str] = field(default_factory=dict)
    phase: bool = True
