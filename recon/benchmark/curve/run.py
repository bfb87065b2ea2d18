"""``recon bench curve``: PSNR against network calls on real k-space, every solver with one prior and one start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from torch import Tensor

from operators.coils import rss
from operators.fourier import ifft2c
from operators.masks import make_mask

from ...errors import ConfigError, ReconError, SamplingError, unknown
from ...io import open_kspace
from ...io.figures import unique
from ...io.whole import write_whole
from ...metrics import object_psnr, scaled_psnr
from ...mri import Normalised, normalise, reconstruct_slices
from ...pairing import refuse_order
from ...registry.configuration import parse_options
from ...registry.objects import make_solver
from ...registry.recipe import Recipe, make_recipe
from ...runtime.runtime import Runtime
from ...solvers import Solver
from ..scan import CASES
from .points import Point, append_point, read_points, text
from .report import figure, report

CALLS = (5, 8, 10, 15, 20, 30, 50, 100)
SHOWN = (
    "euler", "ddim,eta=1", "renoise", "heun", "dpm++3s", "dpm++2m", "dpm++3m", "unipc2", "unipc3",
    "deis-rho3", "ipndm", "ghvb", "sde-dpm++1", "sde-dpm++2m",
)  # fmt: skip
KEEP = {"noise": ("noise",), "state": ("state",), "both": ("noise", "state")}
Say = Callable[[str], object]


@dataclass(frozen=True)
class CurveSettings:
    """What is asked for: budgets of calls a sample, cases by name, and a recipe for each solver and ``keep``."""

    calls: tuple[int, ...]
    cases: tuple[str, ...]
    recipes: tuple[Recipe, ...]

    def cells(self) -> Iterator[tuple[str, Recipe]]:
        """A case and a recipe with its steps for each point, each once."""
        points = [
            replace(recipe, steps=steps)
            for recipe in self.recipes
            for steps in unique(steps_within(recipe, n) for n in self.calls)
            if steps
        ]
        return ((case, point) for case in self.cases for point in points)


def read_curve(
    recipe: Recipe,
    cases: Sequence[str] = (),
    solvers: Sequence[str] = (),
    calls: Sequence[int] = (),
    samples: int = 4,
    keep: str = "noise",
) -> CurveSettings:
    """Names and numbers made sure of. A solver may have options: ``ddim,eta=1``. Raises `ConfigError`."""
    known = [case for case, *_ in CASES]
    for case in cases:
        if case not in known:
            raise unknown("case", case, known)
    if keep not in KEEP:
        raise unknown("keep", keep, KEEP)
    if any(n < 1 for n in calls):
        raise ConfigError(f"calls are {list(calls)}.", "A budget of network calls is at least 1.")
    recipes = []
    for kept in KEEP[keep]:
        for solver in solvers or SHOWN:
            name, *options = solver.split(",")
            given = {
                "solver": name,
                "solver_options": parse_options(options),
                "steps": max(CALLS),
                "samples": samples,
                "sampler_options": recipe.sampler_options | {"keep": kept},
            }
            recipes.append(make_recipe(asdict(recipe) | given))
    return CurveSettings(tuple(sorted(set(calls or CALLS))), tuple(cases or known), tuple(recipes))


def steps_within(recipe: Recipe, calls: int) -> int:
    """The most steps of the recipe's solver that ask the network at most ``calls`` times; 0 where it refuses so few."""
    solver = solver_of(recipe)
    steps = max((n for n in range(1, calls + 1) if solver.calls(n) <= calls), default=0)
    try:
        refuse_order(solver, steps)
    except ConfigError:
        return 0
    return steps


def solver_of(recipe: Recipe) -> Solver:
    return make_solver(recipe.solver, recipe.solver_options)


