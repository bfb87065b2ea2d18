"""The format of a file, by its suffix and its content."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import InputError
from .arrays import NpyStore, NpzStore
from .base import Store
from .cfl import CflStore
from .fastmri import HDF5Store
from .ismrmrd import ISMRMRDStore, raw_groups

READERS: dict[str, type[Store]] = {
    ".h5": HDF5Store,
    ".hdf5": HDF5Store,
    ".cfl": CflStore,
    ".hdr": CflStore,
    ".npy": NpyStore,
    ".npz": NpzStore,
}


def open_store(path: str | Path, role: str) -> Store:
    """The file at ``path`` as a store of arrays; a pair of BART may be named without a suffix. Raises `InputError`."""
    path = Path(path)
    if not path.suffix and not os.path.exists(path) and os.path.exists(f"{path}.cfl"):
        path = Path(f"{path}.cfl")
    if not os.path.exists(
        path
    ):  # unlike Path.exists also if the name is too long, or a folder may not be read
        raise InputError(
            f"{path} does not exist.",
            "There is no file of this name, or none that may be seen.",
            "Check the path for a typing error.",
        )
    if path.is_dir():
        raise InputError(
            f"{path} is a folder.", "A file with k-space is needed.", f"Name the files in it: {path}/*.h5."
        )
    if not path.is_file():
        raise InputError(
            f"{path} is not a file.",
            "It is a pipe or a device, of which no slice can be read by itself.",
            "Write its content to a file first.",
        )
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError as error:
        raise InputError(
            f"{path} cannot be opened.", f"{error.strerror}.", "Check who may read the file."
        ) from error
    if not head and path.suffix != ".cfl":
        raise InputError(f"{path} is empty.", "It has 0 bytes.", "Copy or download it again.")
    named, found = READERS.get(path.suffix.lower()), by_content(path, head)
    if named is None and found is None:
        raise InputError(
            f"{path} is of an unknown format.",
            f"Neither its suffix nor its content is one of {', '.join(READERS)}.",
            "Convert it to one of these.",
        )
    if named is not None and named is not CflStore and named is not found:
        raise InputError(
            f"{path} is not {article(named)} file.",
            f"Its content is {article(found)} file's." if found else "Its content is of another kind.",
            f"Rename it to end in {suffix_of(found)}." if found else "Copy or download it again.",
        )
    if found is HDF5Store and role == "kspace" and is_raw(HDF5Store(path)):
        return ISMRMRDStore(path)
    return (named or found)(path, role)  # type: ignore[misc]


def is_raw(store: HDF5Store) -> bool:
    """Whether an HDF5 file holds ISMRMRD's readouts, and no k-space that was made of them."""
    return bool(raw_groups(store.path)) and store.find("kspace") is None


def by_content(path: Path, head: bytes) -> type[Store] | None:
    """The format whose signature the file has, if any; HDF5 may start after a block of the user's own."""
    if head.startswith(b"\x93NUMPY"):
        return NpyStore
    if head.startswith(b"PK"):
        return NpzStore
    signature = b"\x89HDF\r\n\x1a\n"
    with open(path, "rb") as file:
        for start in (0, *(512 * 2**n for n in range(8))):
            file.seek(start)
            if file.read(8) == signature:
                return HDF5Store
    return None


def article(kind: type[Store]) -> str:
    """The name of a format with its article."""
    return ("an " if kind.format[0] in "Hn" else "a ") + kind.format


def suffix_of(kind: type[Store]) -> str:
    """The usual suffix of a format."""
    return next(suffix for suffix, reader in READERS.items() if reader is kind)
