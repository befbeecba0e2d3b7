"""Keep freed memory in the process: training allocates and frees the same large buffers thousands of times a second.

glibc gives large buffers back to the kernel at once and asks for them again, zeroed page by page; with several threads that costs more
than the arithmetic. This sets glibc's own limits for this process; on other C libraries it does nothing.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from typing import Any

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_ONE_GIBIBYTE = 1 << 30


def keep_freed_memory() -> bool:
    """Returns whether it took effect. Idempotent, and cannot be undone: only for a process that is Journeyman's own."""
    mallopt = _c_function("mallopt")
    if mallopt is None:
        return False
    settings = ((_M_MMAP_THRESHOLD, _ONE_GIBIBYTE), (_M_TRIM_THRESHOLD, _ONE_GIBIBYTE), (_M_TOP_PAD, 1 << 26))
    return all([mallopt(parameter, value) == 1 for parameter, value in settings])


def return_freed_memory() -> None:
    """Give what is free back to the kernel: between a step's gradients and the next attempts nobody needs it."""
    malloc_trim = _c_function("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


@functools.cache  # finding the library starts a process
def _c_function(name: str) -> Any:
    try:
        return getattr(ctypes.CDLL(ctypes.util.find_library("c")), name)
    except (OSError, AttributeError, TypeError):
        return None
