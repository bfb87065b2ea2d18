"""The job behind ``recon reconstruct``: files of k-space in, result files and pictures out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from ..io import (
    ResultWriter,
    center_crop,
    check_folder,
    open_kspace,
    result_paths,
    save_panel,
    scan,
)
from ..io.outcome import Failure, Outcome, explained
from ..metrics import CONVENTIONS, Score, scores
from ..mri import SliceResult
from .shared.inputs import PlannedFile, expand, plan_file
from .shared.settings import Settings, prepared_prior
from .shared.slices import batched, describe, reconstruct_some, reference_of, slices_at_once


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
        plans = plan_files(files, targets, settings, prior, overwrite, failed)
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


def plan_files(
    files: Sequence[Path],
    targets: Sequence[Path],
    settings: Settings,
    prior: Any,
    overwrite: bool,
    failed: Callable[[Path, Exception], None],
) -> list[PlannedFile]:
    plans = []
    with tqdm(total=len(files), desc="checking", unit="file", disable=None, leave=False) as bar:
        for path, target in zip(files, targets, strict=True):
            try:
                file = open_kspace(path)
                plans.append(plan_file(file, scan(file), target, settings, prior, overwrite))
            except Exception as error:
                failed(path, explained(error, path))
            bar.update()
    return plans


def work(
    plans: Sequence[PlannedFile],
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
    plan: PlannedFile,
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


def keep(
    plan: PlannedFile,
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


def reference_peak(plan: PlannedFile) -> float | None:
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