def curve(
    path: Path,
    plan: CurveSettings,
    prior: Any,
    runtime: Runtime,
    out: Path,
    *,
    dry_run: bool = False,
    say: Say = print,
) -> list[Path]:
    """Every point of the plan on the first slice of a fully sampled file, to ``out/solvers.csv``, .md and .png.

    Points that the CSV file has are not made again, and stand in the table and the figure too where
    they have the same settings. A point that a solver refuses (more order than steps) is left out.
    Preprocessing, reference and masks are those of `evaluation.compare`.
    """
    csv = out / "solvers.csv"
    done = {point.key: point for point in read_points(csv)}
    cells = [(case, recipe, blank(path, prior, case, recipe)) for case, recipe in plan.cells()]
    wanted = [cell for cell in cells if cell[2].key not in done]
    rows = sum(recipe.samples * solver_of(recipe).calls(recipe.steps) for _, recipe, _ in wanted)
    say(f"{len(cells)} points, {len(cells) - len(wanted)} of them done; {rows} images through the network")
    if dry_run:
        return []
    for case in unique(case for case, *_ in wanted):
        one, reference = prepared(path, case, plan.recipes[0], runtime)
        for recipe, point in [(recipe, point) for named, recipe, point in wanted if named == case]:
            try:
                point = measured(point, one, reference, recipe, prior)
            except SamplingError as error:
                point = replace(point, note=" ".join(error.what.split()).replace(",", ""))
            except ReconError as error:
                say(f"{case}, {point.label}, {recipe.steps} steps: left out. {error.what} {error.why}")
                continue
            append_point(csv, point)
            done[point.key] = point
            say(described(point))
    asked = {point.settings for *_, point in cells}
    return written([p for p in done.values() if p.settings in asked], plan, out, csv)


def blank(path: Path, prior: Any, case: str, recipe: Recipe) -> Point:
    """The point that is to be made: all but its scores."""
    sha = (getattr(prior, "card", None) or {}).get("sha256", "")
    return Point(
        file=path.name,
        prior="@".join(filter(None, (Path(recipe.prior).stem, sha[:8]))),
        case=case,
        sampler=recipe.sampler,
        sampler_options=text(recipe.sampler_options),
        start=recipe.start,
        sigma_start=recipe.sigma_start,
        sigma_end=recipe.sigma_end,
        samples=recipe.samples,
        seed=recipe.seed,
        solver=recipe.solver,
        solver_options=text(recipe.solver_options),
        steps=recipe.steps,
    )


def prepared(path: Path, case: str, recipe: Recipe, runtime: Runtime) -> tuple[Normalised, Tensor]:
    """The first slice under the case's mask, and the root sum of squares of all its data."""
    _, name, accel, center = next(row for row in CASES if row[0] == case)
    kspace = open_kspace(path).read_slice(0).kspace.to(runtime.torch_device())
    mask = make_mask(name, (kspace.shape[-2], kspace.shape[-1]), accel, center, path.name)
    return normalise(kspace, mask, recipe), rss(ifft2c(kspace))


def measured(point: Point, one: Normalised, reference: Tensor, recipe: Recipe, prior: Any) -> Point:
    result = reconstruct_slices([one], recipe, prior)[0]
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


def described(point: Point) -> str:
    scores = point.note or f"{point.psnr:.2f} dB, {point.object_psnr:.2f} in the object"
    return f"{point.case}, {point.sampler_options}, {point.label}, {point.calls} calls: {scores} ({point.seconds:.1f} s)"


def written(points: list[Point], plan: CurveSettings, out: Path, csv: Path) -> list[Path]:
    """The table, and a figure for each setting of the sampler: solvers.png, and solvers-state.png beside it."""
    if not points:
        return []
    cases, budgets = [case for case, *_ in CASES], plan.calls
    solvers = unique([*(r.solver for r in plan.recipes), *(p.solver for p in points)])
    points.sort(key=lambda p: (p.sampler_options, cases.index(p.case), solvers.index(p.solver)))
    page = out / "solvers.md"
    write_whole(page, lambda file: file.write(report(points, budgets).encode()))
    paths = [csv, page]
    for settings in unique(p.settings for p in points):
        group = [p for p in points if p.settings == settings]
        state = "keep=state" in group[0].sampler_options.split()
        picture = out / f"solvers{'-state' if state else ''}.png"
        drawn = figure(group, budgets)
        write_whole(picture, lambda file, drawn=drawn: drawn.savefig(file, format="png"))
        paths.append(picture)
    return paths
