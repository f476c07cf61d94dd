"""A profiler trace of some steps: config.train.profile_steps."""

from collections.abc import Callable
from pathlib import Path

import jax

from .options import TrainOptions


class Profile:
    """Traces the steps a <= step < b of "a:b" into `workdir/profile`, for TensorBoard or Perfetto."""

    def __init__(self, workdir: Path, *, options: TrainOptions):
        self._folder, self._range, self._on = workdir / "profile", options.profile_range(), False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_) -> None:
        self._stop()

    def before(self, step: int, *, settle: Callable[[], None]) -> None:
        """Start or stop before the step with number `step` is handed to the device; `settle` waits for those before."""
        if self._range is None:
            return
        first, end = self._range
        if self._on and step >= end:
            settle()
            self._stop()
        elif not self._on and first <= step < end:
            settle()
            jax.profiler.start_trace(str(self._folder))
            self._on = True

    def _stop(self) -> None:
        if self._on:
            jax.profiler.stop_trace()
            self._on = False
