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
from ...io.stores import Geometry
from ...io.tiff import tiff_bytes, tiff_paths
from ...io.tomography.hounsfield import to_hounsfield
from ...io.whole import write_together

FORMATS = ("nifti", "dicom", "tiff")


@dataclass(frozen=True, eq=False)
class Exportable:
    """What a result's other files are made of: where it is, of how many ``slices`` of which ``size``, and which ``images``.

    ``unit``: of their values, in words. ``water``: its attenuation in that unit, of CT images, which DICOM wants in Hounsfield
    units; None where it is not known, 0 for images that are of no attenuation.
    """

    target: Path
    slices: int
    size: tuple[int, int]
    images: tuple[str, ...]
    geometry: Geometry | None
    unit: str
    done: bool = False
    water: float | None = 0


@dataclass(frozen=True)
class Exports:
    """Which ``formats`` are written beside a result; ``template`` is the `pydicom.Dataset` that DICOM needs."""

    formats: tuple[str, ...] = ()
    template: Any = None

    def paths(self, result: Exportable) -> list[Path]:
        """All files that belong to a result."""
        return [path for _, _, paths in self._files(result) for path in paths]

    def refuse_existing(self, result: Exportable, overwrite: bool) -> None:
        """Raises `OutputError` where a file would be replaced that is none of a result that is done.

        `ConfigError` where DICOM is asked for and the attenuation of water is not known.
        """
        if "dicom" in self.formats and result.water is None:
            raise ConfigError(
                f"{result.target}: DICOM of CT is in Hounsfield units, which rest on the attenuation of water.",
                "It does not follow from the file.",
                "Give it with --water, or write nifti or tiff.",
            )
        if not result.done:
            refuse_existing(self.paths(result), overwrite)

    def write(self, result: Exportable, overwrite: bool) -> list[Path]:
        """Write what is missing, or all with ``overwrite``, from the finished result; returns what was written."""
        missing = {path for path in self.paths(result) if overwrite or not path.exists()}
        if not missing:
            return []
        saved = read_result(result.target)
        made: dict[Path, bytes] = {}
        for form, name, paths in self._files(result):
            made |= zip(paths, self._made(form, name, result, saved), strict=True)
        write_together({path: partial(write_bytes, data) for path, data in made.items() if path in missing})
        return [path for path in made if path in missing]

    def _files(self, result: Exportable) -> Iterator[tuple[str, str, list[Path]]]:
        """(format, image, files) of each image that is written."""
        for form in self.formats:
            for name in result.images:
                if form == "nifti":
                    paths = nifti_paths(result.target, name, result.geometry, result.slices, result.size)
                elif form == "tiff":
                    paths = tiff_paths(result.target, name)
                else:
                    paths = dicom_paths(result.target, name, result.slices)
                yield form, name, paths

    def _made(self, form: str, name: str, result: Exportable, saved: SavedResult) -> list[bytes]:
        """The bytes of the files of one image."""
        images = np.asarray(saved.reconstruction if name == "mean" else saved.std)
        about = f"recon posterior {name} of {saved.config.get('samples')} samples, in {result.unit}"
        if form == "nifti":
            return nifti_bytes(images, result.geometry, about)
        if form == "tiff":
            return tiff_bytes(images, about)
        if result.water:
            images = to_hounsfield(images, result.water) + (0 if name == "mean" else 1000)
            about = about.replace(result.unit, "Hounsfield units")
        source = str(saved.attrs["fingerprint"])
        return dicom_bytes(
            images, result.geometry, self.template, name, source, about, hounsfield=bool(result.water)
        )


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
