"""Ensembles: weighed and resampled particles around a sampler, and AFDPS around the prior."""

from .ensemble import Ensemble
from .smc import SMC

__all__ = ["SMC", "Ensemble"]
