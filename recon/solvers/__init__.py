"""Solvers by name. Every name is a row in ``tests/tables.py``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .adams import DEIS, DPMpp, ExponentialAdams, IPNDMv
from .base import Solver
from .bdia import BDIA
from .ddim import DDIM, DDPM, Ancestral, Euler, Renoise, SDEDPMpp1
from .flow import FlowRK
from .heun import EDM, Heun
from .momentum import GHVB, HB
from .mrs import MRSampler
from .pndm import FPNDM, IPNDM, PNDM
from .predictor_corrector import PredictorCorrector
from .singlestep import DPM1, DPM2, DPM3
from .unipc import UniPC

SOLVERS: dict[str, Callable[..., Solver]] = {
    "euler": Euler,
    "ddim": DDIM,
    "ddpm": DDPM,
    "renoise": Renoise,
    "ancestral": Ancestral,
    "heun": Heun,
    "edm": EDM,
    "dpm1": DPM1,
    "dpm2": DPM2,
    "dpm3": DPM3,
    "dpm++2s": partial(DPM2, form="data"),
    "dpm++3s": partial(DPM3, form="data"),
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
    "pndm": PNDM,
    "fpndm": FPNDM,
    "ipndm": IPNDM,
    "ipndm-v": IPNDMv,
    "pc": PredictorCorrector,
    "flow-euler": partial(FlowRK, method="euler"),
    "flow-midpoint": partial(FlowRK, method="midpoint"),
    "flow-heun": partial(FlowRK, method="heun"),
    "flow-rk4": partial(FlowRK, method="rk4"),
    "ghvb": GHVB,
    "hb": HB,
    "bdia": BDIA,
    "mrs": MRSampler,
}

__all__ = [
    "BDIA",
    "DDIM",
    "DDPM",
    "DEIS",
    "DPM1",
    "DPM2",
    "DPM3",
    "EDM",
    "FPNDM",
    "GHVB",
    "HB",
    "IPNDM",
    "PNDM",
    "SOLVERS",
    "Ancestral",
    "DPMpp",
    "Euler",
    "ExponentialAdams",
    "FlowRK",
    "Heun",
    "IPNDMv",
    "PredictorCorrector",
    "MRSampler",
    "Renoise",
    "SDEDPMpp1",
    "Solver",
    "UniPC",
]
