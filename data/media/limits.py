"""Limits of one clip: time without progress, and memory; the kernel enforces them inside the decoding process."""

import contextlib
import dataclasses
import resource
import signal

from ...base.errors import UserError

_LEAST_GB = 0.5  # Python, NumPy and the decoders alone take a part of this
_SECOND = 1.0  # of the clip's time line: decoding one more counts as progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one clip in a decoding process.

    Attributes:
      clip_timeout: seconds that decoding may take for each second of a clip; 0 = no limit. It does not limit the whole
        clip: long clips take long, while a decoder that hangs is stopped.
      clip_memory_gb: memory of a decoding process in GB (2**30 bytes); 0 = no limit. Enforced on Linux only.
      recycle_after: clips after which a process is replaced, in case a decoder leaks memory; 0 = never.
    """

    clip_timeout: float = 60.0
    clip_memory_gb: float = 4.0
    recycle_after: int = 1000

    def timeout_reason(self) -> str:
        """Return the reason for rejecting a clip that took too long."""
        return f"one second of it took longer than clip_timeout={self.clip_timeout:g} s to decode"

    def memory_reason(self) -> str:
        """Return the reason for rejecting a clip that needed too much memory."""
        return f"needed more than clip_memory_gb={self.clip_memory_gb:g} GB of memory"


def check_limits(*, clip_timeout: float, clip_memory_gb: float) -> None:
    """Check the limits; errors name the flag.

    Raises:
      UserError: a limit below 0, or less memory than a process needs to start.
    """
    if not clip_timeout >= 0:
        raise UserError(f"--clip_timeout is {clip_timeout:g}, wanted 0 (no limit) or seconds")
    if clip_memory_gb != 0 and not clip_memory_gb >= _LEAST_GB:
        raise UserError(f"--clip_memory_gb is {clip_memory_gb:g}, wanted 0 (no limit) or at least {_LEAST_GB:g} GB")


def confine(*, memory_gb: float) -> None:
    """Set the memory limit of this process for its whole life, and let its alarm end it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # crashes are expected
    if memory_gb:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = int(memory_gb * 2**30)
        with contextlib.suppress(ValueError, OSError):  # a system that does not know this limit
            resource.setrlimit(
                resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
            )
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process even while a decoder hangs
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})


class Alarm:
    """Ends this process unless progress is made: a context manager around the decoding of one clip."""

    def __init__(self, timeout: float):
        self._timeout = timeout
        self._reached: float | None = None

    def __enter__(self) -> "Alarm":
        """Start the clock."""
        self._set(self._timeout)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self._set(0)

    def progress(self, time: float) -> None:
        """Restart the clock if this time in seconds is a second or more beyond the last one that restarted it.

        An earlier time restarts it, too: the clip is then read again from the start of its file, which happens once.
        """
        if self._reached is None or abs(time - self._reached) >= _SECOND:
            self._reached = time
            self._set(self._timeout)

    def _set(self, seconds: float) -> None:
        if self._timeout:
            signal.setitimer(signal.ITIMER_REAL, seconds)
