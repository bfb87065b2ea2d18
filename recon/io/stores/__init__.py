"""Files of arrays: one class for each format, all with the interface of `base.Store`."""

from __future__ import annotations

from .arrays import NpyStore, NpzStore
from .base import NAMES, ArrayInfo, Store
from .cfl import CflStore, read_cfl, write_cfl
from .fastmri import HDF5Store
from .header import Header
from .opening import READERS, open_store

__all__ = [
    "NAMES",
    "READERS",
    "ArrayInfo",
    "CflStore",
    "HDF5Store",
    "Header",
    "NpyStore",
    "NpzStore",
    "Store",
    "open_store",
    "read_cfl",
    "write_cfl",
]
