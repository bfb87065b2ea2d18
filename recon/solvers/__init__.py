"""Solvers by name. Every name is a row in ``tests/tables.py``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .adams import DEIS, DPMpp, ExponentialAdams, IPNDMv
from .base import Solver
from .ddim import DDIM, DDPM, Ancestral, Euler, Renoise, SDEDPMpp1
from .heun import EDM, Heun
from .unipc import UniPC

SOLVERS: dict[str, Callable[..., Solver]] = {
    "euler": Euler,
    "ddim": DDIM,
    "ddpm": DDPM,
    "renoise": Renoise,
    "ancestral": Ancestral,
    "heun": Heun,
    "edm": EDM,
    "dpm++2m": partial(DPMpp, nodes=2, rule="midpoint"),
    "dpm++3m": partial(DPMpp, nodes=3),
    "sde-dpm++1": SDEDPMpp1,
    "sde-dpm++2m": partial(DPMpp, nodes=2, eta=1.0, rule="midpoint"),
    "sde-dpm++3m": partial(DPMpp, nodes=3, eta=1.0),
    "unipc1": partial(UniPC, nodes=1),
    "unipc2": partial(UniPC, nodes=2),
    "unipc3": partial(UniPC, nodes=3),
    "deis-t1": partial(DEIS, nodes=1),
    "deis-t2": partial(DEIS, nodes=2),
    "deis-t3": partial(DEIS, nodes=3),
    "deis-t4": partial(DEIS, nodes=4),
    "deis-rho1": partial(DEIS, nodes=1, variable="sigma"),
    "deis-rho2": partial(DEIS, nodes=2, variable="sigma"),
    "deis-rho3": partial(DEIS, nodes=3, variable="sigma"),
    "deis-rho4": partial(DEIS, nodes=4, variable="sigma"),
    "ipndm-v": IPNDMv,
}

__all__ = [
    "DDIM",
    "DDPM",
    "DEIS",
    "DPMpp",
    "EDM",
    "SOLVERS",
    "Ancestral",
    "Euler",
    "ExponentialAdams",
    "Heun",
    "IPNDMv",
    "Renoise",
    "SDEDPMpp1",
    "Solver",
    "UniPC",
]
