"""The part of an ISMRMRD XML header that a reconstruction needs: matrix sizes and encoding limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from ...errors import InputError

SPACE = "{http://www.ismrm.org/ISMRMRD}"


@dataclass(frozen=True)
class Header:
    """Matrix sizes (x along the readout, y along the phase) and the limits of the phase encoding.

    A size is None where the header, or the file, does not say.
    """

    present: bool = False
    encoded: tuple[int, int] | None = None
    recon: tuple[int, int] | None = None
    last_line: int | None = None
    center_line: int | None = None

    @classmethod
    def parse(cls, text: bytes | str | None, path: Path) -> Header:
        """Read the header's XML; raises `InputError` for anything else, and for XML that declares entities."""
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
        limits = "encoding/encodingLimits/kspace_encoding_step_1/"
        return cls(
            True,
            matrix(root, "encoding/encodedSpace/matrixSize/"),
            matrix(root, "encoding/reconSpace/matrixSize/"),
            integer(root, limits + "maximum"),
            integer(root, limits + "center"),
        )

    def crop(self, size: tuple[int, ...]) -> tuple[int, int]:
        """Size (h, w) of the image that is kept of ``size`` (H, W): never larger than it."""
        height, width = self.recon or size
        return min(height, size[0]), min(width, size[1])

    def acquired(self, width: int) -> tuple[int, int]:
        """Range of the phase lines that were measured, [first, last); the others are zero padding."""
        if self.center_line is None or self.last_line is None:
            return 0, width
        first = width // 2 - self.center_line
        last = first + self.last_line + 1
        return (first, last) if 0 <= first < last <= width else (0, width)

    def notes(self, size: tuple[int, ...]) -> list[str]:
        """What a user should know where the header and k-space of ``size`` (H, W) disagree, a sentence each."""
        notes = []
        if self.present and self.recon is None:
            notes.append("The ismrmrd_header gives no reconstruction size: the image is as large as k-space.")
        if self.encoded is not None and self.encoded != tuple(size):
            notes.append(
                f"The ismrmrd_header says {self.encoded[0]} x {self.encoded[1]}, "
                f"k-space is {size[0]} x {size[1]}."
            )
        return notes


def integer(root: ElementTree.Element, path: str) -> int | None:
    """An integer of the header, with the ISMRMRD namespace or without one; None if there is none."""
    text = root.findtext(SPACE + path.replace("/", "/" + SPACE)) or root.findtext(path)
    try:
        return int(text) if text else None
    except ValueError:
        return None


def matrix(root: ElementTree.Element, path: str) -> tuple[int, int] | None:
    """The matrix size (x, y), both positive; None if the header gives none."""
    x, y = integer(root, path + "x"), integer(root, path + "y")
    return (x, y) if x and y and x > 0 and y > 0 else None
