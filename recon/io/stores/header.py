"""The part of an ISMRMRD XML header that a reconstruction needs: matrix sizes, fields of view, encoding limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from ...errors import InputError

SPACE = "{http://www.ismrm.org/ISMRMRD}"
CARTESIAN = ("cartesian", "epi")
EITHER = ("", "other")  # Cartesian where the readouts carry no trajectory


@dataclass(frozen=True)
class Grid:
    """An encoded or reconstructed space: ``matrix`` and ``fov`` in mm along the readout, the phase and the partitions.

    ``fov`` is None where the header gives none.
    """

    matrix: tuple[int, int, int]
    fov: tuple[float, float, float] | None = None

    @property
    def plane(self) -> tuple[int, int]:
        """Matrix size along the readout and the phase."""
        return self.matrix[:2]


@dataclass(frozen=True)
class Limits:
    """The range of an encoding counter: its largest value, and the one of the zero frequency; None where not said."""

    maximum: int | None = None
    center: int | None = None


@dataclass(frozen=True)
class Header:
    """Spaces and limits of one encoding; ``encoded`` and ``recon`` are None where the header, or the file, does not say.

    ``lines`` and ``partitions``: limits of the two phase encodings. ``trajectory`` and ``calibration`` (the
    mode of the lines for parallel imaging) are the header's own words, "" where it has none. ``multiband``: slices that
    were excited together.
    """

    present: bool = False
    encoded: Grid | None = None
    recon: Grid | None = None
    lines: Limits = Limits()
    partitions: Limits = Limits()
    trajectory: str = ""
    calibration: str = ""
    multiband: int = 1

    @classmethod
    def parse(cls, text: bytes | str | None, path: Path, encoding: int = 0) -> Header:
        """Read the header's XML; raises `InputError` for anything else, and for XML that declares entities.

        ``encoding`` counts the encodings of the measurement: `encoding_space_ref` of an acquisition.
        """
        if text is None:
            return cls()
        try:
            text = text.encode() if isinstance(text, str) else text
            if (
                b"<!DOCTYPE" in text or b"<!ENTITY" in text or b"\0" in text
            ):  # zeros: UTF-16 would hide the others
                raise ElementTree.ParseError(
                    "it declares entities, or is not UTF-8; an ISMRMRD header never does"
                )
            root = ElementTree.fromstring(text)
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            raise InputError(
                f"{path}: its ismrmrd_header cannot be read.",
                f"It is not the XML of an ISMRMRD header: {error}.",
                "Write the header again, or remove it: the image is then not cropped.",
            ) from error
        encodings = root.findall(f"{SPACE}encoding") or root.findall("encoding")
        if encoding >= len(encodings):
            return cls(present=True)
        found = encodings[encoding]
        return cls(
            True,
            grid(found, "encodedSpace/"),
            grid(found, "reconSpace/"),
            limits(found, "encodingLimits/kspace_encoding_step_1/"),
            limits(found, "encodingLimits/kspace_encoding_step_2/"),
            words(found, "trajectory").lower(),
            words(found, "parallelImaging/calibrationMode").lower(),
            int(number(found, "parallelImaging/multiband/multiband_factor") or 1),
        )

    def crop(self, size: tuple[int, ...]) -> tuple[int, int]:
        """Size (h, w) of the image that is kept of ``size`` (H, W): never larger than it."""
        height, width = self.recon.plane if self.recon else size
        return min(height, size[0]), min(width, size[1])

    def acquired(self, width: int) -> tuple[int, int]:
        """Range of the phase lines that were measured, [first, last); the others are zero padding."""
        if self.lines.center is None or self.lines.maximum is None:
            return 0, width
        first = width // 2 - self.lines.center
        last = first + self.lines.maximum + 1
        return (first, last) if 0 <= first < last <= width else (0, width)

    def notes(self, size: tuple[int, ...]) -> list[str]:
        """What a user should know where the header and k-space of ``size`` (H, W) disagree, a sentence each."""
        notes = []
        if self.present and self.recon is None:
            notes.append("The ismrmrd_header gives no reconstruction size: the image is as large as k-space.")
        if self.encoded is not None and self.encoded.plane != tuple(size):
            height, width = self.encoded.plane
            notes.append(f"The ismrmrd_header says {height} x {width}, k-space is {size[0]} x {size[1]}.")
        return notes


def words(root: ElementTree.Element, path: str) -> str:
    """A text of the header, with the ISMRMRD namespace or without one; empty if there is none."""
    found = root.findtext(SPACE + path.replace("/", "/" + SPACE)) or root.findtext(path)
    return (found or "").strip()


def number(root: ElementTree.Element, path: str) -> float | None:
    """A number of the header; None if there is none."""
    try:
        found = float(words(root, path))
    except ValueError:
        return None
    return found if abs(found) < 2**31 else None


def limits(root: ElementTree.Element, path: str) -> Limits:
    """The limits of an encoding counter."""
    found = (number(root, path + name) for name in ("maximum", "center"))
    return Limits(*(None if value is None else int(value) for value in found))


def grid(root: ElementTree.Element, path: str) -> Grid | None:
    """A space of the header; None if it has no positive matrix size along readout and phase."""
    x, y, z = (number(root, f"{path}matrixSize/{axis}") for axis in "xyz")
    fov = [number(root, f"{path}fieldOfView_mm/{axis}") or 0 for axis in "xyz"]
    if not (x and y and x >= 1 and y >= 1):
        return None
    known = (fov[0], fov[1], fov[2]) if min(fov) > 0 else None
    return Grid((int(x), int(y), int(z or 1)), known)
