"""The job behind ``recon restore``: pictures measured by an operator, simulated or real, and restored."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from operators import Linear, Operator, cg

from ..errors import ConfigError, InputError
from ..io import check_folder, refuse_existing, refuse_overwriting, result_paths
from ..io.images import read_image, save_picture
from ..io.outcome import Failure, Outcome
from ..io.simulated import measured_by, simulate
from ..io.whole import write_together
from ..pairing import refuse_pair
from ..priors import about
from ..problem import Problem, working_dtype
from ..registry.objects import make_prior
from ..registry.operators import OPERATORS, Size, make_operator
from ..registry.recipe import Recipe, build
from ..runtime.runtime import Runtime
from ..sampling import noise_levels, sample_by

DEFAULTS: dict[str, Any] = {"start": "noise"}  # of `Recipe`, for images: no measurement of theirs is a start


@dataclass(frozen=True)
class RestoreSettings:
    """``sigma``: std of the noise per real component, in the units of the data (pictures are 0 to 1).

    ``measured``: the inputs are measurements of images of ``size`` (H, W), not images to measure.
    """

    operator: str
    sigma: float
    options: dict[str, Any] = field(default_factory=dict)
    measured: bool = False
    size: Size | None = None
    recipe: Recipe = field(default_factory=lambda: Recipe(**DEFAULTS))
    runtime: Runtime = field(default_factory=Runtime)

    def __post_init__(self):
        if not (isinstance(self.sigma, int | float) and 0 <= self.sigma < float("inf")):
            raise ConfigError(f"sigma is {self.sigma!r}.", "It is the noise's standard deviation, 0 or more.")
        if self.measured and self.size is None:
            raise ConfigError(
                "--measured was given without --size.",
                "The size of the image does not follow from its measurement.",
                "Give --size HEIGHT WIDTH.",
            )


@dataclass(frozen=True, eq=False)
class PlannedImage:
    """One input, read and found usable: what was measured, and where its result goes.

    ``y`` (1, *A.codomain) is in the units of the data.
    """

    path: Path
    target: Path
    A: Operator
    y: Tensor


def restore(
    inputs: Sequence[str | Path],
    job: RestoreSettings,
    out: str | Path = "recon_out",
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    reads: Sequence[str | Path] = (),
    say: Callable[[str], object] | None = None,
    fail: Callable[[Failure], object] = lambda failure: None,
) -> Outcome:
    """Restore each input to ``out/<stem>.npz``, with a picture of the mean beside it, ``<stem>.png``.

    Arrays: ``mean``, ``std``, ``low`` and ``high`` (90 % interval), (H, W); ``samples`` (S, H, W);
    ``measurement``; and the settings as JSON in ``config``. Every input is checked before the first network
    call and before anything is written; one that fails does not stop the others, and ``fail`` is told of it.
    ``reads``: files besides the inputs that no result may replace, such as an operator's mask. Raises
    `ConfigError` and `OutputError` for what concerns all inputs.
    """
    say, outcome = say or tqdm.write, Outcome(fail=fail)

    prior = make_prior(job.recipe.prior)
    is_complex = about(prior).complex_images
    job.recipe.refuse_prior(prior)
    prior = job.runtime.prepare(prior)
    paths = list(map(Path, inputs))
    targets = result_paths(paths, out, ".npz")
    refuse_overwriting([file for target in targets for file in files_of(target)], [*paths, *reads])
    check_folder(out)
    try:
        plans = []
        for path, target in zip(paths, targets, strict=True):
            try:
                refuse_existing(files_of(target), overwrite)
                plans.append(plan_image(path, target, job, prior, is_complex))
            except Exception as error:
                outcome.failed(path, error)
        if dry_run:
            for plan in plans:
                say(describe_image(plan, job.recipe, prior))
            outcome.done = [plan.target for plan in plans]
            return outcome
        restore_all(plans, job, prior, outcome, say)
    except KeyboardInterrupt:
        outcome.interrupted = True
        say("Interrupted. The images that are done are kept.")
    return outcome


def files_of(target: Path) -> tuple[Path, Path]:
    """The files that are written for one input: arrays and picture."""
    return target, target.with_suffix(".png")


def plan_image(path: Path, target: Path, job: RestoreSettings, prior: Any, is_complex: bool) -> PlannedImage:
    """Read and measure one input; raises what makes it unusable, before any network call."""
    data = read_image(path, job.measured)
    size = job.size if job.measured and job.size else (data.shape[-2], data.shape[-1])
    A = make_operator(job.operator, job.options, size, is_complex)
    refuse_domain(job, A, is_complex, size)
    y = measured_by(A, data) if job.measured else simulate(A, data, job.sigma, job.recipe.seed)
    problem = Problem(A, y, float(job.sigma))
    about(prior).space.refuse_size(size)
    problem = about(prior).space.pose(problem)
    sampler, solver = build(job.recipe, prior)
    levels = noise_levels(prior, job.recipe.steps, None, None, None)
    refuse_pair(sampler.given(problem), solver, levels, working_dtype(y))
    return PlannedImage(path, target, A, y)


def describe_image(plan: PlannedImage, recipe: Recipe, prior: Any) -> str:
    """What would be done with one input, for ``--dry-run``."""
    sampler, solver = build(recipe, prior)
    calls = sampler.network_calls(solver, recipe.steps)
    y = tuple(plan.y.shape)
    return f"{plan.path} -> {plan.target}: {plan.A!r}, y {y}, {calls} network calls for each of {recipe.samples} samples"


def restore_all(
    plans: Sequence[PlannedImage],
    job: RestoreSettings,
    prior: Any,
    outcome: Outcome,
    say: Callable[[str], object],
) -> None:
    """Restore what is planned, an image at a time, under one bar."""
    with tqdm(total=len(plans) * job.recipe.steps, unit="step", disable=None) as bar:
        for plan in plans:
            say(f"{plan.path}: {plan.A!r}")
            bar.set_description(plan.path.name)
            try:
                restore_one(plan, job, prior, bar)
                outcome.done.append(plan.target)
                outcome.fresh.append(plan.target)
            except Exception as error:
                outcome.failed(plan.path, error)


def restore_one(plan: PlannedImage, job: RestoreSettings, prior: Any, bar: Any) -> None:
    """Sample one image, and write arrays and picture."""
    device = job.runtime.torch_device()
    A, y = plan.A.to(device), plan.y.to(device)
    top = brightness(A, y)

    def watch(step: int, state: Any, residual: float) -> None:
        bar.set_postfix(residual=f"{residual:.3g}", refresh=False)
        bar.update()

    result = sample_by(job.recipe, Problem(A, y / top, float(job.sigma) / top), prior, watch=watch)
    mean, bounds = top * result.mean[0, 0].cpu(), result.interval()
    missing = torch.full_like(mean.abs(), torch.nan)
    std, low, high = (
        missing if image is None else top * image[0, 0].cpu()
        for image in (result.magnitude_std, *(bounds if bounds is not None else (None, None)))
    )
    settings = {"operator": job.operator, "options": {k: str(v) for k, v in job.options.items()}}
    settings |= {"sigma": job.sigma, "measured": job.measured, **asdict(job.recipe)}
    arrays: dict[str, Any] = {
        "mean": mean.numpy(),
        "std": std.numpy(),
        "low": low.numpy(),
        "high": high.numpy(),
        "samples": (top * result.samples[0, :, 0].cpu()).numpy(),
        "measurement": plan.y[0].numpy(),
    }
    whole, picture = files_of(plan.target)
    write_together(
        {
            picture: lambda file: save_picture(file, mean),
            whole: lambda file: np.savez(file, config=json.dumps(settings), **arrays),
        }
    )


def brightness(A: Operator, y: Tensor) -> float:
    """The value that is 1 for the prior: the 99.5th percentile of the image that fits the data best.

    1 for a nonlinear operator. Raises `InputError` for a measurement of zeros.
    """
    if not isinstance(A, Linear):
        return 1.0
    with torch.no_grad():
        fit = cg(A.normal, A.adjoint(y), steps=15)
    top = float(torch.quantile(fit.abs().flatten().float(), 0.995))
    if not top > 0:
        raise InputError("The measurement is zero everywhere.", "There is nothing to restore.")
    return top


def refuse_domain(job: RestoreSettings, A: Operator, is_complex: bool, size: Size) -> None:
    """Raise `ConfigError` where operator and prior act on images of different kinds, or of different sizes."""
    kind, other = ("complex", "real") if is_complex else ("real", "complex")
    if A.complex_domain != is_complex:
        fitting = [name for name, entry in OPERATORS.items() if is_complex or not entry.complex_images]
        raise ConfigError(
            f"The operator {job.operator} acts on {other} images, the prior {job.recipe.prior} is one of {kind} images.",
            "A prior knows images of its own kind only.",
            f"Choose an operator for {kind} images ({', '.join(fitting)}), or a prior of {other} ones with --prior PATH.",
        )
    if tuple(A.domain) != (1, *size):
        raise ConfigError(
            f"The operator {job.operator} is for images {tuple(A.domain)}, the image is {(1, *size)}.",
            "Images to restore have one channel.",
            "Build the operator for this size, or crop the image.",
        )
