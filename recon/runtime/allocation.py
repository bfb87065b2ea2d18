"""How the C library treats memory that tensors free on a processor: kept for the next ones, or given back."""

from __future__ import annotations

import ctypes
import os
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT, KEPT_BEFORE = 2**30, 2**25  # bytes; older versions refuse more for a single block


@cache
def keep_memory() -> bool:
    """Let the C library keep freed tensors for the next ones, where it would give large ones back to the system.

    Else each large tensor costs fresh pages, 15 to 25 % of a sampler's time at 256 x 256. It concerns the
    whole process, which then keeps up to 1 GiB of what it once took. Done once, for glibc; nothing happens
    elsewhere, nor where the environment tunes it (``MALLOC_...``, ``GLIBC_TUNABLES``). Returns whether it was.
    """
    tuned = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if tuned or mallopt is None:
        return False
    kept = mallopt(MMAP_THRESHOLD, KEPT) or mallopt(MMAP_THRESHOLD, KEPT_BEFORE)
    return bool(kept and mallopt(TRIM_THRESHOLD, KEPT))
