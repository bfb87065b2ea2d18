"""The job behind ``recon reconstruct``: files of k-space in, result files and pictures out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from operators.coils import rss
from operators.fourier import ifft2c

from .acquisition import Acquisition, MaskChoice, acquire, refuse_few_lines
from .config import construct, make_prior, make_recipe, parameters, refuse_unknown
from .errors import ConfigError, InputError
from .io import (
    READERS,
    KSpaceFile,
    ResultWriter,
    Scan,
    center_crop,
    check_folder,
    crop_readout,
    is_done,
    open_kspace,
    read_maps,
    result_paths,
    save_panel,
    scan,
)
from .latent import LatentPrior
from .metrics import CONVENTIONS, Score, scores
from .mri import Recipe, SliceResult, normalise, reconstruct_slices
from .outcome import Failure, Outcome, explained
from .posteriors import POSTERIORS
from .runtime import Runtime
from .solvers import SOLVERS


@dataclass(frozen=True)
class Settings:
    """Everything but the files: recipe, mask, maps (a file), and where the network runs."""

    recipe: Recipe = field(default_factory=Recipe)
    mask: MaskChoice = field(default_factory=MaskChoice)
    maps: str | None = None
    runtime: Runtime = field(default_factory=Runtime)


def settle(config: Mapping[str, Any], flags: Mapping[str, Any]) -> Settings:
    """Settings of a configuration, flags first: ``mask``, ``maps``, ``runtime``, and the keys of `Recipe`.

    Flags that are None are left out; ``mask_name``, ``accel`` and ``center`` are the mask's. Raises
    `ConfigError` for unknown keys and names.
    """
    mask = config.get("mask") or {}
    mask = dict(mask) if isinstance(mask, Mapping) else {"name": str(mask)}
    runtime = dict(config.get("runtime") or {})
    recipe = {key: value for key, value in config.items() if key not in ("mask", "maps", "runtime")}
    known = [*parameters(Recipe)[0], "mask", "maps", "runtime"]
    refuse_unknown(recipe, known, "The configuration")
    given = {key: value for key, value in flags.items() if value is not None}
    maps = given.pop("maps", config.get("maps"))
    if "mask_name" in given and given["mask_name"] != mask.get("name"):
        mask = {}
    mask |= {name: given.pop(flag) for flag, name in MASK_FLAGS.items() if flag in given}
    runtime |= {name: given.pop(name) for name in parameters(Runtime)[0] if name in given}
    return Settings(
        make_recipe(recipe | given),
        construct(MaskChoice, mask, "A mask"),
        None if maps is None else str(maps),
        construct(Runtime, runtime, "The runtime"),
    )


MASK_FLAGS = {"mask_name": "name", "accel": "accel", "center": "center"}


@dataclass(frozen=True, eq=False)
class Plan:
    """One input, looked at and found usable: what will be done with it."""

    file: KSpaceFile
    acquisition: Acquisition
    source: str
    target: Path
    config: dict[str, Any]
    maps: str | None
    done: bool

    @property
    def cropped_readout(self) -> bool:
        """Whether the oversampled readout is cut to the image before the work instead of after it."""
        return self.acquisition.whole_columns and self.file.crop[0] < self.file.height

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image that is sampled."""
        return (self.file.crop[0] if self.cropped_readout else self.file.height, self.file.width)


def reconstruct(
    inputs: Sequence[str | Path],
    settings: Settings | None = None,
    out: str | Path = "recon_out",
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    say: Callable[[str], object] | None = None,
    fail: Callable[[Failure], object] = lambda failure: None,
) -> Outcome:
    """Reconstruct k-space files, or folders of them, to ``out/<stem>.h5`` and pictures beside them.

    Every input is checked before the first network call and before anything is written; one that
    fails does not stop the others. A run that is interrupted leaves ``.h5.part`` files, which the
    next one with the same settings goes on with; finished slices are never done twice. ``fail`` is
    told of each failure as it happens. Raises `ConfigError` and `OutputError` for what concerns all
    inputs.
    """
    settings = settings or Settings()
    say = say or tqdm.write
    outcome = Outcome()

    def failed(path: Path, error: Exception) -> None:
        outcome.failures.append(Failure(path, error))
        fail(outcome.failures[-1])

    prior = prepared_prior(settings)
    files = expand(inputs, failed)
    targets = result_paths(files, out)
    check_folder(out)
    try:
        plans = make_plans(files, targets, settings, prior, overwrite, failed)
        if dry_run:
            for plan in plans:
                say(describe(plan, settings, prior))
            outcome.done = [plan.target for plan in plans]
            return outcome
        work(plans, settings, prior, overwrite, outcome, say, failed)
    except KeyboardInterrupt:
        outcome.interrupted = True
        say("Interrupted. The same command goes on with the slices that are missing.")
    return outcome


