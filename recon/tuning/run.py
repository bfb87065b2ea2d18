"""The job behind ``recon tune``: trials on the validation split, a preset, and a comparison on the held-out split."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from ..benchmark.cells import Cell
from ..benchmark.methods.solve import build_sampler, solve
from ..benchmark.rows import ROWS, read_rows
from ..benchmark.run import KeyedCell, benchmark, keyed_cells
from ..benchmark.sources import open_inputs, refuse_problems
from ..benchmark.specs import read_benchmark
from ..errors import ConfigError, OutputError, SamplingError
from ..io import check_folder
from ..io.whole import write_together
from ..pairing import refuse_order
from ..posteriors.usual import Usual
from ..priors import about
from ..registry.objects import make_prior, make_solver
from ..runtime.runtime import Runtime
from .settings import Split, Tuning, method_of, recipe_values
from .spaces import Range
from .study import REASON, Scores, Trials, mean, optuna_library

PRESET, SETTINGS, HELD_OUT = "tuned.yaml", "settings.yaml", "held_out"
TUNED, RECIPE = "tuned", "recipe"


@dataclass
class Tuned:
    """What a run found: the PSNR of each method and problem on the two splits, what is best, and the files written.

    ``found`` is None where no trial was better than the recipe. ``elsewhere`` trials are being measured by
    another process; nothing is compared before they are done.
    """

    validation: dict[str, Scores] = field(default_factory=dict)
    held_out: dict[str, Scores] = field(default_factory=dict)
    found: Usual | None = None
    elsewhere: int = 0
    written: list[Path] = field(default_factory=list)


def tune(
    settings: Tuning,
    out: str | Path,
    root: str | Path = ".",
    *,
    command: str = "recon tune",
    dry_run: bool = False,
    say: Callable[[str], object] = tqdm.write,
) -> Tuned:
    """Measure the trials that the journal in ``out`` does not have yet, and compare the best with the recipe.

    Trials, their scores and the recipe's are kept there, so a run that is stopped goes on with the same command, and
    processes may share the folder; trials of other settings lie beside them. ``root``: folder that inputs are
    relative to. The preset is written where no file is in its place. Raises `ConfigError` and `OutputError` before the
    first network call.
    """
    optuna_library()
    prior = make_prior(settings.prior)
    if about(prior).std is None:  # levels are in its units
        settings = replace(settings, search=replace(settings.space, highest=None, lowest=None))
    objective = Objective(settings, Path(root), prior)
    out = check_folder(out)
    if dry_run:
        for line in plan(settings, objective):
            say(line)
        return Tuned()
    out.mkdir(parents=True, exist_ok=True)
    trials = Trials(out, f"{settings.sampler}-{objective.key}", settings.space, settings.seed)
    files = [out / PRESET, out / SETTINGS]
    missing = settings.trials - len([place for place in trials.done() if place < settings.trials])
    if missing and (there := next((path for path in files if path.exists()), None)):
        raise OutputError(
            f"{there} exists already.",
            f"{missing} trials are to be measured, and it would be written at their end.",
            "Move it away, or choose another --out.",
        )
    objective.use(settings.runtime.prepare(prior))
    result = Tuned()
    recipe = trials.recipe(recipe_values(settings), lambda: objective.scores(settings.recipe))
    say(f"The recipe, {settings.recipe.in_words}: {mean(recipe):.2f} dB")
    for place, trial in tqdm(
        trials.fill(
            settings.trials, lambda values: objective.scores(settings.space.found(values, settings.recipe))
        ),
        total=missing,
        unit="trial",
        disable=None,
    ):
        result.elsewhere += trial is None
        if trial is not None:
            say(f"Trial {place + 1}, {in_words(settings, trial)}")
    if result.elsewhere:
        say(f"Trials that another process is measuring: {result.elsewhere}. It compares them at the end.")
        return result
    best = trials.best(settings.trials)
    result.validation = {RECIPE: recipe}
    if best is None or best.value <= mean(recipe):
        say(f"No trial of {settings.trials} was better than the recipe, so no preset is written.")
        return result
    result.validation[TUNED] = trials.scores(best)
    result.found = settings.space.found(best.params, settings.recipe)
    if not any(path.exists() for path in files):
        write_presets(settings, result.found, prior, objective, files, command)
        result.written = files
    result.held_out = compared(files[0], out / HELD_OUT, root)
    return result


class Objective:
    """The objective: the mean PSNR of each problem over the images of the validation split.

    Raises `ConfigError` for what cannot be measured, and for an image that lies in both splits.
    """

    def __init__(self, settings: Tuning, root: Path, prior: Any):
        self.settings, self.prior = settings, prior
        splits = [self.opened(split, root) for split in (settings.validation, settings.held_out)]
        (self.inputs, keyed), (kept, held_out) = splits
        refuse_shared(*(digests(inputs, cells) for inputs, cells in splits))
        self.cells = [cell for _, cell in keyed]
        text = json.dumps([[key for key, _ in keyed], repr(settings.space), settings.seed])
        self.key = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
        self.use(prior)
        for inputs, cells in ((self.inputs, keyed), (kept, held_out)):
            for _, cell in {(cell.problem, cell.input): (key, cell) for key, cell in cells}.values():
                self.refuse(inputs, cell)

    def opened(self, split: Split, root: Path) -> tuple[Any, list[KeyedCell]]:
        """The inputs of a split, and its cells with the recipe."""
        method = method_of(self.settings.sampler, self.settings.recipe, self.prior)
        config = self.settings.benchmark(split, {RECIPE: method})
        inputs = open_inputs(config, root, self.prior)
        refuse_problems(config, inputs, self.prior)
        found = keyed_cells(config, inputs, about(self.prior).card.get("sha256", ""))
        if not found:
            raise ConfigError(f"{', '.join(split.inputs)} have no such slices.", do="Correct slices.")
        return inputs, found

    def use(self, prior: Any) -> None:
        """Measure with ``prior`` from now on; each scene is made once for all trials."""
        device = self.settings.runtime.torch_device()
        self.prior = prior

        @cache
        def scene(problem: str, source: str, index: int) -> Any:
            spec = self.settings.problems[problem]
            return self.inputs[problem][source].scene(spec, index, prior, self.settings.seed, device)

        self.scene = scene

    @property
    def first_scene(self) -> Any:
        """One of the scenes."""
        cell = self.cells[0]
        return self.scene(cell.problem, cell.input, cell.slice)

    def refuse(self, inputs: Any, cell: Cell) -> None:
        """Raise `ConfigError` where the recipe cannot be used on a scene: then nothing near it can."""
        spec, device = self.settings.problems[cell.problem], self.settings.runtime.torch_device()
        scene = inputs[cell.problem][cell.input].scene(spec, cell.slice, self.prior, cell.seed, device)
        solver = make_solver(str(cell.solver), cell.spec.solver_options)
        sampler = build_sampler(scene, cell.spec).given(scene.problem)
        sampler.pair(solver)
        refuse_order(solver, sampler.steps_for(solver, self.settings.calls, cell.spec.sigma_end))

    def scores(self, usual: Usual) -> Scores:
        """The PSNR of ``usual`` in dB, of each problem; raises `ConfigError` or `SamplingError` where it has none."""
        method = method_of(self.settings.sampler, usual, self.prior)
        found: dict[str, list[float]] = defaultdict(list)
        for cell in self.cells:
            scene = self.scene(cell.problem, cell.input, cell.slice)
            answer = solve(scene, replace(cell, method=TUNED, spec=method, solver=usual.solver))
            found[cell.problem].append(scene.scores(answer.mean)["psnr"])
        scores = {problem: sum(values) / len(values) for problem, values in found.items()}
        if not all(-1e3 < score < 1e3 for score in scores.values()):
            raise SamplingError(f"{self.settings.sampler} diverged: {scores}.")
        return scores


def digests(inputs: Mapping[str, Any], cells: list[KeyedCell]) -> dict[str, str]:
    """The images of a split: where each is, by the digest of its pixels."""
    return {
        inputs[cell.problem][cell.input].digest(cell.slice): f"{cell.input}, slice {cell.slice}"
        for _, cell in cells
    }


def refuse_shared(validation: dict[str, str], held_out: dict[str, str]) -> None:
    """Raise `ConfigError` for an image that is in both splits."""
    for digest in validation.keys() & held_out.keys():
        raise ConfigError(
            f"The image of {validation[digest]}, is held out as {held_out[digest]}.",
            "What was chosen on an image is not judged on it.",
            "Name other slices or inputs in one of the two splits.",
        )


# --- what is said and written ------------------------------------------------------------------------------


def plan(settings: Tuning, objective: Objective) -> Iterator[str]:
    """What would be done, in lines."""
    yield f"sampler {settings.sampler}, recipe: {settings.recipe.in_words}"
    for name, axis in settings.space.axes():
        words = axis.in_words if isinstance(axis, Range) else ", ".join(map(str, axis))
        yield f"  {name.removeprefix('recipe.')}: {words}"
    calls = len(objective.cells) * settings.calls * settings.samples
    yield f"{settings.trials} trials of {len(objective.cells)} images, {calls} network calls each at most"


def in_words(settings: Tuning, trial: Any) -> str:
    """Values and objective of a trial in one line."""
    words = settings.space.found(trial.params, settings.recipe).in_words
    return f"{words}: " + (trial.user_attrs[REASON] if trial.value is None else f"{trial.value:.2f} dB")


def write_presets(
    settings: Tuning, found: Usual, prior: Any, objective: Objective, files: list[Path], command: str
) -> None:
    """The benchmark of what was found beside the recipe on the held-out split, and the settings for scans."""
    method = method_of(settings.sampler, found, prior)
    solver = make_solver(found.solver, found.solver_options)
    sampler = build_sampler(objective.first_scene, method)
    ours = {
        name: getattr(method, name)
        for name in ("options", "solver_options", "grid", "sigma_start", "sigma_end")
    }
    comparison = {
        "title": f"{settings.sampler} tuned, beside its recipe",
        "prior": settings.prior,
        "inputs": settings.held_out.inputs,
        "slices": settings.held_out.slices,
        "crop": settings.crop,
        "samples": settings.samples,
        "calls": settings.calls,
        "seeds": settings.seed,
        "runtime": {k: v for k, v in asdict(settings.runtime).items() if v != getattr(Runtime(), k)},
        "problems": {name: stated(asdict(spec)) for name, spec in settings.problems.items()},
        "methods": {
            RECIPE: {"sampler": settings.sampler},
            TUNED: {"sampler": settings.sampler, "form": "paper", "solver": found.solver, **stated(ours)},
        },
    }
    scans = {
        "prior": settings.prior,
        "sampler": settings.sampler,
        "sampler_options": method.options,
        "solver": found.solver,
        "solver_options": method.solver_options,
        "grid": found.grid,
        "steps": sampler.steps_for(solver, settings.calls, method.sigma_end),
        "samples": settings.samples,
        "sigma_start": method.sigma_start,
        "sigma_end": method.sigma_end,
    }
    made = f"# Found by {command}, {settings.trials} trials: {found.in_words}.\n"
    texts = (
        f"{made}# Compare it with the recipe: recon benchmark {files[0].name} --data DIR\n{as_yaml(stated(comparison))}",
        f"{made}# For scans: recon reconstruct FILE --config {files[1].name}\n{as_yaml(stated(scans))}",
    )
    write_together({path: writer(text) for path, text in zip(files, texts, strict=True)})


def writer(text: str) -> Callable[[Any], object]:
    """What writes ``text`` into an open binary file."""
    return lambda file: file.write(text.encode())


def stated(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those that say nothing."""
    return {key: value for key, value in settings.items() if value is not None and value not in ({}, ())}


