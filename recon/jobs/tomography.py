"""The job behind ``recon reconstruct`` for sinograms: tomograms with their uncertainty, and pictures of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..io import (
    ResultWriter,
    check_folder,
    is_done,
    picture_path,
    refuse_overwriting,
    result_paths,
    save_panel,
)
from ..io.lock import refuse_busy
from ..io.orthogonal import save_volume, volume_paths
from ..io.outcome import Failure, Outcome
from ..io.results import Images, part_of, read_result
from ..metrics import CONVENTIONS, Score, scores
from ..registry.recipe import build
from .shared.exports import Exportable, Exports, make_exports
from .shared.guard import HIGH, LOW
from .shared.scans import (
    OVERLAP,
    OpenedScan,
    PlannedScan,
    TomographySettings,
    block_of,
    needed_memory,
    open_scan,
    operator_for,
    plan_scan,
    prior_of_tomography,
)
from .shared.tomograms import Tomogram, as_measured, rays_of, reconstruct_tomograms

MOST_TOGETHER = 16  # slices
DATA_RANGE = "fastmri_psnr"  # of the scores: values as they are, the reference volume's maximum


def reconstruct_sinograms(
    inputs: Sequence[Path],
    settings: TomographySettings | None = None,
    out: str | Path = "recon_out",
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    reads: Sequence[str | Path] = (),
    formats: Sequence[str] = (),
    dicom_template: str | Path | None = None,
    say: Callable[[str], object] | None = None,
    fail: Callable[[Failure], object] = lambda failure: None,
) -> Outcome:
    """Reconstruct sinograms to ``out/<stem>.h5`` with a picture of each slice beside it.

    In the file: ``reconstruction`` (slices, size, size), ``std``, ``interval``, ``samples`` and ``fbp``, attenuation per the
    file's unit of length. Every input is checked before the first network call and before anything is written; one that
    fails does not stop the others. An interrupted run leaves ``.h5.part`` files, which the next one with the same
    settings goes on with; finished slices are never done twice. ``formats`` (nifti, dicom, tiff) are written beside each
    result. ``fail`` is told of each failure as it happens. Raises `ConfigError` and `OutputError` for what concerns
    all inputs.
    """
    settings = settings or TomographySettings()
    say, outcome = say or tqdm.write, Outcome(fail=fail)
    exports = make_exports(formats, dicom_template)
    prior = prior_of_tomography(settings)
    targets = result_paths(inputs, out)
    refuse_overwriting(targets, reads := [*inputs, *settings.files, *reads, *filter(None, [dicom_template])])
    check_folder(out)
    try:
        plans = []
        for path, target in zip(inputs, targets, strict=True):
            try:
                plan = plan_scan(path, target, settings, prior)
                pictures = [picture_path(target, index) for index in range(plan.slices)]
                refuse_overwriting([*pictures, *volume_paths(target, plan.slices)], reads)
                refuse_busy(target)
                plan = replace(plan, done=is_done(target, plan.config, plan.source, overwrite))
                refuse_overwriting(exports.paths(exported_images(plan, settings)), reads)
                exports.refuse_existing(exported_images(plan, settings), overwrite)
                plans.append(plan)
            except Exception as error:
                outcome.failed(path, error)
        if dry_run:
            for plan in plans:
                say(scan_in_words(plan, settings, prior))
            outcome.done = [plan.target for plan in plans]
            return outcome
        reconstruct_all(plans, settings, prior, exports, overwrite, outcome, say)
    except KeyboardInterrupt:
        outcome.interrupted = True
        afresh = overwrite and any(part_of(target).exists() for target in targets)
        command = "The same command" + (" without --overwrite" if afresh else "")
        say(f"Interrupted. {command} goes on with the slices that are missing.")
    return outcome


def exported_images(plan: PlannedScan, settings: TomographySettings) -> Exportable:
    """What other files of the result of ``plan`` are made of; one sample has no std."""
    names = ("mean", "std") if settings.recipe.samples > 1 else ("mean",)
    unit = f"attenuation per {plan.unit}"
    water = plan.water if plan.known_water else None
    size = (plan.size, plan.size)
    return Exportable(plan.target, plan.slices, size, names, plan.geometry, unit, plan.done, water)


def scan_in_words(plan: PlannedScan, settings: TomographySettings, prior: Any) -> str:
    """What would be done with a sinogram, for ``--dry-run``."""
    recipe = settings.recipe
    sampler, solver = build(plan.recipe, prior)
    calls = plan.slices * sampler.network_calls(solver, recipe.steps)
    largest = max(len(seen) for seen, _ in batches_of(plan, range(plan.slices), settings))
    needed = needed_memory(largest, plan.size, settings)
    lines = [
        f"{plan.path} -> {plan.target}" + (" (done already)" if plan.done else ""),
        f"  {plan.counts}",
        f"  {0 if plan.done else calls} network calls of {recipe.samples} samples in {settings.runtime.precision}; "
        f"about {needed / 2**30:.1f} GiB of memory",
    ]
    return "\n".join([*lines, *remarks(plan)])


def remarks(plan: PlannedScan) -> list[str]:
    """What was done with a sinogram, and what looks wrong, a line each."""
    return [f"  note: {note}" for note in plan.notes] + [f"  warning: {text}" for text in plan.warnings]


def reconstruct_all(
    plans: Sequence[PlannedScan],
    settings: TomographySettings,
    prior: Any,
    exports: Exports,
    overwrite: bool,
    outcome: Outcome,
    say: Callable[[str], object],
) -> None:
    """Reconstruct what is planned, a sinogram at a time, under one bar; ``outcome`` is kept up to date."""

    def export(plan: PlannedScan) -> None:
        for path in exports.write(exported_images(plan, settings), overwrite):
            say(f"Written: {path}")

    steps = sum(plan.slices for plan in plans if not plan.done) * settings.recipe.steps
    with tqdm(total=steps, unit="step", disable=None, smoothing=0.05) as bar:
        for plan in plans:
            try:
                if plan.done:
                    say(f"{plan.target} is done already.")
                else:
                    head = f"{plan.path}: {plan.counts}, network in {settings.runtime.precision}"
                    say("\n".join([head, *remarks(plan)]))
                    reconstruct_one(plan, settings, prior, overwrite, bar, say)
                    outcome.fresh.append(plan.target)
                outcome.done.append(plan.target)
                export(plan)
            except Exception as error:
                outcome.failed(plan.path, error)


def reconstruct_one(
    plan: PlannedScan,
    settings: TomographySettings,
    prior: Any,
    overwrite: bool,
    bar: Any,
    say: Callable[[str], object],
) -> None:
    """All slices of one sinogram that are missing; an error before the first is done leaves no file."""
    opened = open_scan(plan.path, settings)
    device, recipe, advance = settings.runtime.torch_device(), plan.recipe, 0
    A = operator_for(opened, plan.size, plan.pixel).to(device)
    references = None if opened.whole is None else Whole(opened, plan)

    def watch(step: int, state: Any, residual: float) -> None:
        bar.set_postfix(residual=f"{residual:.3g}", refresh=False)
        bar.update(advance)

    with open_tomogram(plan, opened, settings, overwrite, references is not None) as writer:
        try:
            bar.update((plan.slices - len(writer.todo)) * recipe.steps)
            for seen, kept in batches_of(plan, writer.todo, settings):
                advance = len(kept)
                bar.set_description(f"{plan.path.name} {kept[-1] + 1}/{plan.slices}")
                y = rays_of(opened.sinogram, seen).to(device)
                std = as_measured(opened.std, opened.sinogram, seen).to(device)
                names = seen[:1] if plan.cone else seen
                found = reconstruct_tomograms(
                    A, y, std, plan.water, recipe, prior, plan.levels, names, watch, plan.joined
                )
                for index, tomogram, place in slices_in(found, seen):
                    if index in kept:
                        reference = None if references is None else references.slice(index)
                        peak = 1.0 if references is None else references.peak
                        finish_tomogram(plan, index, tomogram, place, reference, peak, writer, say)
            made = writer.finish()
        except Exception:
            if not any(writer.finished):
                writer.discard()
            raise
    if volume_paths(plan.target, plan.slices):
        result = read_result(made)
        for path in save_volume(made, result.reconstruction, result.std):
            say(f"Written: {path}")


def batches_of(
    plan: PlannedScan, todo: Sequence[int], settings: TomographySettings
) -> list[tuple[list[int], list[int]]]:
    """The slices of each piece of work: those that are sampled, and those of them that are kept.

    All of a cone beam. Of neighbours, blocks (`block_of`) that overlap by `OVERLAP` slices at both ends, whose places are
    fixed, so that a run that goes on makes the same. Else as many as the runtime says, by default one, or what half a GPU's
    memory holds.
    """
    if plan.cone:
        return [(list(range(plan.slices)), list(range(plan.slices)))] if todo else []
    if plan.joined:
        size, found = block_of(settings), []
        for start in range(0, plan.slices, size):
            kept = [index for index in range(start, min(start + size, plan.slices)) if index in todo]
            seen = range(max(0, start - OVERLAP), min(start + size + OVERLAP, plan.slices))
            found += [(list(seen), kept)] if kept else []
        return found
    count = settings.runtime.slices
    device = settings.runtime.torch_device()
    if not count and device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        count = min(MOST_TOGETHER, int(free / 2 / needed_memory(1, plan.size, settings)))
    pieces = [list(todo[start : start + max(1, count)]) for start in range(0, len(todo), max(1, count))]
    return [(piece, piece) for piece in pieces]


def slices_in(found: Sequence[Tomogram], indices: Sequence[int]) -> Iterator[tuple[int, Tomogram, int]]:
    """(index, tomogram, place of the slice in it) of every slice, in order."""
    places = [(tomogram, place) for tomogram in found for place in range(len(tomogram.mean))]
    yield from ((index, *one) for index, one in zip(indices, places, strict=True))


class Whole:
    """Filtered back-projections of all views of a sinogram, of which only some are reconstructed: what these are judged by."""

    def __init__(self, opened: OpenedScan, plan: PlannedScan):
        assert opened.whole is not None
        self.whole, self.plan = opened.whole, plan
        self.A = operator_for(replace(opened, sinogram=self.whole), plan.size, plan.pixel)
        self.kept: dict[int, Tensor] = {}
        middle = self.slice(plan.slices // 2)
        self.peak = float(middle.max())

    def slice(self, index: int) -> Tensor:
        """That of slice ``index`` (size, size)."""
        if index not in self.kept:
            with torch.no_grad():
                image = self.A.fbp(rays_of(self.whole, [index]))[0, 0]
            self.kept = dict(enumerate(image)) if self.plan.cone else {index: image}
        return self.kept[index]


def open_tomogram(
    plan: PlannedScan, opened: OpenedScan, settings: TomographySettings, overwrite: bool, scored: bool
) -> ResultWriter:
    """The file that the slices of ``plan`` are written to, begun or to be continued."""
    return ResultWriter(
        plan.target,
        slices=plan.slices,
        size=(plan.size, plan.size),
        samples=settings.recipe.samples,
        config=plan.config,
        seed=settings.recipe.seed,
        source=plan.source,
        scores=CONVENTIONS if scored else None,
        attrs=dict(
            input=plan.path.name,
            device=str(settings.runtime.torch_device()),
            precision=settings.runtime.precision,
            unit=f"1/{plan.unit}",
            pixel=plan.pixel,
            water=plan.water,
            water_known=plan.known_water,
            views=len(opened.sinogram.angles),
            rotation_axis=opened.sinogram.axis,
        ),
        overwrite=overwrite,
        images=Images(f"attenuation per {plan.unit}", real=True, without="fbp"),
    )


def finish_tomogram(
    plan: PlannedScan,
    index: int,
    found: Tomogram,
    place: int,
    reference: Tensor | None,
    peak: float,
    writer: ResultWriter,
    say: Callable[[str], object],
) -> None:
    """Compare, draw and write one slice; it is finished once all of that is done."""
    mean, fbp, samples = found.mean[place].cpu(), found.fbp[place].cpu(), found.samples[place].cpu()
    std = None if found.std is None else found.std[place].cpu()
    interval = None if found.interval is None else found.interval[place].cpu()
    judged: dict[str, Score] = {}
    words = ""
    if reference is not None:
        judged, plain = scores(mean, reference, peak), scores(fbp, reference, peak)
        words = (
            f"PSNR {float(judged[DATA_RANGE]):.2f} dB, SSIM {float(judged['fastmri_ssim']):.3f} to the FBP of all views "
            f"(FBP {float(plain[DATA_RANGE]):.2f} dB), "
        )
    save_panel(
        picture_path(plan.target, index),
        fbp.clamp_min(0),
        mean.clamp_min(0),
        std,
        None if reference is None else reference.clamp_min(0),
        1.0,
        f"{plan.path.name}, slice {index}, {words}residual {found.residual:.2f}",
        without="FBP",
    )
    writer.write(
        index,
        mean=mean,
        samples=samples,
        fbp=fbp,
        std=std,
        interval=interval,
        residual=found.residual,
        scores=judged,
    )
    say(
        f"  slice {index}: {words}residual {found.residual:.2f}, {found.network_calls} network calls, {found.seconds:.1f} s"
    )
    if doubt := doubt_of_rays(found.residual):
        say(f"  warning: slice {index}: {doubt}")


def doubt_of_rays(residual: float) -> str:
    """What is doubtful about samples whose residual is far from 1, and why it may be; empty if nothing."""
    if not math.isfinite(residual) or residual > HIGH:
        return (
            f"the samples are {residual:.2g} times as far from the rays as their noise is. Likely: the rotation axis is off "
            "(--axis auto), angles or geometry of another scan, angles in radians or counted the other way, an object that "
            "is wider than the image (--size, --pixel), rings, more noise than estimated, or a sampler that needs more steps. "
            "See recon inspect."
        )
    if residual < LOW:
        return (
            f"the samples are {residual:.2g} times as far from the rays as their noise is. Likely: less noise than estimated "
            "(--sigma), or rays that were smoothed or interpolated."
        )
    return ""
