"""Solvers by name. Every name is a row in ``tests/tables.py``."""

from __future__ import annotations

from .base import Solver
from .ddim import DDIM, Euler, Renoise
from .dpm import DPMpp2M
from .heun import Heun

SOLVERS = {
    "euler": Euler,
    "ddim": DDIM,
    "renoise": Renoise,
    "heun": Heun,
    "dpm++2m": DPMpp2M,
}

__all__ = ["DDIM", "DPMpp2M", "Euler", "Heun", "Renoise", "SOLVERS", "Solver"]
