"""How glibc keeps freed memory between the steps of a run on CPUs."""

import ctypes

_KEEP = {-8: 1, -4: 0, -1: -1}
"""Options of `mallopt` (malloc.h) -> their values: M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD (-1: never)."""


def keep_freed_memory() -> bool:
    """Have glibc's malloc keep what is freed, instead of giving it back to the kernel at once.

    On a CPU, XLA allocates the temporaries of a program anew at each call. glibc maps blocks of that size afresh, and
    the kernel clears each page when it is first touched: a fifth of the CPU time of the demo's steps. Afterwards all
    blocks come from one arena that is never trimmed: the process keeps its peak memory, and threads share one lock. So
    this is for programs of a few threads on CPUs; call it before they start, as a thread stays in its arena.

    Returns:
      False where the C library has no `mallopt` (macOS, Windows, musl) or refuses an option.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    taken = [mallopt(option, value) for option, value in _KEEP.items()]
    return all(taken)
