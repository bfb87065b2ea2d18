"""The job behind ``recon calibrate``: reconstruct known images, and count how often the intervals hold them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tqdm import tqdm

from ..calibration import Calibration, Measured, measure, summary
from ..errors import ConfigError, InputError
from ..intervals import refuse_level
from ..io import center_crop, check_folder, refuse_existing, refuse_overwriting, survey
from ..io.acquisition import MaskChoice, has_gaps, measured_samples
from ..io.checks.layout import look
from ..io.images import stack_shape
from ..io.reports import json_text
from ..io.simulated import holds_images, simulated_file
from ..io.whole import write_together
from .shared.guard import doubt_of
from .shared.planning import PlannedFile, kspace_files, noted_lines, plan_file, plan_in_words
from .shared.reliability import (
    calibration_markdown,
    coverage_table,
    ranks_in_words,
    reliability_figure,
    verdict,
)
from .shared.settings import Settings, prepared_prior
from .shared.slices import batches, reconstruct_some

LEVELS = (0.5, 0.8, 0.9, 0.95)
USUAL_MASK = MaskChoice("random", 4, 0.08)  # where none is chosen
SLICES = 8  # of each input, where their number is not given


@dataclass(frozen=True, eq=False)
class Piece:
    """An input: its plan, and the slices that are measured, as index in the plan -> number in the input."""

    plan: PlannedFile
    slices: dict[int, int]


def calibrate(
    inputs: Sequence[str | Path],
    settings: Settings | None = None,
    levels: Sequence[float] = LEVELS,
    slices: int | None = None,
    out: str | Path = "recon_out",
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    reads: Sequence[str | Path] = (),
    say: Callable[[str], object] | None = None,
) -> Calibration | None:
    """Measure `calibration.summary` over ``slices`` of each input, and write ``calibration.json``, ``.md`` and ``.png``.

    An input is fully sampled k-space, which is undersampled here, its reference the root sum of squares
    of all data (whose noise counts against the intervals); or a stack of magnitude slices (.npz,
    ``images``), measured by simulated coils (`io.simulated.SimulatedStore`), with a reference without
    noise. Slices are the middles of equal parts of the input. Returns None for a dry run. Everything is
    checked before the first network call, and one bad input stops the job: the others would be another
    set. ``reads`` are further files that the command reads, such as its configuration: none of its
    inputs is written over. Raises `ConfigError`, `InputError` and `OutputError`.
    """
    settings, say = settings or Settings(), say or tqdm.write
    levels = refused_levels(levels)
    refuse_few(settings.recipe.samples, slices)
    settings = with_usual_mask(settings)
    targets = [check_folder(out) / f"calibration.{kind}" for kind in ("json", "md", "png")]
    refuse_existing(targets, overwrite)
    prior = prepared_prior(settings)
    files = kspace_files(inputs, raised)
    refuse_overwriting(targets, [*files, *settings.files, *reads])
    pieces = [make_piece(path, slices, targets[0], settings, prior) for path in files]
    if sum(len(piece.slices) for piece in pieces) < 2:
        raise InputError(
            "There is one slice to measure.",
            "How far a calibration holds is seen by comparing slices.",
            "Name more inputs" + ("." if slices is None else ", or use a larger --slices."),
        )
    if dry_run:
        for piece in pieces:
            chosen = ", ".join(map(str, piece.slices.values()))
            say(
                f"{plan_in_words(piece.plan, settings, prior, len(piece.slices))}\n  slices measured: {chosen}"
            )
        return None
    try:
        measured = measure_slices(pieces, settings, prior, levels, say)
    except KeyboardInterrupt:
        say("Interrupted. Nothing was written: slices count together only, so the same command starts again.")
        raise
    found = summary(measured, levels)
    write_reports(targets, found, [path.name for path in files], settings)
    for line in (coverage_table(found), ranks_in_words(found), f"Written: {', '.join(map(str, targets))}"):
        say(line)
    say(verdict(found))
    return found


def measure_slices(
    pieces: Sequence[Piece],
    settings: Settings,
    prior: object,
    levels: Sequence[float],
    say: Callable[[str], object],
) -> list[Measured]:
    """Reconstruct every chosen slice and compare it with its reference, under one bar."""
    measured: list[Measured] = []
    total = sum(len(piece.slices) for piece in pieces) * settings.recipe.steps
    with tqdm(total=total, unit="step", disable=None, smoothing=0.05) as bar:
        for plan, numbers in ((piece.plan, piece.slices) for piece in pieces):
            for line in noted_lines(plan):
                say(f"{plan.file.path.name}: {line.strip()}")
            for indices in batches(plan, list(numbers), settings, prior):
                for index, reference, result in reconstruct_some(plan, settings, prior, indices, bar):
                    assert reference is not None  # `make_piece`
                    samples = center_crop(result.samples, plan.file.crop)
                    measured.append(measure(reference, samples, levels, result.weights))
                    held = ", ".join(
                        f"{level:g}: {share:.3f}"
                        for level, share in zip(levels, measured[-1].held, strict=True)
                    )
                    say(f"  {plan.file.path.name}, slice {numbers[index]}: {held}")
                    if doubt := doubt_of(result, settings.recipe.sigma_floor):
                        say(f"  warning: slice {numbers[index]}: {doubt}")
    return measured


def make_piece(path: Path, slices: int | None, target: Path, settings: Settings, prior: object) -> Piece:
    """The plan of one input; raises `InputError` where it has no reference, or too few slices."""
    if holds_images(path):
        chosen = spread_evenly(stack_shape(path)[0], slices, path)
        file, numbers = simulated_file(path, chosen), dict(enumerate(chosen))
        found = survey(file)
    else:
        file, found = look(path, settings.layout)
        file = replace(file, reference=None)  # the file's own may be of another kind
        numbers = {index: index for index in spread_evenly(file.slices, slices, path)}
    if has_gaps(measured_samples(file, found)):
        raise InputError(
            f"{path} has no reference: it is undersampled.",
            "Intervals are compared with the image of all data.",
            "Name fully sampled k-space, or magnitude images as npz with `images`.",
        )
    plan = plan_file(file, found, target, settings, prior)
    if not plan.acquisition.simulated:
        raise ConfigError(
            f"{path}: the mask leaves nothing out.",
            "The reference would be what was measured.",
            "Choose a higher --accel, or another --mask.",
        )
    return Piece(plan, numbers)


def spread_evenly(count: int, wanted: int | None, path: Path) -> list[int]:
    """The slices in the middle of ``wanted`` equal parts of ``count``."""
    if wanted is not None and wanted > count:
        raise InputError(
            f"{path} has {count} slices, {wanted} are to be measured.",
            "Each is measured once.",
            f"Use --slices {count} or fewer.",
        )
    parts = wanted or min(count, SLICES)
    return [int((part + 0.5) * count / parts) for part in range(parts)]


def with_usual_mask(settings: Settings) -> Settings:
    """`USUAL_MASK` where no mask is chosen."""
    return replace(settings, mask=USUAL_MASK) if settings.mask == MaskChoice() else settings


def refused_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """The levels, rising, each once; raises `ConfigError`."""
    for level in levels:
        refuse_level(level)
    if not levels:
        raise ConfigError("No level was given.", do="Give --levels .5 .9, or none for the usual ones.")
    return tuple(sorted(set(levels)))


def refuse_few(samples: int, slices: int | None) -> None:
    """Raise `ConfigError` for fewer than two samples, or less than one slice."""
    if samples < 2:
        raise ConfigError(
            f"samples is {samples}.", "One sample has no interval.", "Use --samples 16, at least 2."
        )
    if slices is not None and slices < 1:
        raise ConfigError(f"slices is {slices}.", do="Measure at least 1 of each input, 2 in all.")


def raised(path: Path, error: Exception) -> None:
    """Stop at the first input that cannot be used."""
    raise error


def write_reports(
    targets: Sequence[Path], found: Calibration, names: Sequence[str], settings: Settings
) -> None:
    """The calibration as JSON, Markdown and figure; all three are replaced, or none is."""
    data, text = (
        as_json(found, names, settings),
        calibration_markdown(found, names, settings.recipe, settings.mask),
    )
    as_data, as_text, as_figure = targets
    write_together(
        {
            as_data: lambda file: file.write(data.encode()),
            as_text: lambda file: file.write(text.encode()),
            as_figure: lambda file: reliability_figure(found).savefig(file, format="png"),
        }
    )


def as_json(found: Calibration, names: Sequence[str], settings: Settings) -> str:
    """All numbers with the settings; an infinite one is null, since JSON has none."""
    whole = {
        "verdict": verdict(found),
        "inputs": list(names),
        **asdict(found),
        "rank_variance": found.rank_variance,
        "mean_rank": found.mean_rank,
        "settings": asdict(settings),
    }
    return json_text(whole, indent=2) + "\n"
