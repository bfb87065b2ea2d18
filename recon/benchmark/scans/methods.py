"""The methods that reconstruct a `Trial`: our default, and what it is compared with on the same samples.

``method(trial) -> Found``. CG-SENSE, total variation and BART have the best of several weights for the reference,
which no user has. "oracle" is CG-SENSE with the true maps and the true support, of simulated scans alone.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable

from torch import Tensor

from operators.coils import rss
from operators.fourier import ifft2c

from ...errors import unknown
from ...metrics import scaled_psnr
from ..answer import Answer
from ..methods.bart import BART_LAMBDAS, bart_maps, bart_wavelets
from ..methods.classical import climb, least_squares, quality, tv
from ..scene import Scene
from .scan import Found, Trial, sets_combined

SENSE_WEIGHTS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
SHORT, LONG = (40, 5), (60, 15)  # steps of TV's ADMM, and of CG in each
DEFAULT = "recon"


def zero_filled(trial: Trial) -> Found:
    """Root sum of squares of what was measured."""
    return Found(rss(ifft2c(trial.scan.y)))


def recon_default(trial: Trial) -> Found:
    """What ``recon reconstruct`` makes of the scan with the trial's settings."""
    result, seconds = trial.timed_result
    return Found(
        result.mean.abs().cpu(),
        result.samples.abs().cpu() if len(result.samples) > 1 else None,
        result.support.cpu(),
        result.trace[-1]["residual"],
        result.network_calls,
        seconds,
        {"samples": len(result.samples), "sigma_y": result.sigma_y / trial.scan.scale},
    )


def sense_with_our_maps(trial: Trial) -> Found:
    """CG-SENSE with our maps."""
    return best_sense(trial, trial.scene)


def oracle(trial: Trial) -> Found:
    """CG-SENSE with the true maps, zero outside the true support."""
    return best_sense(trial, trial.oracle)


def best_sense(trial: Trial, scene: Scene) -> Found:
    """CG-SENSE with the best of `SENSE_WEIGHTS`."""
    started = time.monotonic()

    def image(weight: float) -> Tensor:
        return least_squares(scene, None, 1, 0, weight).samples

    best, found, tried = climb(SENSE_WEIGHTS, image, lambda image: quality(image, scene))
    seconds = (time.monotonic() - started) / tried
    return of_scene(trial, scene, Answer(found, found[0], 0, seconds, notes={"lambda": best}))


def total_variation(trial: Trial) -> Found:
    """Total variation with our maps and the best of its lambdas."""
    return of_scene(trial, trial.scene, tv_answer(trial.scene, SHORT))


def either_total_variation(trial: Trial) -> Found:
    """The better of a short and a long run of `total_variation` with the maps of our result.

    In the object the two agree. Outside of the maps no data speak, and what TV leaves there depends on its steps: it may
    resemble the noise of a reference that has some, which counts for or against it by up to 1.5 dB.
    """
    scene = trial.final_scene
    answers = [tv_answer(scene, steps) for steps in (SHORT, LONG)]
    return of_scene(trial, scene, max(answers, key=lambda answer: quality(answer.mean[None], scene)))


def tv_answer(scene: Scene, steps: tuple[int, int]) -> Answer:
    """`classical.tv` with so many steps of ADMM and of CG in each."""
    return tv(scene, None, 1, 0, steps=steps[0], inner_steps=steps[1])


def bart(trial: Trial) -> Found:
    """BART's L1-wavelets with BART's maps and the best of its lambdas."""
    scan = trial.scan
    started = time.monotonic()
    maps = bart_maps(scan.y, scan.sets)
    mapped = time.monotonic()
    best, image, tried = climb(
        BART_LAMBDAS,
        lambda weight: bart_wavelets(scan.y, weight, maps),
        lambda image: float(scaled_psnr(scan.cropped(image), scan.reference)),
    )
    seconds = mapped - started + (time.monotonic() - mapped) / tried
    return Found(image, seconds=seconds, notes={"lambda": best})


def of_scene(trial: Trial, scene: Scene, answer: Answer) -> Found:
    """The answer of a method for a scene of the trial's scan, in the scan's units."""
    residual = float(scene.problem.residual(answer.mean[None]))
    image = trial.scan.scale * sets_combined(answer.mean)
    return Found(image, residual=residual, seconds=answer.seconds, notes=answer.notes)


SCAN_METHODS: dict[str, Callable[[Trial], Found]] = {
    "zero-filled": zero_filled,
    "cg-sense": sense_with_our_maps,
    "bart": bart,
    "tv": total_variation,
    "oracle": oracle,
    DEFAULT: recon_default,
}
REAL_METHODS = {name: method for name, method in SCAN_METHODS.items() if name != "oracle"} | {
    "tv": either_total_variation
}
"""Those for a scan whose true maps nobody knows, and whose reference is noisy."""
RIVALS = ("cg-sense", "bart", "tv")


def chosen_methods(
    names: Iterable[str], say: Callable[[str], object], known: Iterable[str] = tuple(SCAN_METHODS)
) -> list[str]:
    """The methods of these names, all ``known`` if there is none; says so where BART is absent. Raises `ConfigError`."""
    known = list(known)
    names = list(names) or list(known)
    for name in names:
        if name not in known:
            raise unknown("method", name, known)
    if "bart" in names and shutil.which("bart") is None:
        say("BART is left out: there is no program bart on this machine.")
        names.remove("bart")
    return [name for name in known if name in names]
