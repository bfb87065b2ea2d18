"""Real scans that are fully sampled, and how ``recon bench mri`` and ``recon bench curve`` undersample them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from operators.masks import make_mask

from ...errors import ConfigError, unknown
from ...io import crop_readout
from ...io.acquisition import MaskChoice, sampled_in
from ...io.checks.layout import look
from ...jobs.shared.planning import plan_file
from ...jobs.shared.settings import Settings
from ...jobs.shared.slices import reference_of
from ...priors import Prior
from .scan import Scan

Say = Callable[[str], object]
FOLDER, NAME = "mri/kspace", "real_brain_mprage_4ch.h5"


@dataclass(frozen=True)
class Case:
    """One undersampling of a scan: a mask name with its acceleration and the fully sampled share of the width."""

    name: str
    mask: str
    accel: float
    center: float

    def make_mask(self, kspace: Tensor, seed: str) -> Tensor:
        """The mask (H, W), bool, of k-space (coils, H, W), seeded by the name of its file."""
        return make_mask(self.mask, (kspace.shape[-2], kspace.shape[-1]), self.accel, self.center, seed)


CASES = {
    case.name: case
    for case in (
        Case("4x equispaced", "equispaced-fraction", 4, 0.08),
        Case("4x random", "random", 4, 0.08),
        Case("8x equispaced, 8 %", "equispaced-fraction", 8, 0.08),
        Case("8x equispaced", "equispaced-fraction", 8, 0.04),
        Case("6x equispaced", "equispaced-fraction", 6, 0.04),
    )
}


@dataclass(frozen=True)
class RealScan:
    """A file with the cases it is measured in, and the sets of maps that BART needs: 2 where the object folds over."""

    path: Path
    cases: tuple[str, ...] = tuple(CASES)
    sets: int = 1


KNOWN = {
    NAME: RealScan(Path(NAME)),
    "real_brain_8ch.h5": RealScan(Path("real_brain_8ch.h5"), ("4x equispaced",), 2),
}
"""The scans of the data folder."""


def real_scans(
    data: str | Path | None, files: Sequence[str | Path] = (), cases: Sequence[str] = ()
) -> list[RealScan]:
    """The scans to measure: the ``files``, or those of `KNOWN` that are below the folder ``data``; ``cases`` instead of theirs.

    Raises `ConfigError` where there is none, and for an unknown case.
    """
    for case in cases:
        if case not in CASES:
            raise unknown("case", case, CASES)
    if files:
        scans = [replace(KNOWN.get(Path(file).name, RealScan(Path(file))), path=Path(file)) for file in files]
    else:
        find_scan(data)  # it says what is missing
        folder = shared_folder(data)
        found = {name: [p for p in (folder / FOLDER / name, folder / name) if p.is_file()] for name in KNOWN}
        scans = [replace(KNOWN[name], path=paths[0]) for name, paths in found.items() if paths]
    return [replace(scan, cases=tuple(cases)) for scan in scans] if cases else scans


def undersampled(scan: RealScan, settings: Settings, prior: Prior) -> Iterator[tuple[Case, Scan]]:
    """The first slice in each of the scan's cases, as ``recon reconstruct`` would read it with that mask.

    Raises `InputError` for a file that cannot be used, such as one that is undersampled already.
    """
    file, found = look(scan.path)
    piece = file.read_slice(0)
    for case in map(CASES.__getitem__, scan.cases):
        chosen = replace(settings, mask=MaskChoice(case.mask, case.accel, case.center))
        plan = plan_file(file, found, Path(file.path.name), chosen, prior)
        kspace, mask = piece.kspace, sampled_in(piece.kspace, plan.acquisition.mask)
        if plan.cropped_readout:
            kspace, mask = crop_readout(kspace, plan.size[0]), mask.all(0).expand(plan.size)
        reference = reference_of(plan, piece.kspace, None)
        assert reference is not None  # every case leaves samples out
        yield case, Scan(plan.mixing(kspace), mask, reference, sets=min(scan.sets, plan.coils))


def find_scan(data: str | Path | None) -> Path:
    """The scan below the folder ``data``, by default $RECON_SHARED_DATA or ../shared/data; raises `ConfigError`."""
    return find_file(shared_folder(data), f"{FOLDER}/{NAME}", NAME)


def shared_folder(data: str | Path | None) -> Path:
    """The folder of the data: ``data``, else $RECON_SHARED_DATA, else ../shared/data."""
    return Path(data or os.environ.get("RECON_SHARED_DATA") or "../shared/data")


def find_file(folder: Path, *names: str) -> Path:
    """The first of these files that exists below ``folder``; raises `ConfigError`."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(
        f"{folder} holds none of {', '.join(names)}.",
        "The measurement needs that file.",
        "Name the folder with --data, or set RECON_SHARED_DATA.",
    )