def prepared_prior(settings: Settings) -> Any:
    """The prior of the recipe on its device, which must be one of complex images."""
    prior = make_prior(settings.recipe.prior)
    card = getattr(prior, "card", None)
    if card is not None and not card["complex_images"]:
        raise ConfigError(
            f"The prior {settings.recipe.prior} is one of real images.",
            "Images of k-space are complex.",
            "Choose one trained with complex_images: true; recon list priors.",
        )
    settings.recipe.refuse_prior(prior)
    return settings.runtime.prepare(prior)


def expand(inputs: Sequence[str | Path], failed: Callable[[Path, Exception], None]) -> list[Path]:
    """The files named by ``inputs``, each once; a folder stands for the k-space files in it."""
    found: dict[Path, Path] = {}
    for path in map(Path, inputs):
        files = [path]
        if path.is_dir():
            suffixes = [suffix for suffix in READERS if suffix != ".hdr"]  # its .cfl stands for it
            files = sorted(f for f in path.iterdir() if f.suffix.lower() in suffixes and f.is_file())
            if not files:
                failed(
                    path,
                    InputError(
                        f"The folder {path} holds no k-space.",
                        f"No file in it ends in {', '.join(suffixes)}.",
                        "Name the files, or another folder.",
                    ),
                )
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def make_plans(
    files: Sequence[Path],
    targets: Sequence[Path],
    settings: Settings,
    prior: Any,
    overwrite: bool,
    failed: Callable[[Path, Exception], None],
) -> list[Plan]:
    plans = []
    with tqdm(total=len(files), desc="checking", unit="file", disable=None, leave=False) as bar:
        for path, target in zip(files, targets, strict=True):
            try:
                file = open_kspace(path)
                plans.append(make_plan(file, scan(file), target, settings, prior, overwrite))
            except Exception as error:
                failed(path, explained(error, path))
            bar.update()
    return plans


def make_plan(
    file: KSpaceFile, found: Scan, target: Path, settings: Settings, prior: Any, overwrite: bool
) -> Plan:
    """Settle how a file that was looked at is reconstructed; raises what cannot be."""
    recipe = settings.recipe
    acquisition = acquire(file, found, settings.mask)
    if settings.maps is not None:
        for index in range(file.slices):
            read_maps(settings.maps, file, index)
    elif file.maps is None and file.coils > 1:
        refuse_few_lines(file, acquisition, recipe.kernel)
        if recipe.sets is not None and recipe.sets > file.coils:
            raise ConfigError(
                f"{file.path}: {recipe.sets} sets of maps were asked for.",
                f"It has {file.coils} coils.",
                "Use --sets 1.",
            )
    config = {
        **asdict(recipe),
        "prior_sha256": getattr(prior, "card", {}).get("sha256", ""),
        "mask": asdict(settings.mask) | {"digest": digest(acquisition.mask.numpy().tobytes())},
        "maps": None if settings.maps is None else digest(Path(settings.maps).read_bytes()),
        "dtype": settings.runtime.dtype,
    }
    done = is_done(target, config, found.fingerprint, overwrite)
    if not done:
        is_done(target.with_name(target.name + ".part"), config, found.fingerprint, overwrite)
    plan = Plan(file, acquisition, found.fingerprint, target, config, settings.maps, done)
    if isinstance(prior, LatentPrior):
        prior.refuse_size(plan.size)
    return plan


def digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def work(
    plans: Sequence[Plan],
    settings: Settings,
    prior: Any,
    overwrite: bool,
    outcome: Outcome,
    say: Callable[[str], object],
    failed: Callable[[Path, Exception], None],
) -> None:
    """Reconstruct what is planned, a file at a time, under one bar."""
    outcome.done = [plan.target for plan in plans if plan.done]
    for target in outcome.done:
        say(f"{target} is done already.")
    todo = [plan for plan in plans if not plan.done]
    steps = sum(plan.file.slices for plan in todo) * settings.recipe.steps
    with tqdm(total=steps, unit="step", disable=None, smoothing=0.05) as bar:
        for plan in todo:
            path = plan.file.path
            say(f"{path}: {plan.file.slices} slices, {plan.file.coils} coils, {plan.acquisition}")
            try:
                reconstruct_file(plan, settings, prior, overwrite, bar, say)
                outcome.done.append(plan.target)
                outcome.fresh.append(plan.target)
            except Exception as error:
                failed(path, explained(error, path))


