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

from ..errors import ConfigError, InputError, OutputError
from ..io import check_folder
from ..io.images import read_image, save_picture
from ..io.measure import measured_by, simulated
from ..io.outcome import Failure, Outcome, explained
from ..io.whole import write_whole
from ..priors import about
from ..problem import Problem
from ..registry.objects import make_prior
from ..registry.operators import OPERATORS, make_operator
from ..registry.recipe import Recipe, build
from ..runtime.runtime import Runtime
from ..sampling import sample_by

RECIPE: dict[str, Any] = {"start": "noise"}  # of `Recipe`, for images: no measurement of theirs is a start
Size = tuple[int, int]


@dataclass(frozen=True)
class Restoration:
    """``sigma``: noise a real component, in the units of the data (pictures are 0 to 1).

    ``measured``: the inputs are measurements (.npy) of images of ``size``, not images to measure.
    """

    operator: str
    sigma: float
    options: dict[str, Any] = field(default_factory=dict)
    measured: bool = False
    size: Size | None = None
    recipe: Recipe = field(default_factory=lambda: Recipe(**RECIPE))
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


def restore(
    inputs: Sequence[str | Path],
    job: Restoration,
    out: str | Path = "recon_out",
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    say: Callable[[str], object] | None = None,
    fail: Callable[[Failure], object] = lambda failure: None,
) -> Outcome:
    """Restore each input to ``out/<stem>.npz`` and ``<stem>.png``.

    Arrays: ``mean``, ``std``, ``low`` and ``high`` (90 % interval), ``samples``, ``measurement``; settings: ``config``.

    All inputs are checked before the first network call; one that fails does not stop the others.
    """
    say, outcome = say or tqdm.write, Outcome()
    prior = make_prior(job.recipe.prior)
    is_complex = about(prior).complex_images
    job.recipe.refuse_prior(prior)
    prior = job.runtime.prepare(prior)
    check_folder(out)
    ready: list[tuple[Path, Path, Tensor, Operator]] = []
    taken: dict[Path, Path] = {}
    for path in map(Path, inputs):
        target = Path(out) / f"{path.stem}.npz"
        try:
            if target in taken:
                raise OutputError(
                    f"{taken[target]} and {path} would both be written to {target}.", do="Rename one."
                )
            taken[target] = path
            for file in (target, target.with_suffix(".png")):
                if file.exists() and not overwrite:
                    raise OutputError(
                        f"{file} is there already.", do="Choose another --out, or use --overwrite."
                    )
            data = read_image(path, job.measured)
            size = job.size if job.measured and job.size else (data.shape[-2], data.shape[-1])
            A = make_operator(job.operator, job.options, size, is_complex)
            refuse_domain(job, A, is_complex, size)
            about(prior).space.refuse_size(size)
            y = measured_by(A, data) if job.measured else simulated(A, data, job.sigma, job.recipe.seed)
            Problem(A, y, float(job.sigma))
            ready.append((path, target, y, A))
        except Exception as error:
            outcome.failures.append(Failure(path, explained(error, path)))
            fail(outcome.failures[-1])
    if dry_run:
        recipe = job.recipe
        sampler, solver = build(recipe, prior)
        calls = sampler.network_calls(solver, recipe.steps)
        for path, target, y, A in ready:
            say(
                f"{path} -> {target}: {A!r}, y {tuple(y.shape)}, {calls} network calls of {recipe.samples} samples"
            )
        outcome.done = [target for _, target, _, _ in ready]
        return outcome
    with tqdm(total=len(ready) * job.recipe.steps, unit="step", disable=None) as bar:
        for path, target, y, A in ready:
            try:
                say(f"{path}: {A!r}")
                restore_one(target, y, A, job, prior, bar)
                outcome.done.append(target)
            except KeyboardInterrupt:
                outcome.interrupted = True
                return outcome
            except Exception as error:
                outcome.failures.append(Failure(path, explained(error, path)))
                fail(outcome.failures[-1])
    return outcome


def restore_one(target: Path, y: Tensor, A: Operator, job: Restoration, prior: Any, bar: Any) -> None:
    device, recipe = job.runtime.torch_device(), job.recipe
    A, y = A.to(device), y.to(device)
    top = brightness(A, y)

    def watch(step: int, state: Any, residual: float) -> None:
        bar.set_postfix(residual=f"{residual:.3g}", refresh=False)
        bar.update()

    result = sample_by(recipe, Problem(A, y / top, float(job.sigma) / top), prior, watch=watch)
    samples, mean = top * result.samples[0, :, 0].cpu(), top * result.mean[0, 0].cpu()
    std, bounds = result.magnitude_std, result.interval()
    maps = torch.full((3, 1, 1, *mean.shape), torch.nan) if std is None or bounds is None else torch.stack([std, *bounds])  # fmt: skip
    std, low, high = top * maps[:, 0, 0].cpu()
    settings = {"operator": job.operator, "options": {k: str(v) for k, v in job.options.items()}}
    settings |= {"sigma": job.sigma, "measured": job.measured, **asdict(recipe)}
    arrays: dict[str, Any] = dict(
        mean=mean.numpy(),
        std=std.numpy(),
        low=low.numpy(),
        high=high.numpy(),
        samples=samples.numpy(),
        measurement=y[0].cpu().numpy(),
    )
    write_whole(target, lambda file: np.savez(file, config=json.dumps(settings), **arrays))
    write_whole(target.with_suffix(".png"), lambda file: save_picture(file, mean))


def brightness(A: Operator, y: Tensor) -> float:
    """The value that is 1 for the prior: the 99.5th percentile of the image that fits the data best."""
    if not isinstance(A, Linear):
        return 1.0
    with torch.no_grad():
        fit = cg(A.normal, A.adjoint(y), steps=15)
    top = float(torch.quantile(fit.abs().flatten().float(), 0.995))
    if not top > 0:
        raise InputError("The measurement is zero everywhere.", "There is nothing to restore.")
    return top


def refuse_domain(job: Restoration, A: Operator, is_complex: bool, size: Size) -> None:
    kind, other = ("complex", "real") if is_complex else ("real", "complex")
    if A.complex_domain != is_complex:
        fitting = [name for name, entry in OPERATORS.items() if is_complex or not entry.complex_images]
        raise ConfigError(
            f"The operator {job.operator} acts on {other} images, the prior {job.recipe.prior} is one of {kind} images.",
            "A prior says something of its own kind of images only.",
            f"Choose an operator of {kind} images ({', '.join(fitting)}), or a prior of {other} ones with --prior PATH.",
        )
    if tuple(A.domain) != (1, *size):
        raise ConfigError(
            f"The operator {job.operator} is for images {tuple(A.domain)}, the image is {(1, *size)}.",
            "An image has one channel here.",
            "Build the operator for this size, or crop the image.",
        )