def as_yaml(settings: Mapping[str, Any]) -> str:
    """Settings as YAML, in their order."""
    return yaml.safe_dump(settings, sort_keys=False, default_flow_style=None, allow_unicode=True)


def compared(preset: Path, out: Path, root: str | Path) -> dict[str, Scores]:
    """The PSNR of each method and problem of the preset, measured as a benchmark in ``out``; cells done are kept."""
    config = read_benchmark(str(preset))
    tally = benchmark(config, out, root, command=f"recon benchmark {preset}", say=lambda line: None)
    if tally.failed:
        raise SamplingError(f"{tally.failed[0]} failed.", "", f"recon benchmark {preset} says more.")
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in read_rows(out / ROWS):
        if row["status"] == "done":
            found[row["cell"]["method"]][row["cell"]["problem"]].append(row["metrics"]["psnr"])
    return {
        method: {problem: sum(values) / len(values) for problem, values in scores.items()}
        for method, scores in found.items()
    }


def table(outcome: Tuned) -> Iterator[str]:
    """PSNR in dB of recipe and of what was found, on both splits: a line each problem, and their mean."""
    yield f"{'PSNR in dB':40}  {RECIPE:>8}  {TUNED:>8}  {'gain':>6}"
    for split, scores in (("validation", outcome.validation), ("held out", outcome.held_out)):
        rows = {problem: [scores[name][problem] for name in (RECIPE, TUNED)] for problem in scores[RECIPE]}
        rows["mean"] = [mean(scores[name]) for name in (RECIPE, TUNED)]
        for problem, (before, after) in rows.items():
            yield f"{f'{split}, {problem}':40}  {before:8.2f}  {after:8.2f}  {after - before:+6.2f}"
