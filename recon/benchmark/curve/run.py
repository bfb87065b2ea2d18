"""``recon bench curve``: PSNR against network calls on a real scan, every solver with one prior and one start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from torch import Tensor

from operators.coils import rss
from operators.fourier import ifft2c

from ...errors import ConfigError, ReconError, SamplingError, unknown
from ...io import check_folder, open_kspace
from ...io.reports import unique
from ...io.whole import write_whole
from ...jobs.shared.settings import prepared_prior, settle
from ...metrics import object_psnr, scaled_psnr
from ...mri import Normalised, normalise, reconstruct_slices
from ...pairing import refuse_order
from ...priors import Prior, about
from ...registry.configuration import parse_solver, read_config
from ...registry.objects import make_solver
from ...registry.recipe import LAST_LEVELS, Recipe, make_recipe
from ...runtime.runtime import Runtime
from ...solvers import Solver
from ..scans.real import CASES, Say, find_scan
from ..sharing import claimed, locked
from .points import Point, append_point, options_text, read_points
from .report import curve_figure, curve_report

CURVE_CALLS = (5, 8, 10, 15, 20, 30, 50, 100)
CURVE_SOLVERS = (
    "euler", "ddim,eta=1", "renoise", "heun", "dpm++3s", "dpm++2m", "dpm++3m", "unipc2", "unipc3",
    "deis-rho3", "ipndm", "ghvb", "sde-dpm++1", "sde-dpm++2m",
)  # fmt: skip
CURVE_CASES = ("4x equispaced", "4x random", "8x equispaced")
KEEP = {"noise": ("noise",), "state": ("state",), "both": ("noise", "state")}


@dataclass(frozen=True)
class CurveSettings:
    """What is asked for: budgets of calls per sample, cases by name, and a recipe for each solver and ``keep``."""

    calls: tuple[int, ...]
    cases: tuple[str, ...]
    recipes: tuple[Recipe, ...]

    def points(self) -> Iterator[tuple[str, Recipe]]:
        """The case and the recipe, with its steps, of each point, each once."""
        recipes = [
            replace(recipe, steps=steps)
            for recipe in self.recipes
            for steps in unique(steps_within(recipe, n) for n in self.calls)
            if steps
        ]
        return ((case, recipe) for case in self.cases for recipe in recipes)


def read_curve(
    recipe: Recipe,
    cases: Sequence[str] = (),
    solvers: Sequence[str] = (),
    calls: Sequence[int] = (),
    samples: int = 4,
    keep: str = "noise",
) -> CurveSettings:
    """The settings of a curve, checked. A solver may have options: ``ddim,eta=1``. Raises `ConfigError`."""
    known = list(CASES)
    for case in cases:
        if case not in known:
            raise unknown("case", case, known)
    if keep not in KEEP:
        raise unknown("keep", keep, KEEP)
    if any(n < 1 for n in calls):
        raise ConfigError(f"calls are {list(calls)}.", "A budget of network calls is at least 1.")
    recipes, end = [], recipe.sigma_end or LAST_LEVELS[0]
    for kept in KEEP[keep]:
        for solver in solvers or CURVE_SOLVERS:
            name, options = parse_solver(solver)
            given = {
                "solver": name,
                "solver_options": options,
                "steps": max(CURVE_CALLS),
                "samples": samples,
                "sampler_options": recipe.sampler_options | {"keep": kept},
            }
            recipes.append(make_recipe(asdict(recipe) | {"sigma_end": end} | given))
    return CurveSettings(
        tuple(sorted(set(calls or CURVE_CALLS))), tuple(cases or CURVE_CASES), tuple(recipes)
    )


def steps_within(recipe: Recipe, calls: int) -> int:
    """The most steps of the recipe's solver with at most ``calls`` network calls; 0 where it refuses so few steps."""
    solver = solver_of(recipe)
    steps = max((n for n in range(1, calls + 1) if solver.calls(n) <= calls), default=0)
    try:
        refuse_order(solver, steps)
    except ConfigError:
        return 0
    return steps


def solver_of(recipe: Recipe) -> Solver:
    """The solver that a recipe names."""
    return make_solver(recipe.solver, recipe.solver_options)


def run_curve(
    config: str | None,
    data: str | Path | None,
    out: str | Path,
    *,
    cases: Sequence[str] = (),
    solvers: Sequence[str] = (),
    calls: Sequence[int] = (),
    samples: int = 4,
    keep: str = "noise",
    dry_run: bool = False,
    say: Say = print,
) -> list[Path]:
    """`measure_curve` as `read_curve` reads it, with the settings of ``config`` (a preset or a YAML file).

    The scan is found below ``data``. Returns the files written.
    """
    settings = settle(read_config(config) if config else {}, {})
    curve = read_curve(settings.recipe, cases, solvers, calls, samples, keep)
    path = find_scan(data)
    return measure_curve(
        path, curve, prepared_prior(settings), settings.runtime, Path(out), dry_run=dry_run, say=say
    )


