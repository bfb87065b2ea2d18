"""The weights of a scan as two sparse matrices, ``A`` and ``A^T``, kept on disk from one process to the next."""

from __future__ import annotations

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .cache import weights_from_disk
from .geometry import Rays, ScanGeometry
from .joseph import joseph_weights

PADDING = (
    8  # rows of the image are stored so much longer: rows of a power of two fight over the same cache lines
)
WEIGHED_AT_ONCE = 2**22  # weights that are computed at once


def matrices(geometry: ScanGeometry) -> tuple[Tensor, Tensor]:
    """CSR ``A`` (rays, size (size + PADDING)) and its transpose, in the default dtype; in pixels."""
    arrays = weights_from_disk(geometry, lambda: built(geometry))
    width = geometry.size * (geometry.size + PADDING)
    count = len(geometry.angles) * geometry.detectors
    (ends, columns, values), (its_ends, its_columns, its_values) = arrays[:3], arrays[3:]
    matrix, transpose = csr(ends, columns, values, width), csr(its_ends, its_columns, its_values, count)
    dtype = torch.get_default_dtype()
    return (matrix, transpose) if dtype == torch.float32 else (matrix.to(dtype), transpose.to(dtype))


def built(geometry: ScanGeometry) -> list[np.ndarray]:
    """Ends of rows, columns and values of ``A``, then of its transpose; int32 and float32."""
    from scipy.sparse import csr_matrix

    size, rays = geometry.size, geometry.rays()
    views = max(1, WEIGHED_AT_ONCE // (2 * size * geometry.detectors))
    columns, values, counts = [], [], []
    for some in zip(*(table.split(views) for table in rays), strict=True):
        place, weight = joseph_weights(Rays(*some), size)
        line, by_columns = torch.arange(size)[:, None], some[2][..., None, None]
        row, column = torch.where(by_columns, place, line), torch.where(by_columns, line, place)
        pixel = row * (size + PADDING) + column
        seen = weight > 0
        columns.append(pixel[seen].to(torch.int32))
        values.append(weight[seen].float())
        counts.append(seen.flatten(0, 1).flatten(1).sum(1))
    ends = F.pad(torch.cat(counts).cumsum(0), (1, 0)).to(torch.int32)
    shape = len(geometry.angles) * geometry.detectors, size * (size + PADDING)
    matrix = csr_matrix((torch.cat(values).numpy(), torch.cat(columns).numpy(), ends.numpy()), shape)
    matrix.sort_indices()
    transpose = matrix.tocsc()
    return [part for each in (matrix, transpose) for part in (each.indptr, each.indices, each.data)]


def csr(
    ends: np.ndarray | Tensor, columns: np.ndarray | Tensor, values: np.ndarray | Tensor, width: int
) -> Tensor:
    """A sparse matrix of that width; row i has the entries from ``ends[i]`` to ``ends[i + 1]``."""
    ends, columns, values = (torch.as_tensor(part) for part in (ends, columns, values))
    with warnings.catch_warnings():  # torch calls its CSR layout a beta feature
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(ends, columns, values, (len(ends) - 1, width))


def sparse_product(matrix: Tensor, x: Tensor) -> Tensor:
    """``M x`` of each row of x (rows, columns of the matrix)."""
    return (matrix @ x[0])[None] if len(x) == 1 else (matrix @ x.T).T.contiguous()
