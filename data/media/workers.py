"""Decoding in several processes, with results in the order of the jobs; if a decoder crashes, only its clip is lost."""

import collections
import concurrent.futures
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from typing import BinaryIO, cast

import numpy as np

from ..options import SAMPLE_RATE
from .decode import DecodedClip, DecodeError, decode_clip
from .fingerprint import fingerprint
from .limits import Alarm, Limits, confine
from .listen import decode_sound
from .wire import Job, receive_answer, receive_job, send_answer, send_job

__all__ = ["Decoders", "Job", "Limits", "decode_in_order", "serve"]

_AHEAD = 4  # jobs per worker that are decoded or queued ahead of the next result; bounds the memory


def decode_in_order(
    jobs: Iterable[Job | DecodedClip | DecodeError], *, workers: int, limits: Limits | None = None
) -> Generator[DecodedClip | DecodeError]:
    """Decode the jobs in `workers` processes; yield one result per job, in the order of the jobs.

    A job that is already a result is passed through. For what happens to a process that dies, see `Decoders`.
    """
    with Decoders(workers=workers, limits=limits) as decoders:
        jobs = iter(jobs)
        waiting = collections.deque(decoders.submit(job) for job in itertools.islice(jobs, _AHEAD * workers))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(decoders.submit(job) for job in itertools.islice(jobs, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()


class Decoders:
    """Decoding processes for jobs that come one by one; use it as a context manager.

    The processes import neither tensorflow nor the caller's main module. If a process dies or a clip exceeds the limits
    (None = the default ones), the clip's result is an error and a new process takes over.
    """

    def __init__(self, *, workers: int, limits: Limits | None = None) -> None:
        """Start nothing yet: each process starts with its first job."""
        self._limits = limits or Limits()
        self._pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._local, self._started = threading.local(), list[_Worker]()

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, job: Job | DecodedClip | DecodeError) -> concurrent.futures.Future[DecodedClip | DecodeError]:
        """Queue a job; the future never raises for what is wrong with a file. A job that is a result passes through."""
        return self._pool.submit(self._run, job)

    def close(self) -> None:
        """End the processes at once; jobs that have not begun are cancelled."""
        for worker in self._started:
            worker.kill()
        self._pool.shutdown(cancel_futures=True)
        for worker in self._started:
            worker.close()

    def _run(self, job: Job | DecodedClip | DecodeError) -> DecodedClip | DecodeError:
        if not isinstance(job, Job):
            return job
        if not hasattr(self._local, "worker"):
            self._local.worker = _Worker(self._limits)
            self._started.append(self._local.worker)
        return self._local.worker.run(job)


class _Worker:
    """A decoding process that answers one job at a time over its standard input and output."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._done = 0  # clips that the process has decoded
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, job: Job) -> DecodedClip | DecodeError:
        """Decode a clip in the process, started if there is none."""
        process = self._process = self._process or self._start()
        to, of = cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)
        try:
            send_job(to, job=job)
            answer = receive_answer(of)
        except (EOFError, BrokenPipeError, ValueError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)  # so that the status is its own, not that of our kill
            self.kill()
            self.close()
            if process.returncode == -signal.SIGALRM:
                return DecodeError(self._limits.timeout_reason())
            return DecodeError("the decoder crashed", _how(process.returncode))
        self._done += 1
        if self._done == self._limits.recycle_after or _reason(answer) == self._limits.memory_reason():
            self.kill()
            self.close()
        return answer

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Close the process and its pipes."""
        process, self._process = self._process, None
        for pipe in (process.stdin, process.stdout) if process is not None else ():
            if pipe is not None:
                with contextlib.suppress(OSError):  # nobody reads what was still to be sent
                    pipe.close()

    def _start(self) -> subprocess.Popen[bytes]:
        # Not multiprocessing: its processes import the caller's main module, and with it often tensorflow and jax.
        self._done = 0
        limits = f"timeout={self._limits.clip_timeout!r}, memory_gb={self._limits.clip_memory_gb!r}"
        command = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve({limits})"
        one_thread_each = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | one_thread_each,
        )


def serve(*, timeout: float, memory_gb: float) -> None:
    """Answer jobs from standard input on standard output until the input ends (the main of a decoding process).

    Args:
      timeout: see `Limits.clip_timeout`.
      memory_gb: see `Limits.clip_memory_gb`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers itself
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries must not mix with the answers
    confine(memory_gb=memory_gb)
    limits = Limits(clip_timeout=timeout, clip_memory_gb=memory_gb)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            send_answer(answers, answer=_answer(receive_job(sys.stdin.buffer), limits))


def _answer(job: Job, limits: Limits) -> DecodedClip | DecodeError:
    try:
        with Alarm(limits.clip_timeout) as alarm:
            if job.sound_only:
                return _sound_alone(job, progress=alarm.progress)
            clip = decode_clip(
                job.path, options=job.options, start_s=job.start_s, end_s=job.end_s, progress=alarm.progress
            )
            times, end = clip.timestamps_s, clip.duration_s
            clip.fingerprint = fingerprint(clip.encoded, timestamps_s=times, duration_s=end, audio=clip.audio)
            return clip
    except DecodeError as error:
        return error
    except MemoryError:
        return DecodeError(limits.memory_reason())


def _sound_alone(job: Job, *, progress: Callable[[float], object]) -> DecodedClip:
    """Return the sound of a file as a clip without pictures."""
    window = {"start_s": job.start_s, "end_s": job.end_s, "progress": progress}
    audio = decode_sound(job.path, max_seconds=job.options.max_seconds, **window)
    empty, seconds = np.zeros(0, np.float32), len(audio) / SAMPLE_RATE
    return DecodedClip(encoded=[], timestamps_s=empty, height=0, width=0, audio=audio, duration_s=seconds)


def _reason(answer: DecodedClip | DecodeError) -> str:
    return answer.reason if isinstance(answer, DecodeError) else ""


def _how(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