def reconstruct_file(
    plan: Plan,
    settings: Settings,
    prior: Any,
    overwrite: bool,
    bar: Any,
    say: Callable[[str], object],
) -> None:
    """All slices of one file that are missing; an error before the first is done leaves no file."""
    file, recipe = plan.file, settings.recipe
    peak = reference_peak(plan)
    writer = ResultWriter(
        plan.target,
        slices=file.slices,
        size=file.crop,
        samples=recipe.samples,
        config=plan.config,
        seed=recipe.seed,
        source=plan.source,
        mask=plan.acquisition.mask[0] if plan.acquisition.whole_columns else plan.acquisition.mask,
        scores=CONVENTIONS if peak is not None else None,
        attrs=dict(
            input=file.path.name,
            device=str(settings.runtime.torch_device()),
            acceleration=plan.acquisition.accel,
        ),
        overwrite=overwrite,
    )
    found: list[dict[str, Score]] = []
    with writer:
        try:
            bar.update((file.slices - len(writer.todo)) * recipe.steps)
            for indices in batched(writer.todo, slices_at_once(plan, settings, prior)):
                bar.set_description(f"{file.path.name} {indices[-1] + 1}/{file.slices}")
                for index, reference, result in reconstruct_some(plan, settings, prior, indices, bar):
                    found.append(keep(plan, index, reference, peak, result, writer, say))
            writer.finish()
        except Exception:
            nothing = not any(writer.finished)
            writer.close()
            if nothing:
                writer.part.unlink(missing_ok=True)
            raise
    values = [{name: float(score) for name, score in each.items()} for each in found if each]
    if len(values) > 1:
        mean = {name: sum(each[name] for each in values) / len(values) for name in values[0]}
        say(f"{file.path.name}, mean of {len(values)} slices: {in_words(mean)}")


def batched(items: Sequence[int], size: int) -> list[Sequence[int]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def slices_at_once(plan: Plan, settings: Settings, prior: Any) -> int:
    """As the runtime says; by default one on a processor, and what fits half of the free memory of a GPU."""
    if settings.runtime.slices:
        return settings.runtime.slices
    device = settings.runtime.torch_device()
    if device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(16, int(free / 2 / memory(plan, settings, prior))))


def reconstruct_some(
    plan: Plan, settings: Settings, prior: Any, indices: Sequence[int], bar: Any
) -> Iterator[tuple[int, Tensor | None, SliceResult]]:
    """Slices read and sent through the network together: (index, reference, result) of each."""
    device, references, slices = settings.runtime.torch_device(), {}, []
    for index in indices:
        piece = plan.file.read_slice(index)
        kspace, mask, maps = piece.kspace, plan.acquisition.mask, piece.maps
        if plan.maps is not None:
            maps = read_maps(plan.maps, plan.file, index)
        references[index] = reference_of(plan, piece.kspace, piece.reference)
        if plan.cropped_readout:
            kspace, mask = crop_readout(kspace, plan.size[0]), mask[: plan.size[0]]
            maps = None if maps is None else center_crop(maps, plan.size)
        slices.append(normalise(kspace.to(device), mask, settings.recipe, index=index, maps=maps))
    for _, group in groupby(slices, key=lambda one: one.A.domain):  # one set of maps, or two
        alike = list(group)

        def watch(step: int, state: Any, residual: float, count: int = len(alike)) -> None:
            bar.set_postfix(residual=f"{residual:.3g}", refresh=False)
            bar.update(count)

        results = reconstruct_slices(alike, settings.recipe, prior, watch)
        for one, result in zip(alike, results, strict=True):
            yield one.index, references[one.index], result


