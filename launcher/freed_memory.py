"""Memory that is freed stays with the process: glibc would give large blocks back and fault them in anew.

A step of training, a batch of images and a group from a socket each free megabytes that the next one takes
again. Given back to the kernel they cost a page fault for every 4 KiB: a sixth of a CPU's training and
drawing. A process keeps its largest size instead, as it would with most other allocators.
"""

import ctypes
import os

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 1 << 30
_OLDER_GLIBC_BYTES = 32 << 20
"""The largest threshold of mmap that glibc before 2.35 takes."""
CHOSEN_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""Variables that set the same for glibc, whose word then stands."""


def keep_freed_memory() -> None:
    """To be called before threads begin. Does nothing without glibc, or where the user has chosen."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name in os.environ for name in CHOSEN_BY_USER):
        return
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    if not mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES):
        mallopt(_M_MMAP_THRESHOLD, _OLDER_GLIBC_BYTES)
