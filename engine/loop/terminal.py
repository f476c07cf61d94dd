"""What a person sees of a run: a live progress bar, or plain lines where the output is no terminal."""

import contextlib
import math
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

_SHOWN = ("loss", "scale", "clips_per_s", "data_wait")


class Terminal:
    """Shows steps, metrics, evaluations and notices of a run; silent on all processes but the first."""

    def __init__(self, *, steps: int, quiet: bool = False):
        self._console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._steps, self._first = steps, 0
        self._began = time.monotonic()
        self._progress: Progress | None = None
        self._live = self._console.is_terminal and not quiet

    def __enter__(self) -> "Terminal":
        return self

    @contextlib.contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Show a spinner next to `what` while it lasts."""
        if not self._live:
            yield
            return
        with self._console.status(what):
            yield

    def start(self, step: int) -> None:
        """Begin the count at `step`; time left is reckoned from here."""
        self._first, self._began = step, time.monotonic()
        if self._live:
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("train"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                TextColumn("left"),
                TimeRemainingColumn(elapsed_when_finished=True),
                console=self._console,
                speed_estimate_period=120,
            )
            self._task = self._progress.add_task("", total=self._steps, completed=step, note="")
            self._progress.start()

    def __exit__(self, *_) -> None:
        if self._progress is not None:
            self._progress.stop()

    def step(self, step: int) -> None:
        """Move the bar to `step`."""
        if self._progress is not None:
            self._progress.update(self._task, completed=step)

    def metrics(self, values: dict[str, float], *, step: int) -> None:
        """Show the newest training metrics."""
        note = "  ".join(f"{name} {number(values[name])}" for name in _SHOWN if name in values)
        if self._progress is not None:
            self._progress.update(self._task, completed=step, note=note)
        else:
            self.say(f"step {step}/{self._steps}  {note}  left {self._left(step)}")

    def evaluation(self, values: dict[str, float], *, step: int) -> None:
        """Show the results of an evaluation; they stay on the screen."""
        self.say(f"eval at step {step}:  " + "  ".join(f"{name} {number(value)}" for name, value in values.items()))

    def changed(self, lines: list[str]) -> None:
        """Show what has changed since the start before this one; nothing for []."""
        if lines:
            self.say("this workdir continues with changes (was -> now):\n  " + "\n  ".join(lines))

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, markup=False)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Take the bar off the screen, for code that shows its own."""
        if self._progress is None:
            yield
            return
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()

    def _left(self, step: int) -> str:
        done = step - self._first
        if done <= 0:
            return "?"
        seconds = round((time.monotonic() - self._began) / done * (self._steps - step))
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def number(value: float) -> str:
    """Return a number with four significant digits, without an exponent where it is short.

    >>> number(1234.56), number(0.0123456), number(2.0)
    ('1235', '0.01235', '2')
    """
    if not math.isfinite(value):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
