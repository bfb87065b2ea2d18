"""Posterior samplers by name. Every name is a row in ``tests/tables.py``."""

from __future__ import annotations

from .base import Posterior
from .dds import DDS, constant, matched

POSTERIORS = {"prior": Posterior, "dds": DDS}

__all__ = ["DDS", "POSTERIORS", "Posterior", "constant", "matched"]
