"""The job behind ``recon benchmark``: every cell once, its row appended when it is done, then the report."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..errors import ConfigError, OutputError
from ..io import check_folder
from ..io.outcome import INTERRUPTED, explained
from ..io.results import versions
from ..metrics import CONVENTIONS, coverage, object_psnr, psnr, scaled_nmse, scaled_psnr, scaled_ssim
from ..registry.objects import make_prior
from .answer import Answer
from .cells import Cell, cells
from .methods.solve import solve
from .pictures import save_pictures
from .report.write import write_report
from .scenes import Scene, Source, chosen, sources
from .specs import Benchmark

ROWS = "rows.jsonl"


@dataclass
class Tally:
    """What became of the cells of one run; ``skipped`` were done before."""

    done: int = 0
    skipped: int = 0
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
    plan: Benchmark,
    out: str | Path,
    root: str | Path = ".",
    *,
    only: Sequence[str] = (),
    part: tuple[int, int] = (1, 1),
    command: str = "recon benchmark",
    dry_run: bool = False,
    say: Callable[[str], object] = tqdm.write,
    fail: Callable[[Exception], object] = lambda error: None,
) -> Tally:
    """Run the cells of ``plan`` that ``out/rows.jsonl`` does not have yet, and write the report.

    A row is appended as soon as its cell is done. A cell that fails is recorded, and tried again by the
    next run. ``only``: cells whose "problem/method" fits a pattern; ``part`` (i, n): every n-th cell from
    the i-th on, so that n processes can share the work and the folder. Raises `ConfigError` and
    `OutputError` for what concerns all cells.
    """
    prior, opened, tally = make_prior(plan.prior), {}, Tally()
    weights = getattr(prior, "card", {}).get("sha256", "")
    prior = plan.runtime.prepare(prior)
    files = {
        name: sources(p, p.inputs or plan.inputs, Path(root), opened) for name, p in plan.problems.items()
    }
    indices = {
        name: {source: chosen(file, plan.slices) for source, file in inputs.items()}
        for name, inputs in files.items()
    }
    everything = keyed(cells(plan, indices), files, weights)
    todo = fitting(everything, only)[part[0] - 1 :: part[1]]
    check_folder(out)
    path = Path(out) / ROWS
    mend(path)
    done = {row["key"] for row in read_rows(path) if row["status"] == "done"}
    if dry_run:
        for key, cell in todo:
            say(f"{key} {cell.label}{' (done already)' if key in done else ''}")
        return Tally(skipped=len(todo))
    path.parent.mkdir(parents=True, exist_ok=True)

    @lru_cache(maxsize=2)
    def scene(problem: str, source: str, index: int, seed: int) -> Scene:
        spec, device = plan.problems[problem], plan.runtime.torch_device()
        return files[problem][source].scene(spec, index, prior, seed, device)

    try:
        with tqdm(total=len(todo), unit="cell", disable=None) as bar:
            for key, cell in todo:
                bar.set_description(cell.label[:60])
                if key in done:
                    tally.skipped += 1
                    bar.update()
                    continue
                row: dict[str, Any] = {"key": key, "status": "failed", "cell": cell.told()}
                try:
                    here = scene(cell.problem, cell.input, cell.slice, cell.seed)
                    answer = solve(here, cell)
                    row |= {"status": "done", **numbers(here, answer, cell)}
                    if cell.place < plan.pictures:
                        row["pictures"] = save_pictures(Path(out), key, cell.scene, here, answer)
                    tally.done += 1
                    say(f"{cell.label}: {in_words(row)}")
                except Exception as error:
                    said = explained(error, Path(cell.label))
                    row["error"] = {name: getattr(said, name, "") for name in ("what", "why", "do")}
                    tally.failed.append(cell.label)
                    fail(said)
                append(
                    path, row | {"versions": versions(), "finished": datetime.now().isoformat("T", "seconds")}
                )
                bar.update()
    except KeyboardInterrupt:
        tally.interrupted = True
        say("Interrupted. The same command goes on with the cells that are missing.")
    current = {key for key, _ in everything}
    rows = [row for row in read_rows(path) if row["key"] in current]  # others are of another config
    if rows:
        tally.written = write_report(
            rows, Path(out), title=plan.title, conventions=conventions(), command=command
        )
    return tally


def keyed(
    found: Iterator[Cell], files: Mapping[str, Mapping[str, Source]], weights: str
) -> list[tuple[str, Cell]]:
    """Cells by their keys."""
    return [(cell.key(files[cell.problem][cell.input].digest(cell.slice), weights), cell) for cell in found]


def fitting(everything: Sequence[tuple[str, Cell]], only: Sequence[str]) -> list[tuple[str, Cell]]:
    """Those whose "problem/method" fits a pattern; all without any."""
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


def numbers(scene: Scene, answer: Answer, cell: Cell) -> dict[str, Any]:
    """What a row says of an answer. ``residual``: of a sample, in units of the noise, the median over them."""
    mean, reference = scene.magnitudes(answer.mean), scene.reference.cpu()
    found = {
        "psnr": scaled_psnr(mean, reference),
        "object_psnr": object_psnr(mean, reference),
        "ssim": scaled_ssim(mean, reference),
        "nmse": scaled_nmse(mean, reference),
        "fastmri_psnr": psnr(mean, reference),
    }
    samples, residual = answer.samples.to(scene.problem.y.device), None
    if answer.phase:
        residual = finite(float(torch.stack([scene.problem.residual(one[None]) for one in samples]).median()))
    held = None
    if len(samples) > 1 and answer.std is None:
        held = coverage(reference, scene.magnitudes(samples), level=cell.level).value
    elif answer.std is not None and len(samples) > 1:
        spread, k = scene.magnitudes(answer.std), len(samples)
        held = coverage(reference, mean=mean, std=spread, k=k, level=cell.level).value
    row = {
        "network_calls": answer.network_calls,
        "seconds": round(answer.seconds, 3),
        "residual": residual,
        "metrics": {name: finite(float(score)) for name, score in found.items()},
        "coverage": held,
        "level": cell.level,
        "notes": answer.notes,
    }
    return row | ({"ess": answer.notes["ess"]} if "ess" in answer.notes else {})


def finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def conventions() -> dict[str, str]:
    return {name: text for name, text in CONVENTIONS.items() if name in ("scaled_psnr", "fastmri_psnr")}


def in_words(row: Mapping[str, Any]) -> str:
    metrics = row["metrics"]
    found = {
        "PSNR": (metrics["psnr"], ".2f"),
        "SSIM": (metrics["ssim"], ".3f"),
        "residual": (row["residual"], ".2f"),
    }
    found["coverage"] = (row["coverage"], ".3f")
    words = [f"{name} {value:{form}}" for name, (value, form) in found.items() if value is not None]
    return ", ".join([*words, f"{row['network_calls']} calls", f"{row['seconds']:.1f} s"])


# --- rows on disk ----------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a file, none where there is no file."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputError(f"{path} cannot be read.", f"{error.strerror or error}.", "Choose another --out.") from error  # fmt: skip
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise OutputError(
                f"Line {number} of {path} is no row.",
                f"It is not JSON: {error}.",
                "Remove the line, or choose another --out.",
            ) from error
    return rows


def mend(path: Path) -> None:
    """Cut off a last line that a run which was killed left unfinished."""
    if path.is_file() and (data := path.read_bytes()) and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)


def append(path: Path, row: Mapping[str, Any]) -> None:
    """One row, in one write, so that processes can share the file."""
    try:
        with open(path, "ab", buffering=0) as file:
            file.write((json.dumps(row, default=str) + "\n").encode())
    except OSError as error:
        raise OutputError(f"{path} cannot be written.", f"{error.strerror or error}.", "Free space, or choose another --out.") from error  # fmt: skip
