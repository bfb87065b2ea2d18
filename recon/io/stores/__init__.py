"""Files of arrays: one class for each format, all with the interface of `base.Store`."""

from __future__ import annotations

from .arranged import ArrangedStore, axes_of
from .arrays import NpyStore, NpzStore
from .base import NAMES, ArrayInfo, Store
from .cfl import CflStore, read_cfl, write_cfl
from .fastmri import HDF5Store
from .geometry import Geometry
from .header import Header
from .ismrmrd import ISMRMRDStore
from .opening import READERS, open_store

__all__ = [
    "NAMES",
    "READERS",
    "ArrangedStore",
    "ArrayInfo",
    "CflStore",
    "Geometry",
    "HDF5Store",
    "ISMRMRDStore",
    "Header",
    "NpyStore",
    "NpzStore",
    "Store",
    "axes_of",
    "open_store",
    "read_cfl",
    "write_cfl",
]
