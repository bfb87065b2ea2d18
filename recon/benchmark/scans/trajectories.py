"""``recon bench trajectory``: radial and spiral acquisitions simulated from slices, reconstructed by ours and the tools in use."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from operators.coils import rss
from operators.fourier import fft2c, ifft2c
from operators.noncartesian import NonCartesianMRI, radial_trajectory, spiral_trajectory

from ...errors import unknown
from ...io.images import read_stack
from ...io.simulated import peak
from ...jobs.shared.settings import Settings, prepared_prior, settle
from ...metrics import scaled_psnr
from ...mri import Normalised, reconstruct_slices
from ...noise import Noise
from ...noncartesian import normalise_trajectory
from ...priors import Prior
from ...problem import Problem
from ...registry.configuration import read_config
from ..methods.bart import bart_maps_along, bart_wavelets_along
from ..methods.classical import climb, least_squares, quality
from ..scene import Scene, image_scores
from .methods import DEFAULT, chosen_methods
from .real import Say, find_file, shared_folder
from .run import STACK_FILE
from .simulated import resized_kspace, simulated_coils

MATRIX, COILS_OF_SCAN, NOISE = 192, 8, 0.004
WAVELETS = (0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01)  # BART's lambdas along a trajectory
DAMPING = (
    1e-6,
    1e-5,
    1e-4,
    1e-3,
    1e-2,
)  # CG-SENSE's weights, times ||A||^2, which the dense centre makes large
TRAJECTORY_CASES: dict[str, Callable[[], Tensor]] = {
    "radial, 24 spokes": lambda: radial_trajectory(24, 2 * MATRIX),
    "radial, 48 spokes": lambda: radial_trajectory(48, 2 * MATRIX),
    "spiral, 8 interleaves": lambda: spiral_trajectory(8, 2048, turns=5, power=2),
}
"""Twice oversampled readouts; fully sampled are 302 spokes, or 96 rings of a spiral of even density, here 40 of uneven."""
SCORES_SHOWN = {"psnr": ".2f", "object_psnr": ".2f", "ssim": ".3f"}


@dataclass(frozen=True, eq=False)
class TrajectoryTrial:
    """A scan with what the methods are to use. ``kspace`` (coils, readouts, samples) along ``points`` (readouts, samples, 2).

    ``reference`` (N, N): root sum of squares of the coil images of N x N without noise.
    """

    kspace: Tensor
    points: Tensor
    reference: Tensor
    index: int
    settings: Settings
    prior: Prior

    @property
    def size(self) -> tuple[int, int]:
        """(N, N)."""
        return self.reference.shape[0], self.reference.shape[1]

    @cached_property
    def normalised(self) -> Normalised:
        """The scan as ``recon reconstruct`` normalises it: its maps, its noise."""
        device = self.settings.runtime.torch_device()
        k, points = self.kspace.to(device), self.points.to(device)
        return normalise_trajectory(k, points, self.size, self.settings.recipe, index=self.index)


def gridded(trial: TrajectoryTrial) -> tuple[Tensor, float | None]:
    """Root sum of squares of the adjoint of density-compensated data."""
    return trial.normalised.zero_filled.cpu(), None


def ours(trial: TrajectoryTrial) -> tuple[Tensor, float | None]:
    """What ``recon reconstruct`` makes of the scan with the trial's settings."""
    (found,) = reconstruct_slices([trial.normalised], trial.settings.recipe, trial.prior)
    return found.mean.abs().cpu(), None


def sense(trial: TrajectoryTrial) -> tuple[Tensor, float | None]:
    """CG-SENSE with our maps and the best of `DAMPING` for the reference."""
    one = trial.normalised
    A = NonCartesianMRI(trial.points.to(one.y.real), one.maps, shape=trial.size)
    problem = Problem(A, one.y[None] * one.noise, one.noise)
    scene = Scene(problem, trial.prior, trial.reference / one.scale, trial.index, lambda: problem.y)
    weight, image, _ = climb(
        DAMPING, lambda w: least_squares(scene, None, 1, 0, w).samples, lambda x: quality(x, scene)
    )
    return scene.compared(image[0]), weight


def wavelets_along(trial: TrajectoryTrial) -> tuple[Tensor, float | None]:
    """BART's L1-wavelets with the better of BART's maps and ours and the best of `WAVELETS`, for the reference.

    BART's maps need a centre of 24 x 24 samples, which few spokes and spirals do not cover.
    """

    def score(image: Tensor) -> float:
        return float(scaled_psnr(image, trial.reference))

    found = []
    for maps in (bart_maps_along(trial.kspace, trial.points, trial.size[0]), trial.normalised.maps):
        assert maps is not None
        solve = partial(bart_wavelets_along, trial.kspace, trial.points, maps=maps.cpu())
        found.append(climb(WAVELETS, solve, score))
    weight, image, _ = max(found, key=lambda one: score(one[1]))
    return image, weight


