"""Posterior samplers by name. Every name is a row in ``tests/tables.py``."""

from __future__ import annotations

from .active.active import Active
from .base import Posterior
from .daps import DAPS
from .ddnm import DDNM
from .ddrm import DDRM
from .dds import DDS, constant, matched
from .dds3d import DDS3D
from .diffpir import DiffPIR
from .dps import DPS, MCG, variance_preserving
from .ensemble.ensemble import Ensemble
from .ensemble.smc import SMC
from .mbir import MBIR
from .pigdm import MMPS, PiGDM
from .reddiff import REDDiff
from .stsl import STSL

POSTERIORS = {
    "prior": Posterior,
    "dds": DDS,
    "dds-3d": DDS3D,
    "mbir": MBIR,
    "dps": DPS,
    "mcg": MCG,
    "pigdm": PiGDM,
    "mmps": MMPS,
    "ddnm": DDNM,
    "ddrm": DDRM,
    "diffpir": DiffPIR,
    "daps": DAPS,
    "reddiff": REDDiff,
    "smc": SMC,
    "stsl": STSL,
}

__all__ = [
    "Active",
    "DAPS",
    "DDNM",
    "DDRM",
    "DDS",
    "DDS3D",
    "DPS",
    "DiffPIR",
    "MBIR",
    "MCG",
    "MMPS",
    "PiGDM",
    "REDDiff",
    "variance_preserving",
    "Ensemble",
    "POSTERIORS",
    "Posterior",
    "SMC",
    "STSL",
    "constant",
    "matched",
]
