"""The job behind ``recon restore``: pictures measured by an operator, simulated or real, and restored."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from operators import Linear, Operator, cg

from ..errors import ConfigError, InputError
from ..io import check_folder, refuse_existing, refuse_overwriting, result_paths
from ..io.images import COLOUR_CHANNELS, read_image, save_picture
from ..io.outcome import Failure, Outcome
from ..io.simulated import measured_by, simulate
from ..io.whole import write_together
from ..pairing import refuse_pair
from ..priors import about
from ..problem import Problem, working_dtype
from ..registry.objects import make_prior, usual_of
from ..registry.operators import OPERATORS, Size, make_operator, real_only, takes_colour
from ..registry.recipe import Recipe, build, make_recipe
from ..runtime.runtime import Runtime
from ..sampling import noise_levels, sample_by

FITTING = "fitting"  # in the place of a prior's name: the one that ships for images of this kind
DEFAULTS: dict[str, Any] = {"start": "noise", "prior": FITTING, "steps": 20, "samples": 8}
"""Of `Recipe`, for images."""
COLOUR_PRIOR, GRAY_PRIOR = "natural", "brain-mri"


def restore_recipe(settings: Mapping[str, Any]) -> Recipe:
    """The `Recipe` for images: the sampler's own (`posteriors.usual.Usual`) and `DEFAULTS`; ``settings`` go first."""
    usual = usual_of(str(settings.get("sampler", "dds")))
    return make_recipe({**usual.settings(settings.get("solver", "")), **DEFAULTS, **settings})


@dataclass(frozen=True)
class RestoreSettings:
    """``sigma``: std of the noise per real component, in the units of the data (pictures are 0 to 1).

    ``measured``: the inputs are measurements of images of ``size`` (H, W), not images to measure. The recipe's prior
    may be `FITTING`.
    """

    operator: str
    sigma: float
    options: dict[str, Any] = field(default_factory=dict)
    measured: bool = False
    size: Size | None = None
    recipe: Recipe = field(default_factory=lambda: restore_recipe({}))
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

    ``y`` (1, *A.codomain) is in the units of the data; ``recipe`` names the ``prior``; the noise ``levels`` are
    those of its sampler.
    """

    path: Path
    target: Path
    A: Operator
    y: Tensor
    recipe: Recipe
    prior: Any
    levels: list[float]


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

    Arrays: ``mean``, ``std``, ``low`` and ``high`` (90 % interval), (H, W), in colour (3, H, W); ``samples`` (S, ...);
    ``measurement``; and the settings as JSON in ``config``. Every input is checked before the first network
    call and before anything is written; one that fails does not stop the others, and ``fail`` is told of it.
    ``reads``: files besides the inputs that no result may replace, such as an operator's mask. Raises
    `ConfigError` and `OutputError` for what concerns all inputs.
    """
    say, outcome = say or tqdm.write, Outcome(fail=fail)

    priors = Priors(job)
    if job.recipe.prior != FITTING:
        priors.get(job.recipe.prior)
    paths = list(map(Path, inputs))
    targets = result_paths(paths, out, ".npz")
    refuse_overwriting([file for target in targets for file in files_of(target)], [*paths, *reads])
    check_folder(out)
    try:
        plans = []
        for path, target in zip(paths, targets, strict=True):
            try:
                refuse_existing(files_of(target), overwrite)
                plans.append(plan_image(path, target, job, priors))
            except Exception as error:
                outcome.failed(path, error)
        if dry_run:
            for plan in plans:
                say(describe_image(plan))
            outcome.done = [plan.target for plan in plans]
            return outcome
        restore_all(plans, job, outcome, say)
    except KeyboardInterrupt:
        outcome.interrupted = True
        say("Interrupted. The images that are done are kept.")
    return outcome


def files_of(target: Path) -> tuple[Path, Path]:
    """The files that are written for one input: arrays and picture."""
    return target, target.with_suffix(".png")


class Priors:
    """The priors of a job by name, each read and prepared once."""

    def __init__(self, job: RestoreSettings):
        self.job, self.known = job, {}

    def get(self, name: str) -> Any:
        """The prior of this name, on the job's device; raises `ConfigError` for one that the sampler cannot use."""
        if name not in self.known:
            prior = make_prior(name)
            replace(self.job.recipe, prior=name).refuse_prior(prior)
            self.known[name] = self.job.runtime.prepare(prior)
        return self.known[name]


def fitting_prior(channels: int) -> tuple[str, str]:
    """The prior that ships for images of so many channels, and why."""
    if channels == COLOUR_CHANNELS:
        return COLOUR_PRIOR, "the image has colours"
    return GRAY_PRIOR, "the image has one channel"


