"""Metrics of a run: fetched while the device works on, written as JSON lines and TensorBoard events."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import math
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.summary.writer.record_writer import RecordWriter

from ..keeping.files import write_atomically
from ..start.processes import of_all
from ..step.state import NOT_HALTED
from ..step.step import Outputs
from .batches import Prefetcher
from .hosts import Hosts
from .sinks import Sink
from .terminal import Terminal

_CLIPS_SHOWN = 8
RUN_AHEAD = 2  # steps that the host may be ahead of the device: enough to hide dispatch, few enough to stop soon


class History:
    """`workdir/metrics.jsonl`, `workdir/tensorboard/` and further sinks; nothing on all processes but the first."""

    def __init__(self, workdir: Path, *, start_step: int, write: bool = True, sinks: Sequence[Sink] = ()):
        """Open files for appending; lines of steps after `start_step`, which will be done again, are dropped.

        Args:
          workdir: of the run.
          start_step: steps done.
          write: whether this process writes.
          sinks: what else takes the metrics; closed with the history.
        """
        self._file, self._sinks = None, list(sinks)
        self._lock = threading.Lock()  # the loop and the thread that follows the steps both write
        if not write:
            return
        path = workdir / "metrics.jsonl"
        drop_after(path, step=start_step)
        self._file = path.open("a")
        self._sinks.insert(0, EventFile(workdir / "tensorboard", start_step=start_step))

    def __enter__(self) -> "History":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def write(self, values: dict[str, float], *, step: int, kind: str) -> None:
        """Add one line; `kind` is "train", "eval" or "goodput". A value that is not finite becomes null."""
        if self._file is None:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with self._lock:
            self._file.write(json.dumps({"step": step, "kind": kind, **finite}) + "\n")
            self._file.flush()
            self._log({f"{kind}/{name}": value for name, value in values.items()}, step=step)

    def skipped(self, *, step: int, total: int, clips: Sequence[int]) -> None:
        """Add a line of kind "skipped": the step whose batch was skipped, its clips, and how many there are so far."""
        if self._file is None:
            return
        line = {"step": step, "kind": "skipped", "batch": step - 1, "total": total, "clip_index": list(clips)}
        with self._lock:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            self._log({"train/skipped": total}, step=step)

    def forget(self, *, step: int, kind: str) -> None:
        """Drop the lines of a kind from `step` on, which will be written again."""
        if self._file is None:
            return
        path = Path(self._file.name)
        lines = path.read_text().splitlines()
        kept = [x for x in lines if (line := json.loads(x))["kind"] != kind or line["step"] < step]
        if kept != lines:
            self._file.close()
            write_atomically(path, text="".join(f"{line}\n" for line in kept))
            self._file = path.open("a")

    def close(self) -> None:
        """Close files and sinks."""
        if self._file is not None:
            self._file.close()
        for sink in self._sinks:
            sink.close()

    def _log(self, values: dict[str, float], *, step: int) -> None:
        for sink in self._sinks:
            sink.log(step, values)


class EventFile:
    """A TensorBoard event file of scalars, a `Sink`.

    TensorBoard's own record writer and protos on a plain file: its EventFileWriter would import tensorflow for the
    file access alone.
    """

    def __init__(self, folder: Path, *, start_step: int):
        """Open a new file in `folder`; TensorBoard drops what older files there say of steps after `start_step`."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._raw = (folder / name).open("xb")
        self._writer = RecordWriter(self._raw)
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._add(Event(wall_time=time.time(), step=start_step + 1, session_log=start))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add scalars."""
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._add(Event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        """Close the file."""
        self._raw.close()

    def _add(self, event: Event) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Flying:
    """A step that was handed to the device; `landed` is done when the device has done it and its line is written."""

    step: int
    outputs: Outputs
    landed: concurrent.futures.Future[None]


class Monitor:
    """Takes the outputs of each step, lets the device run at most RUN_AHEAD steps ahead, and logs.

    An output is looked at by the loop only when RUN_AHEAD further steps have been handed to the device: its copy to the
    host has then long begun, and waiting for it bounds how far the host runs ahead without leaving the device idle. A
    thread waits for each step, notes when it was really done (step times are taken from that) and writes its line, so
    that neither depends on when the loop comes by.

    Attributes:
      halted: number of the global batch with a loss or gradient that is not finite at which the run ends, else None.
      skipped: how many such batches were skipped over the whole run.
      grad_norm: of the newest line of metrics; None before the first.
      stopped: number of steps done when a process asked to stop, else None; what came after changed nothing.
    """

    def __init__(
        self,
        *,
        history: History,
        terminal: Terminal,
        stream: Prefetcher,
        log_every: int,
        start_step: int,
        skipped: int = 0,
    ):
        self.halted: int | None = None
        self.stopped: int | None = None
        self.skipped = skipped
        self.grad_norm: float | None = None
        self._history, self._terminal, self._stream, self._log_every = history, terminal, stream, log_every
        self._watch = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="twinreel-watch")
        self._flying: collections.deque[_Flying] = collections.deque()
        self._window_start = time.perf_counter()
        self._window_step, self._window_wait = start_step, stream.waited_s
        self._hosts, self._named = Hosts(), ""

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *_) -> None:
        self._watch.shutdown()  # a save may wait for the lines of the last steps

    def push(self, outputs: Outputs, *, step: int) -> None:
        """Take the outputs of the step that made `step` steps done; look at those of RUN_AHEAD steps before."""
        wanted = dict(outputs)
        if step % self._log_every:
            del wanted["metrics"]
        jax.tree.map(lambda x: x.copy_to_host_async(), wanted)
        landed = self._watch.submit(self._follow, outputs, step, self._stream.waited_s)
        self._flying.append(_Flying(step=step, outputs=outputs, landed=landed))
        while len(self._flying) > RUN_AHEAD:
            self._land(self._flying.popleft())

    def drain(self) -> None:
        """Wait for all steps that were handed to the device."""
        while self._flying:
            self._land(self._flying.popleft())

    def written(self) -> Callable[[], None]:
        """Return what waits until the lines of all steps so far are written; it may be called in a thread."""
        return self._flying[-1].landed.result if self._flying else lambda: None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave what happens inside out of step times (evaluations, saves); nothing may be under way on the device."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._window_start += time.perf_counter() - start

    def _land(self, flying: _Flying) -> None:
        flying.landed.result()
        halted = int(flying.outputs["halted"])
        if halted != NOT_HALTED:
            self.halted = halted
        elif self.stopped is None and bool(flying.outputs["stop"]):
            self.stopped = flying.step - 1
        if int(flying.outputs["skipped"]) > self.skipped:
            self._skip(flying.step, total=int(flying.outputs["skipped"]))

    def _skip(self, step: int, *, total: int) -> None:
        """Report a skipped batch with the clips of all processes, which all get here at the same step."""
        self.skipped = total
        clips = of_all(np.asarray(self._stream.clips_of(step - 1), np.int32)).tolist()
        self._history.skipped(step=step, total=total, clips=clips)
        self._terminal.say(
            f"step {step}: the loss or the gradient is not finite, so the batch was skipped ({total} skipped so far"
            f"{first_clips(clips)})"
        )

    def _follow(self, outputs: Outputs, step: int, waited: float) -> None:
        """Wait for a step and log it, unless it left the state as it was (in a thread)."""
        jax.block_until_ready(outputs["halted"])
        done = time.perf_counter()
        if int(outputs["halted"]) != NOT_HALTED or bool(outputs["stop"]):
            return
        self._terminal.step(step)
        if step % self._log_every == 0:
            self._log(outputs["metrics"], step=step, done=done, waited=waited)

    def _log(self, metrics: dict[str, jax.Array], *, step: int, done: float, waited: float) -> None:
        seconds, steps = max(done - self._window_start, 1e-9), step - self._window_step
        # float32 has seven digits; more would only make the file longer
        values = {name: float(f"{float(value):.7g}") for name, value in metrics.items()}
        values |= {
            "clips_per_s": steps * self._stream.batch_size / seconds,
            "step_time_s": seconds / steps,
            "data_wait": min(1.0, (waited - self._window_wait) / seconds),
            "memory_gb": memory_gb(),
            **self._stream.facts(step),
        }
        self._window_start, self._window_step, self._window_wait = done, step, waited
        if values.get("grad_norm") == 0.0 and self.grad_norm != 0.0:
            self._terminal.say(
                f"warning: the gradient of step {step} is exactly 0, so nothing is learned from that batch; see "
                "whether its rows take part in the loss and whether any two of them differ"
            )
        self.grad_norm = values.get("grad_norm")
        self._hosts.tell(data_wait=values["data_wait"], memory_gb=values["memory_gb"])
        figures, sentence = self._hosts.figures()  # of the others as they were at their last lines
        values |= figures
        if sentence and sentence.partition(" waits")[0] != self._named:
            self._named = sentence.partition(" waits")[0]
            self._terminal.say(f"warning: {sentence}")
        self._history.write(values, step=step, kind="train")
        self._terminal.metrics(values, step=step)


def first_clips(clips: Sequence[int]) -> str:
    """Return a clause that names the first clips of a batch, "" if they are not known."""
    more = ", ..." if len(clips) > _CLIPS_SHOWN else ""
    return f"; clip_index {', '.join(map(str, clips[:_CLIPS_SHOWN]))}{more}" if clips else ""


def memory_gb() -> float:
    """Return the peak memory in GB (1e9 bytes): the fullest device's, or this process's where no device reports it."""
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices()]
    if any(peaks):
        return max(peaks) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def drop_after(path: Path, *, step: int) -> None:
    """Drop the lines of a metrics file that belong to steps after `step`, and a last line that was cut off."""
    if not path.is_file():
        return
    lines = path.read_text().splitlines()
    kept = [line for line in lines if (at := _step_of(line)) is not None and at <= step]
    if kept != lines or not path.read_text().endswith("\n"):
        write_atomically(path, text="".join(f"{line}\n" for line in kept))


def _step_of(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None
