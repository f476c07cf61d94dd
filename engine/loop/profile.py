"""Profiler traces of some steps: those of config.train.profile_steps, and the next ones after a SIGUSR2."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import jax

from .options import TrainOptions

ON_REQUEST = 5
"""Steps that are traced after a SIGUSR2."""


class Profile:
    """Traces the steps a <= step < b of "a:b" into `workdir/profile`, for TensorBoard, XProf or Perfetto.

    A process that gets SIGUSR2 (`kill -USR2 PID`) traces its next ON_REQUEST steps as well. Each process traces alone.
    """

    def __init__(self, workdir: Path, *, options: TrainOptions, say: Callable[[str], None] = lambda text: None):
        """Begin when entered.

        Args:
          workdir: of the run.
          options: of it.
          say: prints a line for the user.
        """
        self._folder, self._range, self._say = workdir / "profile", options.profile_range(), say
        self._on, self._requested = False, False
        self._asked: tuple[int, int] | None = None  # the steps of the last request
        self._previous: object = None

    def __enter__(self) -> "Profile":
        if threading.current_thread() is threading.main_thread():  # Python delivers signals to no other
            self._previous = signal.signal(signal.SIGUSR2, self._request)
        return self

    def __exit__(self, *_) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGUSR2, self._previous)  # pyright: ignore[reportArgumentType]
        self._stop()

    def before(self, step: int, *, settle: Callable[[], None]) -> None:
        """Start or stop before the step with number `step` is handed to the device; `settle` waits for those before."""
        if self._requested:
            self._requested, self._asked = False, (step, step + ON_REQUEST)
            self._say(f"profiling {ON_REQUEST} steps from step {step} on into {self._folder}")
        wanted = any(first <= step < end for first, end in filter(None, (self._range, self._asked)))
        if wanted == self._on:
            return
        settle()
        if wanted:
            jax.profiler.start_trace(str(self._folder))
            self._on = True
        else:
            self._stop()

    def step(self, step: int) -> jax.profiler.StepTraceAnnotation:
        """Return the context for handing over the step with number `step`; it marks the step in traces."""
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def _request(self, *_) -> None:
        self._requested = True

    def _stop(self) -> None:
        if self._on:
            jax.profiler.stop_trace()
            self._on = False
