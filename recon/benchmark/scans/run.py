"""``recon bench simulated``: our default beside the tools in use on scans simulated over the range that they come in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ...errors import ConfigError, ReconError
from ...intervals import LEVEL
from ...io import check_folder
from ...io.images import read_stack
from ...io.outcome import explained
from ...io.results import versions
from ...io.whole import write_together
from ...jobs.shared.settings import Settings, prepared_prior, settle
from ...priors import about
from ...registry.configuration import read_config
from ..report.tables import cells_csv
from ..rows import ROWS, append_row, read_rows
from ..sharing import claimed, locked
from .design import SimulatedCell, design
from .methods import DEFAULT, SCAN_METHODS, chosen_methods
from .real import find_file, shared_folder
from .report import simulated_report
from .scan import Trial
from .score import scored_scan, scores_in_words
from .simulated import simulate_scan

STACK_FILE = "mri/eval/openms_eval.npz"


@dataclass(frozen=True)
class Measurement:
    """A method on a simulated scan: one row."""

    cell: SimulatedCell
    method: str
    key: str


def run_simulated(
    config: str | None,
    data: str | Path | None,
    out: str | Path,
    *,
    images: str | Path | None = None,
    axes: Mapping[str, Sequence[Any]] | None = None,
    count: int | None = None,
    seed: int = 0,
    methods: Sequence[str] = (),
    again: Sequence[str] = (),
    dry_run: bool = False,
    say: Callable[[str], object] = tqdm.write,
) -> int:
    """Reconstruct the scans of `design` by ``methods``; rows to ``out/rows.jsonl``, and the report of all of them.

    ``config``: settings of ours (a preset or a YAML file). ``images``: npz with magnitude slices, by default
    `STACK_FILE` below the folder ``data``. Rows that the folder has are kept, but for the methods ``again``,
    which are measured anew: after a change of the code, for instance. Processes may share the folder. Returns
    how many reconstructions failed. Raises `ConfigError`, `InputError` and `OutputError`.
    """
    settings = settle(read_config(config) if config else {}, {})
    prior = prepared_prior(settings)
    path = Path(images) if images else find_file(shared_folder(data), STACK_FILE, Path(STACK_FILE).name)
    stack = read_stack(path)
    cells = design(axes or {}, len(stack), count, seed)
    names = chosen_methods(methods, say)
    chosen_methods(again, lambda text: None)
    digests = [hashlib.blake2b(image.numpy().tobytes(), digest_size=8).hexdigest() for image in stack]
    weights = about(prior).card.get("sha256", "")
    pieces = [
        Measurement(cell, name, piece_key(cell, name, digests[cell.slice], settings, weights))
        for cell in cells
        for name in names
    ]
    out = check_folder(out)
    done = {row["key"] for row in read_rows(out / ROWS) if row["status"] == "done"}
    todo = [piece for piece in pieces if piece.key not in done or piece.method in again]
    say(f"{path}: {len(cells)} scans, {len(pieces)} reconstructions, {len(pieces) - len(todo)} of them done")
    if dry_run:
        for cell in cells:
            say(cell.label)
        return 0
    out.mkdir(parents=True, exist_ok=True)

    @lru_cache(maxsize=1)
    def trial(cell: SimulatedCell) -> Trial:
        spec = asdict(cell)
        scan = simulate_scan(stack[spec.pop("slice")], **spec)
        return Trial(scan, settings, prior)

    try:
        with tqdm(total=len(todo), unit="image", disable=None) as bar:
            for piece in todo:
                measure_piece(piece, trial, out, piece.method in again, say)
                bar.update()
    except KeyboardInterrupt:
        say("Interrupted. The same command goes on with what is missing.")
        raise
    return refresh_report(out, {piece.key for piece in pieces}, settings, path.name, say)


def piece_key(cell: SimulatedCell, method: str, data: str, settings: Settings, weights: str) -> str:
    """The hash of what a row's numbers depend on but the code; of ours also the recipe and the prior's ``weights``."""
    recipe = asdict(settings.recipe)
    ours = [recipe, weights, settings.runtime.precision] if method == DEFAULT else []
    maps = [
        recipe[name] for name in ("calibration", "kernel", "crop", "soft", "sets", "sigma_y", "sigma_floor")
    ]
    text = json.dumps(
        [asdict(cell), method, data, ours, maps if method in ("cg-sense", "tv") else []], default=str
    )
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def measure_piece(
    piece: Measurement,
    trial: Callable[[SimulatedCell], Trial],
    out: Path,
    again: bool,
    say: Callable[[str], object],
) -> None:
    """Measure and append one row, unless another process is measuring it or has."""
    with claimed(out, piece.key) as mine:
        rows = read_rows(out / ROWS) if mine else []
        if not mine or (not again and any(r["key"] == piece.key and r["status"] == "done" for r in rows)):
            return
        row: dict[str, Any] = {
            "key": piece.key,
            "status": "failed",
            "cell": asdict(piece.cell) | {"method": piece.method},
        }
        try:
            here = trial(piece.cell)
            row |= scored_scan(here.scan, SCAN_METHODS[piece.method](here), LEVEL) | {"status": "done"}
            said = scores_in_words(row)
        except Exception as error:
            explanation = error if isinstance(error, ReconError) else explained(error, Path(piece.cell.label))
            row["error"] = {name: getattr(explanation, name, "") for name in ("what", "why", "do")}
            said = f"failed. {row['error']['what']} {row['error']['why']}"
        append_row(
            out / ROWS, row | {"versions": versions(), "finished": datetime.now().isoformat("T", "seconds")}
        )
    say(f"{piece.cell.label} / {piece.method}: {said}")


def refresh_report(
    out: Path, keys: set[str], settings: Settings, name: str, say: Callable[[str], object]
) -> int:
    """Write ``simulated.md`` and ``simulated.csv`` of the rows of these keys, and say the summary; how many failed."""
    with locked(out / "simulated.md"):
        latest = {row["key"]: row for row in read_rows(out / ROWS) if row["key"] in keys}
        if not latest:
            raise ConfigError("There is nothing to report.", "No reconstruction was made.")
        page, summary = simulated_report(list(latest.values()), settings.recipe, name)
        files = {out / "simulated.md": page, out / "simulated.csv": cells_csv(list(latest.values()))}
        write_together(
            {path: lambda file, text=text: file.write(text.encode()) for path, text in files.items()}
        )
    for line in (*summary, f"Written: {', '.join(map(str, files))}"):
        say(line)
    return sum(row["status"] != "done" for row in latest.values())
