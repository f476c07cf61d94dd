"""Watches a stream: windows to scores, scores to alerts, alerts to events; measures latency and losses."""

import collections
import dataclasses
import datetime
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ...base.errors import UserError
from ...data.media.live import LiveOptions
from .alerts import AlertOptions, Trigger
from .feed import Feed
from .rolling import Rolling, Window
from .scorers import Scored, Scorer

Emit = Callable[[dict[str, Any]], None]
_MEASURED = 100_000  # latencies from which the quantiles are computed: the newest ones
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """How a stream is watched.

    Attributes:
      seconds: length of the windows.
      hop: from the start of a window to that of the next.
      retries: attempts in a row to open a lost stream again.
      all_scores: emit the scores of each window, too.
      max_s: seconds after which to stop; 0 = never.
    """

    seconds: float = 4.0
    hop: float = 1.0
    retries: int = 5
    all_scores: bool = False
    max_s: float = 0.0

    def __post_init__(self):
        if not (0.1 <= self.seconds <= 120 and 0.05 <= self.hop <= self.seconds):
            raise UserError(
                f"--window is {self.seconds:g} and --hop {self.hop:g} seconds; wanted a window of 0.1 to 120 and a hop "
                "of 0.05 to the window"
            )
        if self.retries < 0 or not self.max_s >= 0:
            raise UserError(f"--retries is {self.retries} and --max_s {self.max_s:g}; wanted at least 0")


class Watch:
    """One stream and one model.

    Attributes:
      rolling: the windows, with their counts.
      feed: what reads the stream.
    """

    def __init__(
        self,
        source: LiveOptions,
        *,
        scorer: Scorer,
        alerts: Mapping[str, AlertOptions],
        options: WatchOptions,
        emit: Emit,
    ):
        """Set up; nothing is opened yet.

        Args:
          source: the stream.
          scorer: the model.
          alerts: name of a score -> when it is an alert.
          options: see the class.
          emit: takes the events, JSON values; must return at once.
        """
        live = not source.is_file or source.follow or source.pace > 0
        self.rolling = Rolling(seconds=options.seconds, hop=options.hop, fps=source.fps, live=live)
        self.feed = Feed(source, into=self.rolling, retries=options.retries)
        self._source, self._scorer, self._options, self._emit = source, scorer, options, emit
        self._triggers = {name: Trigger(one) for name, one in alerts.items()}
        self._latencies: collections.deque[float] = collections.deque(maxlen=_MEASURED)
        self._count = dict.fromkeys(alerts, 0)

    def run(self) -> dict[str, Any]:
        """Watch until the stream ends, is lost, or a signal comes; return the summary, which is the last event.

        Raises:
          UserError: the stream cannot be opened at all, or its pictures are too small for the model.
        """
        started = time.monotonic()
        with _until_signal(self.rolling.stop, seconds=self._options.max_s):
            self.feed.start()
            try:
                for scored in self._scorer.scores(self._windows()):
                    self._take(scored)
            finally:
                self.feed.stop()
        if self.feed.lost and not self.feed.opened:
            raise UserError(
                f"{self._source.shown} cannot be watched: {self.feed.lost} (attempts: {1 + self.feed.reconnects}); "
                "check the address, or that the camera is connected"
            )
        summary = self._summary(time.monotonic() - started)
        self._emit(summary)
        return summary

    def _windows(self) -> Iterator[Window]:
        while (window := self.rolling.take()) is not None:
            yield window

    def _take(self, scored: Scored) -> None:
        latency = time.monotonic() - scored.arrived_s
        self._latencies.append(latency)
        counts = self.rolling.counts
        about = {
            "start_s": round(scored.start_s, 3),
            "end_s": round(scored.end_s, 3),
            "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "latency_s": round(latency, 4),
            "dropped_frames": counts.dropped,
            "skipped_windows": counts.skipped,
        }
        if self._options.all_scores:
            self._emit({"event": "scores", "scores": {k: round(v, 5) for k, v in scored.scores.items()}, **about})
        for name, trigger in self._triggers.items():
            score = scored.scores[name]
            if changed := trigger.update(score, time_s=scored.end_s):
                self._count[name] += changed == "on"
                event = {"event": f"alert_{changed}", "name": name, "score": round(score, 5)}
                if changed == "on":
                    event["since_s"] = round(trigger.began_s or 0.0, 3)
                else:
                    event["peak"] = round(trigger.peak, 5)
                self._emit(event | about)

    def _summary(self, seconds: float) -> dict[str, Any]:
        counts, latency = self.rolling.counts, np.array(self._latencies)
        quantiles = {f"p{q}": round(float(np.percentile(latency, q)), 4) for q in (50, 95, 99)} if len(latency) else {}
        return {
            "event": "summary",
            "source": self._source.shown,
            "seconds": round(seconds, 2),
            "frames": counts.frames,
            "dropped_frames": counts.dropped,
            "windows": counts.windows,
            "skipped_windows": counts.skipped,
            "latency_s": quantiles | ({"max": round(float(latency.max()), 4)} if len(latency) else {}),
            "reconnects": self.feed.reconnects,
            "lost": self.feed.lost,
            "alerts": dict(self._count),
        }


class _until_signal:
    """Call `stop` at SIGINT, SIGTERM or after some seconds; a second signal has its usual effect."""

    def __init__(self, stop: Callable[[], None], *, seconds: float):
        self._stop, self._before = stop, dict[int, Any]()
        self._timer = threading.Timer(seconds, stop) if seconds else None

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._caught) for number in _SIGNALS}
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._restore()
        if self._timer is not None:
            self._timer.cancel()

    def _caught(self, *_: object) -> None:
        self._restore()
        threading.Thread(target=self._stop, daemon=True).start()  # the main thread may hold the lock that it needs

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
