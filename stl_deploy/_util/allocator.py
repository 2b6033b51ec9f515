"""Keep glibc from giving large buffers back to the system after every training step.

Each step would otherwise fault its pages in anew, up to 60 % of its time. Only glibc has these knobs.
"""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_THRESHOLD = 2**30
_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_large_buffers() -> bool:
    """Raise malloc's mmap and trim thresholds to 1 GiB for this process; True if that was done.

    Nothing is done where the C library is not glibc, or where the user chose an allocator or its settings.
    """
    if any(name in os.environ for name in _VARIABLES):
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 (looks the symbol up)
        mallopt = libc.mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(option, _THRESHOLD) == 1 for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))