def plan_image(path: Path, target: Path, job: RestoreSettings, priors: Priors) -> PlannedImage:
    """Read and measure one input; raises what makes it unusable, before any network call."""
    named = None if job.recipe.prior == FITTING else priors.get(job.recipe.prior)
    colour = named is None or about(named).channels == COLOUR_CHANNELS
    data = read_image(path, job.measured, colour)
    colours = data.ndim > 2 and data.shape[-3] == COLOUR_CHANNELS and not data.is_complex()
    channels = COLOUR_CHANNELS if colours else 1
    if named is None and channels == COLOUR_CHANNELS and job.measured and not takes_colour(job.operator):
        channels = 1  # three coils, or three detectors of another kind
    in_colour = colour and (named is not None or real_only(job.operator))
    if in_colour and channels == 1 and not (job.measured and not real_only(job.operator)):
        data, channels = as_colour(data, job), COLOUR_CHANNELS
    name = fitting_prior(channels)[0] if named is None else job.recipe.prior
    prior = priors.get(name)
    size = job.size if job.measured and job.size else (data.shape[-2], data.shape[-1])
    is_complex = about(prior).complex_images
    A = make_operator(job.operator, job.options, size, is_complex, channels)
    refuse_domain(job, A, is_complex, (channels, *size))
    y = measured_by(A, data) if job.measured else simulate(A, data, job.sigma, job.recipe.seed)
    problem = Problem(A, y, float(job.sigma))
    about(prior).space.refuse_size(size)
    problem = about(prior).space.pose(problem)
    recipe = replace(job.recipe, prior=name)
    sampler, solver = build(recipe, prior)
    levels = noise_levels(prior, recipe.steps, None, None, None, sampler.usual)
    refuse_pair(sampler.given(problem), solver, levels, working_dtype(y))
    return PlannedImage(path, target, A, y, recipe, prior, levels)


def as_colour(data: Tensor, job: RestoreSettings) -> Tensor:
    """A grey image or measurement in three channels alike; the lightness that colourisation takes stays as it is."""
    if not job.measured:
        return data.expand(COLOUR_CHANNELS, *data.shape)
    is_picture = data.ndim == 4 and job.operator != "colourisation"
    return data.expand(-1, COLOUR_CHANNELS, -1, -1) if is_picture else data


def describe_image(plan: PlannedImage) -> str:
    """What would be done with one input, for ``--dry-run``."""
    recipe = plan.recipe
    sampler, solver = build(recipe, plan.prior)
    calls = sampler.network_calls(solver, recipe.steps)
    y = tuple(plan.y.shape)
    return (
        f"{plan.path} -> {plan.target}: {plan.A!r}, y {y}, prior {recipe.prior}, "
        f"{calls} network calls for each of {recipe.samples} samples"
    )


def restore_all(
    plans: Sequence[PlannedImage],
    job: RestoreSettings,
    outcome: Outcome,
    say: Callable[[str], object],
) -> None:
    """Restore what is planned, an image at a time, under one bar."""
    with tqdm(total=len(plans) * job.recipe.steps, unit="step", disable=None) as bar:
        for plan in plans:
            say(f"{plan.path}: {plan.A!r}, prior {prior_in_words(plan, job)}")
            bar.set_description(plan.path.name)
            try:
                restore_one(plan, job, bar)
                outcome.done.append(plan.target)
                outcome.fresh.append(plan.target)
            except Exception as error:
                outcome.failed(plan.path, error)


def prior_in_words(plan: PlannedImage, job: RestoreSettings) -> str:
    """Which prior an image is restored with, and why."""
    if job.recipe.prior != FITTING:
        return f"{plan.recipe.prior}, as asked"
    return f"{plan.recipe.prior}: {fitting_prior(plan.A.domain[0])[1]}"


def one_image(x: Tensor) -> Tensor:
    """Images (..., C, H, W) without the channel axis of one channel."""
    return x.squeeze(-3) if x.shape[-3] == 1 else x


def restore_one(plan: PlannedImage, job: RestoreSettings, bar: Any) -> None:
    """Sample one image, and write arrays and picture."""
    device = job.runtime.torch_device()
    A, y = plan.A.to(device), plan.y.to(device)
    top = brightness(A, y)

    def watch(step: int, state: Any, residual: float) -> None:
        bar.set_postfix(residual=f"{residual:.3g}", refresh=False)
        bar.update()

    problem = Problem(A, y / top, float(job.sigma) / top)
    result = sample_by(plan.recipe, problem, plan.prior, grid=plan.levels, watch=watch)
    mean, bounds = top * one_image(result.mean[0]).cpu(), result.interval()
    missing = torch.full_like(mean.abs(), torch.nan)
    std, low, high = (
        missing if image is None else top * one_image(image[0]).cpu()
        for image in (result.magnitude_std, *(bounds if bounds is not None else (None, None)))
    )
    settings = {"operator": job.operator, "options": {k: str(v) for k, v in job.options.items()}}
    settings |= {"sigma": job.sigma, "measured": job.measured, **asdict(plan.recipe)}
    arrays: dict[str, Any] = {
        "mean": mean.numpy(),
        "std": std.numpy(),
        "low": low.numpy(),
        "high": high.numpy(),
        "samples": (top * one_image(result.samples[0]).cpu()).numpy(),
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
    top = float(np.quantile(fit.abs().float().cpu().numpy(), 0.995))
    if not top > 0:
        raise InputError("The measurement is zero everywhere.", "There is nothing to restore.")
    return top


def refuse_domain(job: RestoreSettings, A: Operator, is_complex: bool, domain: tuple[int, ...]) -> None:
    """Raise `ConfigError` where operator and prior act on images of different kinds, or of different sizes."""
    kind, other = ("complex", "real") if is_complex else ("real", "complex")
    if A.complex_domain != is_complex:
        fitting = [name for name, entry in OPERATORS.items() if is_complex or not entry.complex_images]
        raise ConfigError(
            f"The operator {job.operator} acts on {other} images, the prior is one of {kind} images.",
            "A prior knows images of its own kind only.",
            f"Choose an operator for {kind} images ({', '.join(fitting)}), or a prior of {other} ones with --prior PATH.",
        )
    if tuple(A.domain) != domain:
        raise ConfigError(
            f"The operator {job.operator} is for images {tuple(A.domain)}, the image is {domain}.",
            "Images to restore have the operator's channels and size.",
            "Build the operator for this size, or crop the image.",
        )
