"""How much resident memory a call takes, on Linux."""

import ctypes
from pathlib import Path


def start_of_peak() -> int | None:
    """Reset Linux's count of peak resident memory; return the resident bytes now, or None where that fails."""
    import jax

    if jax.default_backend() != "cpu":
        return None
    try:
        ctypes.CDLL(None).malloc_trim(0)  # pages that are free already would hide what the call takes
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return _status("VmRSS")
    except (OSError, AttributeError):
        return None


def peak_since(before: int) -> int:
    """Return by how many bytes the process grew at most since `start_of_peak` returned `before`."""
    return max(_status("VmHWM") - before, 0)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))