def keep(
    plan: Plan,
    index: int,
    reference: Tensor | None,
    peak: float | None,
    result: SliceResult,
    writer: ResultWriter,
    say: Callable[[str], object],
) -> dict[str, Score]:
    """Compare, draw and write one slice; returns its scores (none without a reference)."""
    file = plan.file
    mean, samples, zero_filled = (
        center_crop(image, file.crop) for image in (result.mean, result.samples, result.zero_filled)
    )
    std, bounds = (
        None if image is None else center_crop(image, file.crop) for image in (result.std, result.interval)
    )
    found: dict[str, Score] = {}
    if reference is not None and peak is not None and float(reference.max()) > 0:
        found = scores(mean, reference, peak)
    words = in_words({name: float(score) for name, score in found.items()})
    save_panel(
        plan.target.with_name(f"{plan.target.stem}_{index:03d}.png"),
        zero_filled,
        mean,
        std,
        reference,
        found["scaled_psnr"].scale if found else 1.0,
        f"{file.path.name}, slice {index}, {plan.acquisition}" + (f", {words}" if words else ""),
    )
    writer.write(
        index, mean=mean, samples=samples, zero_filled=zero_filled, std=std, interval=bounds, scores=found
    )
    say(
        f"  slice {index}: {words + ', ' if words else ''}noise {result.sigma_y:.3g}, "
        f"{result.network_calls} network calls, {result.seconds:.1f} s"
    )
    return found


def reference_of(plan: Plan, kspace: Tensor, stored: Tensor | None) -> Tensor | None:
    """The file's own reference, else the root sum of squares of k-space of which samples are left out."""
    if stored is not None or not plan.acquisition.simulated:
        return stored
    return center_crop(rss(ifft2c(kspace)), plan.file.crop)


def reference_peak(plan: Plan) -> float | None:
    """Maximum of the reference volume, the data range of fastMRI's convention; None without a reference."""
    if plan.file.reference is None and not plan.acquisition.simulated:
        return None
    peak = 0.0
    for index in range(plan.file.slices):
        piece = plan.file.read_slice(index)
        image = reference_of(plan, piece.kspace, piece.reference)
        peak = max(peak, 0.0 if image is None else float(image.max()))
    return peak


def in_words(values: Mapping[str, float]) -> str:
    """Our scaled scores with fastMRI's beside them."""
    if not values:
        return ""
    return (
        f"PSNR {values['scaled_psnr']:.2f} dB, SSIM {values['scaled_ssim']:.3f}, NMSE {values['scaled_nmse']:.4f} scaled "
        f"(fastMRI {values['fastmri_psnr']:.2f} dB, {values['fastmri_ssim']:.3f}, {values['fastmri_nmse']:.4f})"
    )


# --- the plan in words -----------------------------------------------------------------------------------


def describe(plan: Plan, settings: Settings, prior: Any, slices: int | None = None) -> str:
    """What would be done with one file, or with some of its slices, for ``--dry-run``."""
    file, recipe = plan.file, settings.recipe
    maps = "given" if plan.maps or file.maps else "estimated" if file.coils > 1 else "none, one coil"
    sampler = POSTERIORS[recipe.sampler](prior, **recipe.sampler_options)
    solver = SOLVERS[recipe.solver](**recipe.solver_options)
    calls = (slices or file.slices) * sampler.network_calls(solver, recipe.steps, recipe.sigma_end)
    lines = [
        f"{file.path} -> {plan.target}" + (" (done already)" if plan.done else ""),
        f"  {file.slices} slices, {file.coils} coils, {file.height} x {file.width}, image {file.crop[0]} x {file.crop[1]}",
        f"  mask: {plan.acquisition}; maps: {maps}",
        f"  {0 if plan.done else calls} network calls of {recipe.samples} samples; "
        f"about {memory(plan, settings, prior) / 2**30:.1f} GiB of memory",
    ]
    return "\n".join(lines)


def memory(plan: Plan, settings: Settings, prior: Any) -> float:
    """Bytes at the peak, roughly: coil images of all samples, and the widest features of the network."""
    (height, width), recipe = plan.size, settings.recipe
    card = getattr(prior, "card", None) or {"network": {}}
    network = card.get("autoencoder", card)["network"]  # latents are small beside their image
    patch = network.get("patch", 2 if "autoencoder" in card else 1)
    features = max(network.get("widths", (32,))[0] / patch**2, 8)
    rows = min(settings.runtime.chunk or recipe.samples, recipe.samples)
    pixels = height * width
    coils = 8 * pixels * (plan.file.coils * (4 * recipe.samples + 6) + 10 * recipe.samples)
    return coils + 4 * pixels * rows * (6 * features + 8) + 3e8  # and the libraries themselves
