"""The job behind ``recon benchmark``: every cell once, its row appended when all of it is done, then the report."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from fnmatch import fnmatch
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from tqdm import tqdm

from ..errors import INTERRUPTED, ConfigError, ReconError
from ..io import check_folder
from ..io.outcome import explained
from ..io.results import versions
from ..priors import about
from ..registry.objects import make_prior
from ..registry.plugins import load_plugin
from ..runtime.cluster import Cluster, on_worker, own_device
from .cells import Cell, cells
from .methods.solve import solve
from .perceptual import Perceptual
from .pictures import save_pictures
from .report.write import write_report
from .rows import ROWS, append_row, conventions, read_rows, row_in_words, scored
from .scene import Scene
from .sharing import claimed, locked
from .sources import Source, chosen_slices, open_inputs, refuse_problems
from .specs import Benchmark

KeyedCell = tuple[str, Cell]
CellResult = dict[str, Any]
ByWorkers = Callable[[Sequence[KeyedCell]], Generator[tuple[int, CellResult | None], None, None]]


@dataclass
class Tally:
    """What became of the cells of one run.

    ``skipped`` were done before, or meanwhile by another process; ``elsewhere`` are being measured by another
    process; ``failed`` names the cells that failed; ``written`` are the files of the report.
    """

    done: int = 0
    skipped: int = 0
    elsewhere: int = 0
    failed: list[str] = field(default_factory=list)
    interrupted: bool = False
    written: list[Path] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0: all done; 1: some failed; 2: nothing usable; 130: interrupted."""
        if self.interrupted:
            return INTERRUPTED
        return 0 if not self.failed else 1 if self.done + self.skipped else 2


def benchmark(
    config: Benchmark,
    out: str | Path,
    root: str | Path = ".",
    *,
    only: Sequence[str] = (),
    part: tuple[int, int] = (1, 1),
    command: str = "recon benchmark",
    dry_run: bool = False,
    cluster: Cluster | None = None,
    plugin: str | None = None,
    say: Callable[[str], object] = tqdm.write,
    fail: Callable[[Exception], object] = lambda error: None,
) -> Tally:
    """Measure the cells of ``config`` that ``out/rows.jsonl`` does not have yet, and write the report.

    A row is appended when its cell is measured and its pictures are saved, so a run that is stopped anywhere goes
    on with the same command. A cell that fails is recorded, and tried again by the next run. ``only``: cells
    whose "problem/method" fits a pattern; ``part`` (i, n): every n-th cell from the i-th on. Processes may
    share the folder, with any parts: a cell that one of them is measuring is left to it. ``root``: folder that
    inputs are relative to. With a ``cluster`` its workers measure the cells, each of which has loaded ``plugin``; they see
    the same files as this process, which alone writes the rows. Raises `ConfigError` and `OutputError` for what
    concerns all cells.
    """
    prior = make_prior(config.prior)
    inputs = open_inputs(config, Path(root), prior)
    perceptual = perceptual_metric(config, Path(root))
    weights = about(prior).card.get("sha256", "") + ("" if perceptual is None else f" {perceptual.digest}")
    everything = keyed_cells(config, inputs, weights)
    todo = matching(everything, only)[part[0] - 1 :: part[1]]
    refuse_problems(config, inputs, prior)
    out = check_folder(out)
    if dry_run:
        done = done_keys(out)
        for key, cell in todo:
            say(f"{key} {cell.label}{' (done already)' if key in done else ''}")
        return Tally(skipped=len(todo))
    if cluster is None:
        tally = Run(config, inputs, config.runtime.prepare(prior), out, say, fail, perceptual).measure(todo)
    else:
        own = None if plugin is None else str(Path(plugin).resolve())
        given = Assignment(config, out.resolve(), Path(root).resolve(), own)
        tally = Run(config, inputs, prior, out, say, fail).measure(todo, partial(by_workers, cluster, given))
    tally.written = refresh_report(
        config, out, {key for key, _ in everything}, command, about(prior).channels > 1
    )
    return tally


def perceptual_metric(config: Benchmark, root: Path) -> Perceptual | None:
    """LPIPS where the benchmark asks for it; raises `ConfigError` where it cannot be had."""
    file = config.metrics.get("lpips")
    return None if file is None else Perceptual(root / file)


