"""Files in and out: k-space of several formats, masks and maps, pictures, results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ..errors import InputError
from .checks.maps import check_maps, maps_of_slice
from .checks.masks import as_mask, fetch_mask
from .cropping import center_crop, crop_readout
from .folders import files_in
from .images import PICTURES, read_array
from .kspace import (
    KSpaceFile,
    KSpaceSlice,
    Survey,
    kspace_file,
    survey,
)
from .panel import save_panel
from .results import ResultWriter, SavedResult, is_done, read_result
from .stores import READERS, Store, open_store, read_cfl, write_cfl
from .targets import check_folder, picture_path, refuse_existing, refuse_overwriting, result_paths

__all__ = [
    "PICTURES",
    "READERS",
    "KSpaceFile",
    "KSpaceSlice",
    "ResultWriter",
    "SavedResult",
    "Survey",
    "center_crop",
    "check_folder",
    "crop_readout",
    "files_in",
    "is_done",
    "open_kspace",
    "read_array",
    "picture_path",
    "read_cfl",
    "read_maps",
    "read_mask",
    "read_result",
    "refuse_existing",
    "refuse_overwriting",
    "result_paths",
    "save_panel",
    "survey",
    "write_cfl",
]


def open_kspace(path: str | Path, matrix: Sequence[int] | None = None) -> KSpaceFile:
    """What the k-space file at ``path`` holds; its slices are read by `KSpaceFile.read_slice`.

    ``matrix``: as in `kspace_file`. The suffix names the format, and the content must agree with it; without a known suffix the content decides.
    Raises `InputError` for whatever cannot be used.
    """
    return kspace_file(open_store(path, "kspace"), matrix)


def read_mask(path: str | Path, file: KSpaceFile, sampled: Tensor | None = None) -> Tensor:
    """The sampling mask in a file or a picture, (W,) or (H, W) bool, for the k-space of ``file``.

    ``sampled`` (H, W) bool, where k-space is not zero, tells rows from columns where the shape does not (`oriented`).

    Raises `InputError` for a file that cannot be used, and for a mask that `as_mask` refuses.
    """
    if Path(path).suffix.lower() in PICTURES:
        return as_mask(read_array(path).numpy(), file.shape[2:], Path(path), sampled)
    store = open_store(path, "mask")
    return fetch_mask(store, required(store, "mask"), file.shape, sampled)


def read_maps(path: str | Path, file: KSpaceFile, index: int) -> Tensor:
    """Sensitivity maps (sets, coils, H, W) complex64 in a file, for slice ``index`` of ``file``.

    Raises `InputError` for a file that cannot be used, and for maps that do not fit or are not finite.
    """
    store = open_store(path, "maps")
    name = required(store, "maps")
    check_maps(store, store.entries()[name], file.image_shape)
    return maps_of_slice(store, name, file.image_shape, index)


def required(store: Store, role: str) -> str:
    """The name under which the file keeps its ``role``; raises `InputError` if it has none."""
    name = store.find(role)
    if name is None:
        raise InputError(
            f'{store.path} has no "{role}".',
            f"It holds: {store.contents()}.",
            f'Store the array under the name "{role}".',
        )
    return name
