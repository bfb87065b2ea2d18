"""The rows of ``recon bench tomography``: every method on every scan, said as they come, and their means as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from ...errors import ConfigError, unknown
from ...intervals import LEVEL
from ...io import check_folder, save_panel
from ...jobs.shared.scans import TomographySettings, prior_of_tomography, tomography_recipe
from ..scans.real import Say, shared_folder
from .methods import OF_VOLUMES, USUAL_METHODS, XRAY_METHODS, Budget
from .scans import CHEST_CASES, REAL, VOLUME_CASES, XrayScan, chest_scans, volume_scans

XRAY_CASES = (*CHEST_CASES, *REAL, *VOLUME_CASES)


@dataclass(frozen=True)
class XrayRow:
    """A method on a case: the means of its scores over the scans, by name."""

    case: str
    title: str
    method: str
    scores: dict[str, float]
    network_calls: int
    seconds: float
    note: str


def run_tomography(
    data: str | Path | None = None,
    *,
    cases: Sequence[str] = (),
    methods: Sequence[str] = (),
    prior: str | None = None,
    size: int = 256,
    slices: int = 2,
    depth: int = 16,
    steps: int | None = None,
    samples: int | None = None,
    out: str | Path | None = None,
    say: Say = print,
) -> list[XrayRow]:
    """Reconstruct the scans of ``cases`` by ``methods`` and say a table of each; sets and sinograms below ``data``.

    ``size``: of the images of a chest in pixels, ``slices`` of which are measured; ``depth``: slices of the volume.
    ``prior``, ``steps`` and ``samples`` of ours: None for those of ``recon reconstruct``. ``out``: a folder for a picture of
    each result, ``CASE-METHOD.png`` of the first scan, the middle slice of a volume, beside its FBP and reference. Raises `ConfigError` for names that
    are not there, and for a size that does not divide that of the slices.
    """
    for name in cases:
        if name not in XRAY_CASES:
            raise unknown("case", name, XRAY_CASES)
    for name in methods:
        if name not in XRAY_METHODS:
            raise unknown("method", name, XRAY_METHODS)
    for name, value in (("size", size), ("slices", slices), ("depth", depth)):
        if value < 1 or (name == "size" and 256 % size):
            raise ConfigError(
                f"{name} is {value}.",
                "Slices are averaged to 256, 128, 64 ... pixels, and there is one at least.",
            )
    folder = shared_folder(data)
    settings = TomographySettings(tomography_recipe({} if prior is None else {"prior": prior}))
    budget = Budget(prior_of_tomography(settings), steps, samples)
    pictures = None if out is None else check_folder(out)
    found: list[XrayRow] = []
    for case in cases or XRAY_CASES:
        scans: dict[str, Callable[[], object]] = {
            **{name: partial(chest_scans, folder, name, slices, size) for name in CHEST_CASES},
            **{name: partial(make, folder, budget.prior) for name, make in REAL.items()},
            **{name: partial(volume_scans, folder, name, depth, size) for name in VOLUME_CASES},
        }
        made: list[XrayScan] = list(scans[case]())  # type: ignore[call-overload]
        wanted = [name for name in methods or USUAL_METHODS if made[0].volume or name not in OF_VOLUMES]
        if not wanted:
            say(f"{made[0].name}: {', '.join(methods)} are of volumes")
            continue
        rows = [measured_row(case, made, name, budget, pictures, say) for name in wanted]
        found += rows
        say("\n" + xray_table(rows) + "\n")
    return found


def measured_row(
    case: str, scans: Sequence[XrayScan], method: str, budget: Budget, pictures: Path | None, say: Say
) -> XrayRow:
    """A method on all scans of a case, and a picture of the first in the folder ``pictures``."""
    judged: list[dict[str, float]] = []
    seconds, calls, notes = 0.0, 0, []
    for scan in scans:
        done = XRAY_METHODS[method](scan, budget)
        held = {} if done.coverage is None else {f"in {LEVEL:.0%} interval": 100 * done.coverage}
        judged.append(scan.score(done.image) | held)
        if pictures is not None and scan is scans[0]:
            say(f"Written: {draw_tomograph(pictures / f'{case}-{method}.png', scan, done.image, method)}")
        seconds, calls = seconds + done.seconds / len(scans), done.network_calls
        notes.append(done.note)
        words = ", ".join(f"{name} {value:.4g}" for name, value in judged[-1].items())
        say(f"{scan.name}: {method}: {words} {done.note}, {done.seconds:.1f} s")
    means = {name: sum(each[name] for each in judged) / len(judged) for name in judged[0]}
    title = scans[0].name if len(scans) == 1 else scans[0].name.rpartition(", ")[0]
    return XrayRow(case, title, method, means, calls, seconds, ", ".join(filter(None, dict.fromkeys(notes))))


def draw_tomograph(path: Path, scan: XrayScan, image: Tensor, method: str) -> Path:
    """The middle slice of an image (slices, H, W), its filtered back-projection, reference and error."""
    middle = len(image) // 2
    plain = scan.plane.fbp(scan.y[middle : middle + 1])[0, 0] / scan.water
    reference = None if scan.reference is None else scan.reference[middle].clamp_min(0)
    return save_panel(
        path,
        plain.clamp_min(0),
        image[middle],
        None,
        reference,
        caption=f"{scan.name}: {method}",
        without="FBP",
    )


HEADS = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "body psnr": "in the body (dB)",
    "HU": "RMSE (HU)",
    "mcc": "Matthews",
}
SCORE_FORMS = {"ssim": ".3f", "mcc": ".4f", "HU": ".0f"}


def xray_table(rows: Sequence[XrayRow]) -> str:
    """A table of one case in Markdown."""
    names = list(dict.fromkeys(name for row in rows for name in row.scores))
    heads = [rows[0].title, *(HEADS.get(name, name) for name in names), "network calls", "seconds", "setting"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        values = (
            f"{row.scores[name]:{SCORE_FORMS.get(name, '.2f' if 'interval' not in name else '.0f')}}"
            if name in row.scores
            else ""
            for name in names
        )
        cells = [row.method, *values, str(row.network_calls or ""), f"{row.seconds:.1f}", row.note]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
