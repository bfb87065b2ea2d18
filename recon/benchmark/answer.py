"""What every method of a benchmark gives back."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Answer:
    """Images of one scene, in the prior's units.

    ``samples`` (S, *domain): posterior samples, S = 1 for point estimates. ``mean`` (*domain).
    ``network_calls`` of the prior, a sample. ``seconds`` of wall time for all samples together.
    ``std`` (*domain): of the magnitudes, where the samples are weighted; else None. ``notes``: what the
    method was set to or found, such as ``{"lambda": 0.003}``. ``phase=False``: magnitudes alone, which the
    operator would not measure as it did; they have no residual.
    """

    samples: Tensor
    mean: Tensor
    network_calls: int
    seconds: float
    std: Tensor | None = None
    notes: dict[str, float | str] = field(default_factory=dict)
    phase: bool = True
