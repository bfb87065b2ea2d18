"""``recon bench``: ratios of times within one run, each pair interleaved, medians over the repetitions."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable

import torch

from operators import SuperResolution
from operators.masks import make_mask
from operators.mri import MRI

from ..errors import unknown
from ..noise import Noise
from .samplers import coils, product_cost, sampler_costs
from .scans import ct_products
from .solvers import solver_costs
from .timing import Comparison, Timed, interleaved, versus
from .workers import worker_gain


def multicoil(repetitions: int) -> list[Comparison]:
    """``A^H A`` of multi-coil MRI."""
    from deepinv.physics import MultiCoilMRI

    maps, mask = coils(15, 320), make_mask("equispaced-fraction", (320, 320), 4).float()
    ours, theirs = MRI(mask, maps), MultiCoilMRI(mask=mask, coil_maps=maps[None])
    x = Noise(0)(torch.zeros(1, 1, 320, 320, dtype=torch.complex64), 0)
    channels = torch.view_as_real(x[:, 0]).movedim(-1, 1).contiguous()
    comparison = versus(
        "multi-coil A^H A, 15 coils, 320 x 320",
        lambda: ours.normal(x),
        lambda: theirs.A_adjoint_A(channels),
        "at least 1.8",
        repetitions,
    )
    return [comparison]


def superresolution(repetitions: int) -> list[Comparison]:
    """A of super-resolution."""
    from deepinv.physics import Downsampling

    ours = SuperResolution((3, 256, 256), 4)
    theirs = Downsampling(img_size=(3, 256, 256), factor=4, filter="bicubic", padding="circular")
    x = torch.rand(1, 3, 256, 256)
    comparison = versus(
        "super-resolution A, x4 bicubic, 3 x 256 x 256",
        lambda: ours.forward(x),
        lambda: theirs.A(x),
        "at least 5",
        repetitions,
    )
    return [comparison]


def startup(repetitions: int) -> list[Comparison]:
    """``recon --help`` beside a bare Python interpreter."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}

    def run(*arguments: str) -> Timed:
        command = [sys.executable, *arguments]
        return lambda: subprocess.run(command, check=True, capture_output=True, env=environment)

    program, bare = interleaved(
        run("-m", "recon.cli", "--help"), run("-c", "pass"), repetitions=max(3, repetitions // 4)
    )
    ratio = program / bare
    return [Comparison("recon --help", program, bare, ratio, "over a bare interpreter", "below 300 ms")]


MEASUREMENTS: dict[str, Callable[[int], Iterable[object]]] = {
    "help": startup,
    "multicoil": multicoil,
    "super-resolution": superresolution,
    "ct": ct_products,
    "dds": product_cost,
    "samplers": sampler_costs,
    "solvers": solver_costs,
    "workers": worker_gain,
}
GROUPS = {"operators": ("multicoil", "super-resolution", "ct")}
QUALITY = (
    "mri",
    "simulated",
    "trajectory",
    "curve",
    "denoising",
    "gold",
    "tomography",
)  # not of speed: `recon.benchmark`


def measurements(names: list[str]) -> list[str]:
    """The names of measurements, groups expanded; all of them if no name is given. Raises `ConfigError`."""
    wanted: list[str] = []
    for name in names or MEASUREMENTS:
        if name not in MEASUREMENTS and name not in GROUPS:
            raise unknown("benchmark", name, [*MEASUREMENTS, *GROUPS, *QUALITY])
        wanted += GROUPS.get(name, (name,))
    return list(dict.fromkeys(wanted))


def bench(names: list[str], repetitions: int = 20, say: Callable[[str], object] = print) -> list[object]:
    """Make the measurements, or groups of them, of these names, and say each result."""
    wanted = measurements(names)
    say(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of interleaved repetitions")
    results: list[object] = []
    for name in wanted:
        for result in MEASUREMENTS[name](repetitions):
            results.append(result)
            say(str(result))
    return results