def keyed_cells(
    config: Benchmark, inputs: Mapping[str, Mapping[str, Source]], weights: str
) -> list[KeyedCell]:
    """All cells with their keys."""
    slices = {
        problem: {name: chosen_slices(source, config.slices) for name, source in sources.items()}
        for problem, sources in inputs.items()
    }
    return [
        (cell.key(inputs[cell.problem][cell.input].digest(cell.slice), weights), cell)
        for cell in cells(config, slices)
    ]


def matching(everything: Sequence[KeyedCell], only: Sequence[str]) -> list[KeyedCell]:
    """The cells whose "problem/method" fits a pattern, all of them if no pattern is given; raises `ConfigError`."""
    wanted = [
        (key, cell)
        for key, cell in everything
        if not only or any(fnmatch(f"{cell.problem}/{cell.method}", pattern) for pattern in only)
    ]
    if not wanted:
        raise ConfigError(
            f"No cell of this benchmark fits {', '.join(only)}." if only else "This benchmark has no cell.",
            "A pattern is PROBLEM/METHOD, with * for any.",
            f"For example --only '{everything[0][1].problem}/*'." if everything else "Give it slices.",
        )
    return wanted


class Run:
    """One process at work on the cells of a benchmark."""

    def __init__(
        self,
        config: Benchmark,
        inputs: Mapping[str, Mapping[str, Source]],
        prior: Any,
        out: Path,
        say: Callable[[str], object],
        fail: Callable[[Exception], object],
        perceptual: Perceptual | None = None,
    ):
        self.config, self.out, self.say, self.fail = config, out, say, fail
        self.perceptual = perceptual
        self.tally = Tally()
        device = config.runtime.torch_device()

        @lru_cache(maxsize=2)  # methods of one scene come one after another
        def scene(problem: str, source: str, index: int, seed: int) -> Scene:
            return inputs[problem][source].scene(config.problems[problem], index, prior, seed, device)

        self.scene = scene

    def measure(self, todo: Sequence[KeyedCell], rows: ByWorkers | None = None) -> Tally:
        """Measure the cells that are missing; those that other processes have are looked at once more at the end.

        ``rows`` has others measure them: it is given keys and cells, and yields the number of one and its row.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        self.rows_before = len(read_rows(self.out / ROWS))
        done = done_keys(self.out)
        missing = [(key, cell) for key, cell in todo if key not in done]
        self.tally.skipped = len(todo) - len(missing)
        try:
            with tqdm(total=len(todo), initial=self.tally.skipped, unit="cell", disable=None) as bar:
                for _ in range(2):
                    if rows is None:
                        missing = [one for one in missing if not self.settle(*one, bar)]
                    elif missing:
                        with closing(rows(missing)) as found:
                            left = [n for n, row in found if not self.keep(*missing[n], row, bar)]
                        missing = [missing[number] for number in left]
        except KeyboardInterrupt:
            self.tally.interrupted = True
            self.say("Interrupted. The same command goes on with the cells that are missing.")
        else:
            self.tally.elsewhere = len(missing)
            if missing:
                self.say(f"Cells that another process is measuring: {len(missing)}.")
        return self.tally

    def settle(self, key: str, cell: Cell, bar: Any) -> bool:
        """Measure a cell, or count it if another process has; False where another process is measuring it."""
        bar.set_description(cell.label[:60])
        with claimed(self.out, key) as mine:
            if not mine:
                return False
            self.keep(key, cell, self.measured_row, bar)
        return True

    def keep(
        self, key: str, cell: Cell, row: CellResult | Callable[[str, Cell], CellResult] | None, bar: Any
    ) -> bool:
        """Append the row of a cell, made now if it is a function, unless another process has; False where there is none."""
        if row is None:
            return False
        others = self.row_of_others(key)
        if others is None:
            if callable(row):
                row = row(key, cell)
            elif row["status"] == "failed":
                self.fail(ReconError(**row["error"]))
            append_row(self.out / ROWS, row)
            self.count(cell, row)
        elif others["status"] == "done":
            self.tally.skipped += 1
        else:
            self.tally.failed.append(cell.label)
        bar.update()
        return True

    def row_of_others(self, key: str) -> dict[str, Any] | None:
        """The row that another process has written since this run began, the last of them."""
        fresh = [row for row in read_rows(self.out / ROWS)[self.rows_before :] if row["key"] == key]
        return fresh[-1] if fresh else None

    def measured_row(self, key: str, cell: Cell) -> dict[str, Any]:
        """The row of a cell: done if it is measured and its pictures are saved, else failed with its error."""
        try:
            scene = self.scene(cell.problem, cell.input, cell.slice, cell.seed)
            answer = solve(scene, cell)
            scores = scored(scene, answer, cell, self.perceptual)
            if cell.rank < self.config.pictures:
                scores["pictures"] = save_pictures(self.out, key, cell.scene, scene, answer)
        except Exception as error:
            row = failed_row(key, cell, error)
            self.fail(explained(error, Path(cell.label)))
            return row
        return finished_row(key, cell, scores | {"status": "done"})

    def count(self, cell: Cell, row: Mapping[str, Any]) -> None:
        """Count a cell whose row is on disk, and say what came out."""
        if row["status"] == "done":
            self.tally.done += 1
            self.say(f"{cell.label}: {row_in_words(row)}")
        else:
            self.tally.failed.append(cell.label)


def failed_row(key: str, cell: Cell, error: Exception) -> CellResult:
    """The row of a cell that ended with an error."""
    said = explained(error, Path(cell.label))
    why = {name: getattr(said, name, "") for name in ("what", "why", "do")}
    return finished_row(key, cell, {"status": "failed", "error": why})


def finished_row(key: str, cell: Cell, found: CellResult) -> CellResult:
    """The row of a cell with what was found."""
    when = datetime.now().isoformat("T", "seconds")
    return {"key": key, "cell": cell.as_row(), **found, "versions": versions(), "finished": when}


# --- on the workers of a cluster ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Assignment:
    """What a worker needs to measure any cell: the benchmark, the folder of its results, that of its inputs, a plugin."""

    config: Benchmark
    out: Path
    root: Path
    plugin: str | None = None
    name: str = field(default_factory=lambda: uuid4().hex)


def by_workers(
    cluster: Cluster, given: Assignment, todo: Sequence[KeyedCell]
) -> Generator[tuple[int, CellResult | None], None, None]:
    """The number and the row of each cell, measured by the workers of ``cluster``; None where others measure it."""
    for number, row in cluster.results(row_on_worker, [(given, key, cell) for key, cell in todo]):
        yield number, failed_row(*todo[number], row) if isinstance(row, Exception) else row


def row_on_worker(given: Assignment, key: str, cell: Cell) -> CellResult | None:
    """The row of a cell, measured in this process, or written by another meanwhile; None where another is at it."""
    with on_worker():
        if given.name not in RUNS:
            RUNS.clear()
            RUNS[given.name] = run_on_worker(given)
        run = RUNS[given.name]
        with claimed(given.out, key) as mine:
            return (run.row_of_others(key) or run.measured_row(key, cell)) if mine else None


RUNS: dict[str, Run] = {}
"""Of a worker: what it has loaded for the benchmark it is working for."""


def run_on_worker(given: Assignment) -> Run:
    """Prior and inputs of a benchmark, loaded by a worker."""
    if given.plugin is not None:
        load_plugin(given.plugin)
    runtime = own_device(given.config.runtime)
    config = replace(given.config, runtime=runtime)
    prior = runtime.prepare(make_prior(config.prior))
    run = Run(
        config,
        open_inputs(config, given.root, prior),
        prior,
        given.out,
        lambda line: None,
        lambda error: None,
        perceptual_metric(config, given.root),
    )
    run.rows_before = len(read_rows(given.out / ROWS))
    return run


def done_keys(out: Path) -> set[str]:
    """The keys of the cells that are done."""
    return {row["key"] for row in read_rows(out / ROWS) if row["status"] == "done"}


def refresh_report(config: Benchmark, out: Path, keys: set[str], command: str, colour: bool) -> list[Path]:
    """Write the report of the rows of these keys: others are of another configuration. One process at a time."""
    with locked(out / "index.html"):
        rows = [row for row in read_rows(out / ROWS) if row["key"] in keys]
        if not rows:
            return []
        return write_report(
            rows,
            out,
            title=config.title,
            conventions=conventions(colour, bool(config.metrics)),
            command=command,
        )