TRAJECTORY_METHODS: dict[str, Callable[[TrajectoryTrial], tuple[Tensor, float | None]]] = {
    "zero-filled": gridded,
    "cg-sense": sense,
    "bart": wavelets_along,
    DEFAULT: ours,
}
"""A method gives magnitudes (N, N), and the weight that it chose by the reference, None where it has none."""


def simulate_along(
    image: Tensor, points: Tensor, matrix: int, noise: float = NOISE, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """(k-space (coils, readouts, samples), reference (matrix, matrix)) of a magnitude slice (H, W), not larger than it.

    The samples are those of the coil images on the slice's own grid, which is finer, so that they hold what a scanner
    would see. ``points`` in cycles per pixel of the matrix; coils, phase and noise as in `simulate_scan`.
    """
    fine, _ = simulated_coils(image, COILS_OF_SCAN, matrix, seed)
    share = matrix / fine.shape[-1]
    A = NonCartesianMRI(share * points, shape=(fine.shape[-2], fine.shape[-1]))
    clean = share * A(fine[:, None])[:, 0]
    reference = rss(ifft2c(resized_kspace(fft2c(fine), matrix)))
    drawn = Noise(seed, (0,))(torch.empty(1, *clean.shape, dtype=clean.dtype), 0, "scan")[0]
    return (clean + noise * peak(reference) * drawn).reshape(-1, *points.shape[:-1]), reference


def run_trajectories(
    config: str | None = None,
    data: str | Path | None = None,
    *,
    images: str | Path | None = None,
    cases: Sequence[str] = (),
    methods: Sequence[str] = (),
    count: int | None = None,
    seed: int = 0,
    say: Say = print,
) -> list[dict[str, Any]]:
    """`TRAJECTORY_CASES` of the first ``count`` slices (2) by every method, as Markdown; returns a row for each reconstruction.

    ``config``: settings of ours (a preset or a YAML file). ``images``: npz with magnitude slices, by default `STACK_FILE`
    below the folder ``data``. Matrix 192, 8 coils, noise .004 of the image per real component. CG-SENSE and BART have
    the best weight for the reference, which no user has, and their seconds are those of all weights. Raises `ConfigError` and `InputError`.
    """
    for case in cases:
        if case not in TRAJECTORY_CASES:
            raise unknown("case", case, TRAJECTORY_CASES)
    names = chosen_methods(methods, say, TRAJECTORY_METHODS)
    settings = settle(read_config(config) if config else {}, {})
    prior = prepared_prior(settings)
    path = Path(images) if images else find_file(shared_folder(data), STACK_FILE, Path(STACK_FILE).name)
    stack = read_stack(path)[: count or 2]
    say("| trajectory | slice | method | PSNR | in the object | SSIM | lambda | s |")
    say("|---|---|---|---|---|---|---|---|")
    rows = []
    for case in cases or TRAJECTORY_CASES:
        for index, image in enumerate(stack):
            points = TRAJECTORY_CASES[case]()
            kspace, reference = simulate_along(image, points, MATRIX, seed=seed + index)
            for method in names:
                trial = TrajectoryTrial(kspace, points, reference, index, settings, prior)
                started = time.monotonic()
                found, weight = TRAJECTORY_METHODS[method](trial)
                row = {"case": case, "slice": index, "method": method, "lambda": weight}
                row |= image_scores(found, reference) | {"seconds": time.monotonic() - started}
                rows.append(row)
                say(line_of_table(row))
        for line in gains_in_words(case, rows):
            say(line)
    return rows


def line_of_table(row: dict[str, Any]) -> str:
    """One row of the table."""
    numbers = [f"{row[name]:{form}}" for name, form in SCORES_SHOWN.items()]
    weight = "" if row["lambda"] is None else f"{row['lambda']:g}"
    return f"| {' | '.join([row['case'], str(row['slice']), row['method'], *numbers, weight])} | {row['seconds']:.0f} |"


def gains_in_words(case: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """How far ours is ahead of each of the others in the mean over the slices of a case, a line each."""
    said = []
    for other in ("cg-sense", "bart"):
        by = {m: [row for row in rows if (row["case"], row["method"]) == (case, m)] for m in (DEFAULT, other)}
        if all(by.values()):
            ahead = {
                name: fmean(row[name] for row in by[DEFAULT]) - fmean(row[name] for row in by[other])
                for name in SCORES_SHOWN
            }
            error = fmean(row["nmse"] for row in by[DEFAULT]) / fmean(row["nmse"] for row in by[other])
            said.append(
                f"{case}: ahead of {other} by {ahead['psnr']:+.2f} dB, {ahead['object_psnr']:+.2f} dB in the object, "
                f"SSIM {ahead['ssim']:+.3f}; {error:.2f} of its squared error"
            )
    return said
