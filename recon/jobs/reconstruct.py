"""The job behind ``recon reconstruct``: files of k-space in, result files and pictures out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from ..io import (
    ResultWriter,
    center_crop,
    check_folder,
    is_done,
    picture_path,
    refuse_overwriting,
    result_paths,
    save_panel,
)
from ..io.checks.layout import look
from ..io.lock import refuse_busy
from ..io.outcome import Failure, Outcome
from ..io.results import part_of
from ..metrics import CONVENTIONS, Score, scores
from ..mri import SliceResult
from ..registry.plugins import load_plugin
from ..runtime.cluster import Cluster, on_worker, own_device
from .shared.exports import Exportable, Exports, make_exports
from .shared.guard import doubt_of
from .shared.planning import PlannedFile, kspace_files, noted_lines, plan_file, plan_in_words
from .shared.settings import Settings, prepared_prior
from .shared.slices import batches, reconstruct_some, reference_of


def reconstruct(
    inputs: Sequence[str | Path],
    settings: Settings | None = None,
    out: str | Path = "recon_out",
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    reads: Sequence[str | Path] = (),
    formats: Sequence[str] = (),
    dicom_template: str | Path | None = None,
    cluster: Cluster | None = None,
    plugin: str | None = None,
    say: Callable[[str], object] | None = None,
    fail: Callable[[Failure], object] = lambda failure: None,
) -> Outcome:
    """Reconstruct k-space files, or folders of them, to ``out/<stem>.h5`` with pictures beside them.

    Every input is checked before the first network call and before anything is written; one that
    fails does not stop the others. A run that is interrupted leaves ``.h5.part`` files, which the
    next one with the same settings goes on with; finished slices are never done twice. ``reads`` are
    further files that the command reads, such as its configuration: none of its inputs is written
    over. ``formats`` (nifti, dicom) are written beside each result, DICOM with the patient and study of the file
    ``dicom_template``. With a ``cluster`` its workers do the files, each of which has loaded ``plugin``; they see the
    same files as this process. ``fail`` is told of each failure as it happens. Raises `ConfigError` and `OutputError`
    for what concerns all inputs.
    """
    settings = settings or Settings()
    say = say or tqdm.write
    outcome = Outcome(fail=fail)

    exports = make_exports(formats, dicom_template)
    prior = prepared_prior(settings)
    files = kspace_files(inputs, outcome.failed)
    targets = result_paths(files, out)
    refuse_overwriting(targets, reads := [*files, *settings.files, *reads, *filter(None, [dicom_template])])
    check_folder(out)
    try:
        plans = plan_files(files, targets, settings, prior, exports, overwrite, reads, outcome.failed)
        if dry_run:
            for plan in plans:
                say(plan_in_words(plan, settings, prior))
            outcome.done = [plan.target for plan in plans]
            return outcome
        if cluster is None:
            reconstruct_files(plans, settings, prior, exports, overwrite, outcome, say)
        else:
            todo = [(plan.file.path, plan.target) for plan in plans]
            own = None if plugin is None else str(Path(plugin).resolve())
            rest = (settings, tuple(formats), dicom_template, overwrite, own)
            spread_files(todo, rest, cluster, outcome, say)
    except KeyboardInterrupt:
        outcome.interrupted = True
        afresh = overwrite and any(part_of(target).exists() for target in targets)
        command = "The same command" + (" without --overwrite" if afresh else "")
        say(f"Interrupted. {command} goes on with the slices that are missing.")
    return outcome


# --- planning --------------------------------------------------------------------------------------------


def plan_files(
    files: Sequence[Path],
    targets: Sequence[Path],
    settings: Settings,
    prior: Any,
    exports: Exports,
    overwrite: bool,
    reads: Sequence[str | Path],
    failed: Callable[[Path, Exception], None],
) -> list[PlannedFile]:
    """The plans of the files that can be reconstructed; ``failed`` is told of the others."""
    plans = []
    with tqdm(total=len(files), desc="checking", unit="file", disable=None, leave=False) as bar:
        for path, target in zip(files, targets, strict=True):
            try:
                file, found = look(path, settings.layout)
                plan = plan_file(file, found, target, settings, prior)
                refuse_overwriting((picture_path(target, index) for index in range(file.slices)), reads)
                refuse_overwriting(exports.paths(exported(plan, settings)), reads)
                refuse_busy(target)
                plan = replace(plan, done=is_done(target, plan.config, plan.source, overwrite))
                exports.refuse_existing(exported(plan, settings), overwrite)
                plans.append(plan)
            except Exception as error:
                failed(path, error)
            bar.update()
    return plans


def exported(plan: PlannedFile, settings: Settings) -> Exportable:
    """What other files of the result of ``plan`` are made of; one sample has no std."""
    file, images = plan.file, ("mean", "std") if settings.recipe.samples > 1 else ("mean",)
    unit = "the units of the k-space file"
    return Exportable(plan.target, file.slices, file.crop, images, file.geometry, unit, plan.done)


# --- the work --------------------------------------------------------------------------------------------


def reconstruct_files(
    plans: Sequence[PlannedFile],
    settings: Settings,
    prior: Any,
    exports: Exports,
    overwrite: bool,
    outcome: Outcome,
    say: Callable[[str], object],
) -> None:
    """Reconstruct what is planned, a file at a time, under one bar; ``outcome`` is kept up to date."""

    def export(plan: PlannedFile) -> None:
        for path in exports.write(exported(plan, settings), overwrite):
            say(f"Written: {path}")

    for plan in plans:
        if plan.done:
            say(f"{plan.target} is done already.")
            outcome.done.append(plan.target)
            try:
                export(plan)
            except Exception as error:
                outcome.failed(plan.file.path, error)
    todo = [plan for plan in plans if not plan.done]
    steps = sum(plan.file.slices for plan in todo) * settings.recipe.steps
    with tqdm(total=steps, unit="step", disable=None, smoothing=0.05) as bar:
        for plan in todo:
            path = plan.file.path
            head = f"{path}: {plan.file.counts}, {plan.acquisition}, network in {settings.runtime.precision}"
            say("\n".join([head, *noted_lines(plan)]))
            try:
                reconstruct_file(plan, settings, prior, overwrite, bar, say)
                outcome.done.append(plan.target)
                outcome.fresh.append(plan.target)
                export(plan)
            except Exception as error:
                outcome.failed(path, error)


def spread_files(
    todo: Sequence[tuple[Path, Path]],
    rest: tuple[Any, ...],
    cluster: Cluster,
    outcome: Outcome,
    say: Callable[[str], object],
) -> None:
    """Reconstruct files (inputs and targets) by the workers of ``cluster``; what a worker began that died is gone on with.

    ``rest``: further arguments of `file_on_worker`.
    """
    tasks = [(path.resolve(), target.resolve(), *rest) for path, target in todo]
    with (
        tqdm(total=len(todo), unit="file", disable=None) as bar,
        closing(cluster.results(file_on_worker, tasks)) as found,
    ):
        for number, result in found:
            path, target = todo[number]
            said, fresh, errors = ([], False, [result]) if isinstance(result, Exception) else result
            if said:
                say("\n".join(said))
            if target.exists() and (fresh or not errors):
                outcome.done.append(target)
                outcome.fresh += [target] if fresh else []
            for error in errors:
                outcome.failed(path, error)
            bar.update()


def file_on_worker(
    path: Path,
    target: Path,
    settings: Settings,
    formats: Sequence[str],
    dicom_template: str | Path | None,
    overwrite: bool,
    plugin: str | None,
) -> tuple[list[str], bool, list[Exception]]:
    """Reconstruct one file in this process: what was said, whether it was made now, and what failed."""
    said, outcome = [], Outcome()
    with on_worker():
        if plugin is not None:
            load_plugin(plugin)
        settings = replace(settings, runtime=own_device(settings.runtime))
        if repr(settings) not in HELD:
            HELD.clear()
            HELD[repr(settings)] = prepared_prior(settings)
        prior, exports = HELD[repr(settings)], make_exports(formats, dicom_template)
        plans = plan_files([path], [target], settings, prior, exports, overwrite, [], outcome.failed)
        reconstruct_files(plans, settings, prior, exports, overwrite, outcome, said.append)
    return said, bool(outcome.fresh), [failure.error for failure in outcome.failures]


HELD: dict[str, Any] = {}
"""Of a worker: the prior that it has loaded, by the settings."""


def reconstruct_file(
    plan: PlannedFile,
    settings: Settings,
    prior: Any,
    overwrite: bool,
    bar: Any,
    say: Callable[[str], object],
) -> None:
    """All slices of one file that are missing; an error before the first is done leaves no file."""
    file, steps = plan.file, settings.recipe.steps
    peak = reference_peak(plan)
    with open_result(plan, settings, overwrite, scored=peak is not None) as writer:
        try:
            bar.update((file.slices - len(writer.todo)) * steps)
            for indices in batches(plan, writer.todo, settings, prior):
                bar.set_description(f"{file.path.name} {indices[-1] + 1}/{file.slices}")
                for index, reference, result in reconstruct_some(plan, settings, prior, indices, bar):
                    finish_slice(plan, index, reference, peak, result, writer, say)
            found = writer.scores
            writer.finish()
        except Exception:
            if not any(writer.finished):
                writer.discard()
            raise
    if summary := summarised(found):
        say(f"{file.path.name}, {summary}")


def open_result(plan: PlannedFile, settings: Settings, overwrite: bool, scored: bool) -> ResultWriter:
    """The file that the slices of ``plan`` are written to, begun or to be continued."""
    acquisition = plan.acquisition
    return ResultWriter(
        plan.target,
        slices=plan.file.slices,
        size=plan.file.crop,
        samples=settings.recipe.samples,
        config=plan.config,
        seed=settings.recipe.seed,
        source=plan.source,
        mask=acquisition.mask[0] if acquisition.whole_columns else acquisition.mask,
        scores=CONVENTIONS if scored else None,
        attrs=dict(
            input=plan.file.path.name,
            device=str(settings.runtime.torch_device()),
            precision=settings.runtime.precision,
            acceleration=acquisition.accel,
        ),
        overwrite=overwrite,
    )


def finish_slice(
    plan: PlannedFile,
    index: int,
    reference: Tensor | None,
    peak: float | None,
    result: SliceResult,
    writer: ResultWriter,
    say: Callable[[str], object],
) -> None:
    """Compare, draw and write one slice; it is finished once all of that is done."""
    size = plan.file.crop
    mean, samples, zero_filled = (
        center_crop(image, size) for image in (result.mean, result.samples, result.zero_filled)
    )
    std, interval = (
        None if image is None else center_crop(image, size) for image in (result.std, result.interval)
    )
    found = score_slice(mean, reference, peak)
    words = in_words({name: float(score) for name, score in found.items()})
    save_panel(
        picture_path(plan.target, index),
        zero_filled,
        mean,
        std,
        reference,
        found["scaled_psnr"].scale if found else 1.0,
        f"{plan.file.path.name}, slice {index}, {plan.acquisition}, residual {result.residual:.2f}"
        + (f", {words}" if words else ""),
    )
    writer.write(
        index,
        mean=mean,
        samples=samples,
        zero_filled=zero_filled,
        std=std,
        interval=interval,
        residual=result.residual,
        scores=found,
    )
    say(
        f"  slice {index}: {words + ', ' if words else ''}noise {result.sigma_y:.3g}, "
        f"residual {result.residual:.2f}, {result.network_calls} network calls, {result.seconds:.1f} s"
    )
    if doubt := doubt_of(result, plan.config["sigma_floor"]):
        say(f"  warning: slice {index}: {doubt}")


# --- scores ----------------------------------------------------------------------------------------------


def reference_peak(plan: PlannedFile) -> float | None:
    """Maximum of the reference volume, the data range of fastMRI's convention; None without a reference."""
    if not plan.acquisition.simulated and (plan.file.reference is None or plan.whitened):
        return None
    peak = 0.0
    for index in range(plan.file.slices):
        piece = plan.file.read_slice(index)
        image = reference_of(plan, piece.kspace, piece.reference)
        peak = max(peak, 0.0 if image is None else float(image.max()))
    return peak


def score_slice(mean: Tensor, reference: Tensor | None, peak: float | None) -> dict[str, Score]:
    """Scores of one slice; none without a reference, or where it is zero everywhere."""
    if reference is None or peak is None or not float(reference.max()) > 0:
        return {}
    return scores(mean, reference, peak)


def summarised(found: Mapping[str, np.ndarray]) -> str:
    """Means over all slices that have scores, of this run and of those before it; nothing for a single one."""
    known = {name: values[~np.isnan(values)] for name, values in found.items()}
    count = min((len(values) for values in known.values()), default=0)
    if count < 2:
        return ""
    means = {name: float(values.mean()) for name, values in known.items()}
    return f"mean of {count} slices: {in_words(means)}"


def in_words(values: Mapping[str, float]) -> str:
    """Our scaled scores with fastMRI's beside them."""
    if not values:
        return ""
    return (
        f"PSNR {values['scaled_psnr']:.2f} dB, SSIM {values['scaled_ssim']:.3f}, NMSE {values['scaled_nmse']:.4f} scaled "
        f"(fastMRI {values['fastmri_psnr']:.2f} dB, {values['fastmri_ssim']:.3f}, {values['fastmri_nmse']:.4f})"
    )