def measure_curve(
    path: Path,
    curve: CurveSettings,
    prior: Prior,
    runtime: Runtime,
    out: Path,
    *,
    dry_run: bool = False,
    say: Say = print,
) -> list[Path]:
    """Every point of the curve on the first slice of a fully sampled file, to ``out/solvers.csv``, .md and .png.

    Points that the CSV file has are not made again, and are part of the table and the figure if they have
    the same settings. A point that a solver refuses (more order than steps) is left out. Processes may share
    the folder: a point that one of them is making is left to it. Preprocessing, reference and masks are those
    of `scans.comparison.compare_on_scan`. Returns the files written; raises `OutputError`.
    """
    csv = out / "solvers.csv"
    done = {point.key for point in read_points(csv)}
    points = [(recipe, unscored_point(path, prior, case, recipe)) for case, recipe in curve.points()]
    missing = [(recipe, point) for recipe, point in points if point.key not in done]
    rows = sum(recipe.samples * solver_of(recipe).calls(recipe.steps) for recipe, _ in missing)
    say(f"{len(points)} points, {len(points) - len(missing)} of them done; {rows} images through the network")
    if dry_run:
        return []
    check_folder(out).mkdir(parents=True, exist_ok=True)
    for case in unique(point.case for _, point in missing):
        measured, reference = undersampled_slice(path, case, curve.recipes[0], runtime)
        for recipe, point in missing:
            if point.case == case:
                make_point(csv, point, measured, reference, recipe, prior, say)
    with locked(out / "solvers.md"):
        settings = {point.settings for _, point in points}
        found = [point for point in read_points(csv) if point.settings in settings and point.case in CASES]
        return write_curve(found, curve, out, csv)


def make_point(
    csv: Path,
    point: Point,
    measured: Normalised,
    reference: Tensor,
    recipe: Recipe,
    prior: Prior,
    say: Say,
) -> None:
    """Reconstruct, score and append one point, unless another process is making it or has made it."""
    with claimed(csv.parent, f"{csv.stem}-{point.digest}") as mine:
        if not mine or point.key in {made.key for made in read_points(csv)}:
            return
        try:
            point = scored_point(point, measured, reference, recipe, prior)
        except SamplingError as error:
            point = replace(point, note=" ".join(error.what.split()).replace(",", ""))
        except ReconError as error:
            say(f"{point.case}, {point.label}, {recipe.steps} steps: left out. {error.what} {error.why}")
            return
        append_point(csv, point)
    say(point_in_words(point))


def unscored_point(path: Path, prior: Prior, case: str, recipe: Recipe) -> Point:
    """A point with all but its calls and scores."""
    sha = about(prior).card.get("sha256", "")
    return Point(
        file=path.name,
        prior="@".join(filter(None, (Path(recipe.prior).stem, sha[:8]))),
        case=case,
        sampler=recipe.sampler,
        sampler_options=options_text(recipe.sampler_options),
        start=recipe.start,
        sigma_start=recipe.sigma_start,
        sigma_end=recipe.last_level(prior),
        samples=recipe.samples,
        seed=recipe.seed,
        solver=recipe.solver,
        solver_options=options_text(recipe.solver_options),
        steps=recipe.steps,
    )


def undersampled_slice(path: Path, case: str, recipe: Recipe, runtime: Runtime) -> tuple[Normalised, Tensor]:
    """The first slice under the mask of a case, and the root sum of squares of all its data (H, W)."""
    kspace = open_kspace(path).read_slice(0).kspace.to(runtime.torch_device())
    mask = CASES[case].make_mask(kspace, path.name)
    return normalise(kspace, mask, recipe), rss(ifft2c(kspace))


def scored_point(
    point: Point, measured: Normalised, reference: Tensor, recipe: Recipe, prior: Prior
) -> Point:
    """The point with its calls and scores; raises `SamplingError` where the run diverges."""
    result = reconstruct_slices([measured], recipe, prior)[0]
    singles = list(result.samples)
    return replace(
        point,
        calls=result.network_calls,
        psnr=float(scaled_psnr(result.mean, reference)),
        object_psnr=float(object_psnr(result.mean, reference)),
        sample_psnr=median(float(scaled_psnr(image, reference)) for image in singles),
        sample_object_psnr=median(float(object_psnr(image, reference)) for image in singles),
        seconds=result.seconds,
    )


def point_in_words(point: Point) -> str:
    """A point in one line."""
    scores = point.note or f"{point.psnr:.2f} dB, {point.object_psnr:.2f} in the object"
    return f"{point.case}, {point.sampler_options}, {point.label}, {point.calls} calls: {scores} ({point.seconds:.1f} s)"


def write_curve(points: list[Point], curve: CurveSettings, out: Path, csv: Path) -> list[Path]:
    """Write the table, and a figure for each sampler setting: solvers.png, and solvers-state.png for keep=state."""
    if not points:
        return []
    cases, budgets = list(CASES), curve.calls
    solvers = unique([*(r.solver for r in curve.recipes), *(p.solver for p in points)])
    points.sort(key=lambda p: (p.sampler_options, cases.index(p.case), solvers.index(p.solver)))
    page = out / "solvers.md"
    write_whole(page, lambda file: file.write(curve_report(points, budgets).encode()))
    paths = [csv, page]
    for settings in unique(p.settings for p in points):
        group = [p for p in points if p.settings == settings]
        state = "keep=state" in group[0].sampler_options.split()
        picture = out / f"solvers{'-state' if state else ''}.png"
        drawn = curve_figure(group, budgets)
        write_whole(picture, lambda file, drawn=drawn: drawn.savefig(file, format="png"))
        paths.append(picture)
    return paths
