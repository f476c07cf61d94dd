"""How glibc keeps freed memory between the steps of a run on CPUs."""

import ctypes
import os
from pathlib import Path

from ...data.machine import cores

_KEEP = {-8: 1, -4: 0, -1: -1}
"""Options of `mallopt` (malloc.h) -> their values: M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD (-1: never)."""

_ACCELERATORS = ("nvidia[0-9]*", "kfd", "accel*", "vfio/[0-9]*")  # below /dev
_MOST_CORES = 16


def keep_freed_memory_on_cpus() -> bool:
    """Call `keep_freed_memory` if this process will train on a few CPU cores: the first thing that a verb does.

    jax is not asked, as that starts its threads. The process is for CPUs if JAX_PLATFORMS begins with "cpu", or if that
    is not set and the machine has no device file of a GPU or TPU. On more than 16 cores nothing is changed: there, one
    arena for all threads is not measured.

    Returns:
      Whether freed memory is kept.
    """
    named = os.environ.get("JAX_PLATFORMS", "")
    on_cpus = named.split(",")[0] == "cpu" if named else not _has_accelerator()
    return on_cpus and cores() <= _MOST_CORES and keep_freed_memory()


def _has_accelerator() -> bool:
    return any(found for pattern in _ACCELERATORS for found in Path("/dev").glob(pattern))


def keep_freed_memory() -> bool:
    """Have glibc's malloc keep what is freed, instead of giving it back to the kernel at once.

    On a CPU, XLA allocates the temporaries of a program anew at each call. glibc maps blocks of that size afresh, and
    the kernel clears each page when it is first touched: a fifth of the CPU time of the demo's steps, 7 to 11 % of a
    ViT-B/32's in float32. Afterwards all blocks come from one arena that is never trimmed: the process keeps its peak
    memory, and threads share one lock. So this is for programs of a few threads on CPUs; call it before they start, as
    a thread stays in its arena.

    Returns:
      False where the C library has no `mallopt` (macOS, Windows, musl) or refuses an option.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    taken = [mallopt(option, value) for option, value in _KEEP.items()]
    return all(taken)
