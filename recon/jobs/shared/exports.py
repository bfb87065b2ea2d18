"""Mean and std of a finished result in further formats, beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...errors import ConfigError, unknown
from ...io import SavedResult, read_result, refuse_existing
from ...io.dicom import dicom_bytes, dicom_paths, read_template
from ...io.nifti import nibabel_library, nifti_bytes, nifti_paths
from ...io.whole import write_together
from .planning import PlannedFile
from .settings import Settings

FORMATS = ("nifti", "dicom")


@dataclass(frozen=True)
class Exports:
    """Which ``formats`` are written beside a result; ``template`` is the `pydicom.Dataset` that DICOM needs."""

    formats: tuple[str, ...] = ()
    template: Any = None

    def paths(self, plan: PlannedFile, settings: Settings) -> list[Path]:
        """All files that belong to the result of ``plan``."""
        return [path for _, _, paths in self._files(plan, settings) for path in paths]

    def refuse_existing(self, plan: PlannedFile, settings: Settings, overwrite: bool) -> None:
        """Raises `OutputError` where a file would be replaced that is none of a result that is done."""
        if not plan.done:
            refuse_existing(self.paths(plan, settings), overwrite)

    def write(self, plan: PlannedFile, settings: Settings, overwrite: bool) -> list[Path]:
        """Write what is missing, or all with ``overwrite``, from the finished result; returns what was written."""
        missing = {path for path in self.paths(plan, settings) if overwrite or not path.exists()}
        if not missing:
            return []
        result = read_result(plan.target)
        made: dict[Path, bytes] = {}
        for form, name, paths in self._files(plan, settings):
            made |= zip(paths, self._made(form, name, plan, result), strict=True)
        write_together({path: partial(write_bytes, data) for path, data in made.items() if path in missing})
        return [path for path in made if path in missing]

    def _files(self, plan: PlannedFile, settings: Settings) -> Iterator[tuple[str, str, list[Path]]]:
        """(format, image, files) of each image that is written; one sample has no std."""
        file = plan.file
        for form in self.formats:
            for name in ("mean", "std") if settings.recipe.samples > 1 else ("mean",):
                if form == "nifti":
                    yield form, name, nifti_paths(plan.target, name, file.geometry, file.slices, file.crop)
                else:
                    yield form, name, dicom_paths(plan.target, name, file.slices)

    def _made(self, form: str, name: str, plan: PlannedFile, result: SavedResult) -> list[bytes]:
        """The bytes of the files of one image."""
        images = np.asarray(result.reconstruction if name == "mean" else result.std)
        samples = result.config.get("samples")
        about = f"recon posterior {name} of {samples} samples, in the units of the k-space file"
        if form == "nifti":
            return nifti_bytes(images, plan.file.geometry, about)
        source = str(result.attrs["fingerprint"])
        return dicom_bytes(images, plan.file.geometry, self.template, name, source, about)


def write_bytes(data: bytes, file: IO[bytes]) -> None:
    """Write ``data`` to an open file."""
    file.write(data)


def make_exports(formats: Iterable[str] = (), template: str | Path | None = None) -> Exports:
    """The formats by name, with all that they need; raises `ConfigError` where something is missing."""
    formats = tuple(dict.fromkeys(formats))
    for name in formats:
        if name not in FORMATS:
            raise unknown("format", name, FORMATS)
    if "nifti" in formats:
        nibabel_library()
    if ("dicom" in formats) is (template is None):
        what = (
            "DICOM needs a template."
            if template is None
            else "A DICOM template was given, but no DICOM is written."
        )
        raise ConfigError(
            what,
            "Patient and study of the images are those of a DICOM file of yours.",
            "Use --format dicom and --dicom-template FILE together.",
        )
    return Exports(formats, None if template is None else read_template(template))
