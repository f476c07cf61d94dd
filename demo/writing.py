"""Writing the files of generated data sets: several at a time, and only those that are missing."""

import dataclasses
import json
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..base.errors import UserError
from ..data.machine import cores

_POOL_FROM = 64  # fewer files are written faster than a second process starts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned:
    """A file to write; can be sent to another process."""

    clip_id: str
    split: str

    @property
    def path(self) -> str:
        """Its path, relative to the manifest."""
        return f"clips/{self.split}/{self.clip_id}.mp4"


def check_video(*, size: int, fps: float, workers: int) -> None:
    """Raise UserError for a side of the picture, a frame rate or a number of processes that is out of range."""
    if size < 16 or size % 2:
        raise UserError(f"size={size}: H.264 in 4:2:0 needs an even side; give an even number from 16 up, such as 64")
    if not 4 <= fps <= 60:
        raise UserError(f"fps={fps}: the motions need 4 to 60 frames per second; give a rate in that range, such as 12")
    if workers < 0:
        raise UserError(f"workers={workers}: give the number of processes, or 0 for one per core")


def claim(out: Path, *, name: str, made_with: dict[str, Any]) -> None:
    """Record the settings of the clips in `out`; refuse a folder whose clips were made with other settings.

    Args:
      out: the folder; created if absent.
      name: of the data set; the settings lie in `NAME.json`.
      made_with: the settings, JSON values.

    Raises:
      UserError: clips of other settings, or of another data set.
    """
    note = out / f"{name}.json"
    if note.is_file():
        found = json.loads(note.read_text())
        if found != made_with:
            wrong = [f"{k}={found.get(k)!r} (wanted {v!r})" for k, v in made_with.items() if found.get(k) != v]
            raise UserError(
                f"{out} holds {name} clips made with {', '.join(wrong) or 'other settings'}; "
                "give another folder, or delete this one"
            )
        return
    if (out / "clips").exists():
        raise UserError(f"{out} holds a folder clips/ but no {note.name}; give another folder")
    out.mkdir(parents=True, exist_ok=True)
    publish(note, (json.dumps(made_with) + "\n").encode())


def publish(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(data)
    partial.replace(path)


def write_missing(
    jobs: Sequence[Planned], *, out: Path, write: Callable[[Any], None], name: str, workers: int, progress: bool
) -> None:
    """Write the files that are not there.

    Args:
      jobs: all files.
      out: the folder of the manifest.
      write: writes one file; a function of a module, or a `functools.partial` of one.
      name: of the data set, for the progress bar.
      workers: processes; 0 = one per core.
      progress: draw a progress bar.
    """
    todo = [job for job in jobs if not (out / job.path).is_file()]
    for folder in {(out / job.path).parent for job in todo}:
        folder.mkdir(parents=True, exist_ok=True)
    workers = workers or cores()
    columns = (
        TextColumn(name),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("clips"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not progress or not todo) as bar:
        task = bar.add_task("", total=len(todo))
        if workers == 1 or len(todo) < _POOL_FROM:
            for _ in map(write, todo):
                bar.advance(task)
            return
        # spawn: a fork of a process that holds TensorFlow's or JAX's threads can hang
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            for _ in pool.map(write, todo, chunksize=16):
                bar.advance(task)
