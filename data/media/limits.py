"""What one clip may cost: time without progress and memory, watched inside the decoding process by the kernel."""

import contextlib
import dataclasses
import resource
import signal

from ...base.errors import UserError

_LEAST_GB = 0.5  # Python, NumPy and the decoders alone take a part of this
_SECOND = 1.0  # of the clip's time line: to have decoded one more is progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one clip in a decoding process.

    Attributes:
      clip_timeout: seconds that decoding may take for each second of a clip; 0 = no limit. Not for the whole clip: a
        long one takes long, and one that hangs is ended all the same.
      clip_memory_gb: memory of a decoding process in GB (2**30 bytes); 0 = no limit. Linux alone keeps to it.
      recycle_after: clips after which a process makes place for a new one, should a decoder leak; 0 = never.
    """

    clip_timeout: float = 60.0
    clip_memory_gb: float = 4.0
    recycle_after: int = 1000

    def timeout_reason(self) -> str:
        """Return why a clip is refused that took too long."""
        return f"one second of it took longer than clip_timeout={self.clip_timeout:g} s to decode"

    def memory_reason(self) -> str:
        """Return why a clip is refused that took too much memory."""
        return f"needed more than clip_memory_gb={self.clip_memory_gb:g} GB of memory"


def check_limits(*, clip_timeout: float, clip_memory_gb: float) -> None:
    """Refuse limits that make no sense, by the name of the flag.

    Raises:
      UserError: a limit below 0, or memory that a process needs to start at all.
    """
    if not clip_timeout >= 0:
        raise UserError(f"--clip_timeout is {clip_timeout:g}, wanted 0 (no limit) or seconds")
    if clip_memory_gb != 0 and not clip_memory_gb >= _LEAST_GB:
        raise UserError(f"--clip_memory_gb is {clip_memory_gb:g}, wanted 0 (no limit) or at least {_LEAST_GB:g} GB")


def confine(*, memory_gb: float) -> None:
    """Set the limits of this process that hold for its whole life, and let its alarm end it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # crashes are expected
    if memory_gb:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = int(memory_gb * 2**30)
        with contextlib.suppress(ValueError, OSError):  # a system that does not know this limit
            resource.setrlimit(
                resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
            )
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends the process, even deep inside a decoder that hangs
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
        """Start the clock again if this time in seconds is a second further than what was reached before.

        Or earlier: then the clip is read anew, from the beginning of its file, which happens once.
        """
        if self._reached is None or abs(time - self._reached) >= _SECOND:
            self._reached = time
            self._set(self._timeout)

    def _set(self, seconds: float) -> None:
        if self._timeout:
            signal.setitimer(signal.ITIMER_REAL, seconds)
