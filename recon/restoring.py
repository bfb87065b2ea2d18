"""The job behind ``recon restore``: pictures measured by an operator, simulated or real, and restored."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from operators import Linear, Operator, cg

from .config import make_prior
from .errors import ConfigError, InputError, OutputError
from .forward import OPERATORS, make_operator
from .io import check_folder
from .latent import LatentPrior
from .mri import Recipe
from .noise import Noise
from .outcome import Failure, Outcome, explained
from .posteriors import POSTERIORS
from .problem import Problem
from .runtime import Runtime
from .sampling import sample
from .solvers import SOLVERS

RECIPE: dict[str, Any] = {"start": "noise"}  # of `Recipe`, for images: no measurement of theirs is a start
PICTURES = (".png", ".jpg", ".jpeg")
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
    is_complex = prior_is_complex(prior)
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
            if isinstance(prior, LatentPrior):
                prior.refuse_size(size)
            y = measured_by(A, data) if job.measured else simulated(A, data, job.sigma, job.recipe.seed)
            Problem(A, y, float(job.sigma))
            ready.append((path, target, y, A))
        except Exception as error:
            outcome.failures.append(Failure(path, explained(error, path)))
            fail(outcome.failures[-1])
    if dry_run:
        recipe = job.recipe
        sampler = POSTERIORS[recipe.sampler](prior, **recipe.sampler_options)
        calls = sampler.network_calls(SOLVERS[recipe.solver](**recipe.solver_options), recipe.steps)
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

    result = sample(
        Problem(A, y / top, float(job.sigma) / top),
        prior,
        POSTERIORS[recipe.sampler](prior, **recipe.sampler_options),
        SOLVERS[recipe.solver](**recipe.solver_options),
        recipe.steps,
        recipe.samples,
        recipe.seed,
        watch=watch,
    )
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


def prior_is_complex(prior: Any) -> bool:
    """Whether a prior's images are complex; one without a card says ``complex_images``, or is real."""
    card = getattr(prior, "card", None)
    return bool(card["complex_images"] if card else getattr(prior, "complex_images", False))


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


def simulated(A: Operator, image: Tensor, sigma: float, seed: int, index: int = 0) -> Tensor:
    """``y = A x + n`` of one image (H, W): noise of ``sigma`` a real component, of image ``index`` to the seed."""
    if A.complex_domain and not image.is_complex():
        image = torch.complex(image, torch.zeros_like(image))
    with torch.no_grad():
        clean = A(image[None, None])
    return clean + A.masked(float(sigma) * Noise(seed, (index,))(clean, -2, "measurement"))


def measured_by(A: Operator, y: Tensor) -> Tensor:
    """Measurements as A gives them: real ones of an operator on complex images have an imaginary part of 0."""
    return torch.complex(y, torch.zeros_like(y)) if A.complex_codomain and not y.is_complex() else y


def read_image(path: Path, measured: bool) -> Tensor:
    """A picture (H, W) in 0 to 1, colour as its luminance, or an array; a measurement (1, ...)."""
    if not path.is_file():
        raise InputError(f"{path} does not exist.", "There is no file of this name.", "Check the path.")
    suffix = path.suffix.lower()
    if suffix not in (".npy", *(() if measured else PICTURES)):
        wanted = ".npy" if measured else ", ".join((*PICTURES, ".npy"))
        raise InputError(
            f"{path} ends in {suffix or 'nothing'}.", f"What is read is {wanted}.", "Convert it."
        )
    try:
        if suffix == ".npy":
            array = np.load(path, allow_pickle=False)
        else:
            array = read_picture(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read.", f"It is damaged: {error}.", "Copy it again.") from error
    if array.dtype.kind not in "fciub" or not np.isfinite(array).all():
        raise InputError(f"{path} holds NaN, infinity or no numbers.", do="Write the file again.")
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    tensor = tensor.to(torch.complex64 if tensor.is_complex() else torch.float32)
    if measured:
        return tensor[None]
    if tensor.ndim == 3 and len(tensor) == 1:
        tensor = tensor[0]
    if tensor.ndim != 2:
        raise InputError(
            f"{path} has shape {tuple(tensor.shape)}.", "An image is (H, W).", "Take one slice of it."
        )
    return tensor


def read_picture(path: Path) -> np.ndarray:
    """(H, W) in 0 to 1; 16-bit gray keeps its depth."""
    from PIL import Image

    with Image.open(path) as picture:
        deep = picture.mode.startswith("I") or picture.mode == "F"
        array = np.asarray(picture if deep else picture.convert("L"), dtype=np.float32)
    return array / (65535 if deep else 255)


def save_picture(file: Any, image: Tensor) -> None:
    """Magnitude from black at 0 to white at the largest of 1 and its 99.9th percentile, 8 bits."""
    from PIL import Image

    gray = image.abs() if image.is_complex() else image
    top = max(1.0, float(torch.quantile(gray.flatten(), 0.999)))
    pixels = (gray / top * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    Image.fromarray(pixels).save(file, format="png")


def write_whole(path: Path, write: Callable[[Any], object]) -> None:
    """The file appears at once or not at all."""
    beside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            write(file)
        os.replace(beside, path)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written.", f"{error.strerror or error}.", "Choose another --out."
        ) from error
    finally:
        beside.unlink(missing_ok=True)
