"""Indexing: files to moments with embeddings, resumable, with what cannot be decoded listed by its reason."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ...base.errors import UserError
from ...data.machine import cores
from ...data.media.decode import DecodedClip, DecodeError
from ...data.media.faces import FaceDetector
from ...data.subtitles import within
from ...encode.media.chunks import Chunk, Task, decode_chunks
from ...encode.media.windows import Windows
from . import database
from .approximate import build_approximate
from .database import Settings
from .forgetting import finish_forgetting
from .listing import combined
from .models import AUDIO, TRANSCRIPT, VIDEO, Opened, about
from .plan import Plan, content_sha256, make_plan
from .store import FileFacts, NewMoment, Store

_GROUP = 4  # batches of moments that are embedded and written together
_LATEST_S = 20.0  # longest time between two writes
_SIDE = 320  # longer side of a thumbnail in pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How an index is made.

    Attributes:
      batch_size: moments that are embedded at a time.
      workers: processes that decode; 0 = one per core.
      thumbnails: whether to keep a small picture of each moment.
      retry: decode files again that could not be decoded before.
      ann: "auto", "flat", "hnsw" or "ivfpq", see `approximate.choose`.
      max_bad_fraction: share of the files that may be unreadable.
      progress: draw a progress bar on standard error.
    """

    batch_size: int = 16
    workers: int = 0
    thumbnails: bool = True
    retry: bool = False
    ann: str = "auto"
    max_bad_fraction: float = 0.2
    progress: bool = False

    def __post_init__(self):
        if self.batch_size < 1 or self.workers < 0 or not 0 <= self.max_bad_fraction <= 1:
            raise UserError(
                f"--batch_size is {self.batch_size}, --workers {self.workers}, --max_bad_fraction "
                f"{self.max_bad_fraction:g}; wanted at least 1, at least 0, and 0 to 1"
            )


def build_index(
    sources: Sequence[str], *, folder: Path, opened: Opened, settings: Settings, options: BuildOptions
) -> dict[str, Any]:
    """Bring an index up to date with its sources.

    What is embedded is written every few batches: the same call continues after an interruption.

    Args:
      sources: folders, manifests or tables; () = those of earlier runs.
      folder: the index; made if there is none.
      opened: the model.
      settings: how files are cut; those of the index, if there is one.
      options: everything else.

    Returns:
      JSON values: `index`, `model`, `files` and `moments` of this model, `added`, `changed`, `moved`, `removed`,
      `unchanged`, `forgotten` (left out because they were deleted by example), `failed` (path, reason and detail of
      each), `search` (kind of the search), `hours`, `seconds`, `within_limit` (whether no more files failed than
      `max_bad_fraction` allows).

    Raises:
      UserError: no source, nothing in it, an index with other settings or of other weights, or no face detector where
        the settings name one.
    """
    begun = time.monotonic()
    if settings.blur_faces:
        FaceDetector(settings.blur_faces)  # a wrong file is no reason to list every film as undecodable
    opened = dataclasses.replace(opened, blur_faces=settings.blur_faces)
    with Store(folder, settings=settings) as store:
        row = store.claim_model(opened.row, about=about(opened))
        known = store.roots()
        if not sources and not known:
            raise UserError(f"the index {folder} is new: give the folder of your videos, or a manifest")
        finish_forgetting(store)
        row = database.model_named(store.connection, row.name, folder=folder)  # its vectors may be written anew
        opened = dataclasses.replace(opened, row=row)
        entries, roots = combined(sources or known)
        store.add_roots(roots)
        plan = make_plan(store, model=row, entries=entries, roots=roots, retry=options.retry)
        for entry, source in plan.copies:
            store.copy_file(entry, source=source, model=row)
        _Builder(store, opened=opened, settings=settings, options=options, plan=plan).run()
        row = store.compact(row)
        kinds = build_approximate(store, model=row, kind=options.ann, progress=options.progress)
        return _summary(store, opened=opened, plan=plan, roots=roots) | {
            "search": kinds,
            "seconds": round(time.monotonic() - begun, 1),
            "within_limit": _failed(store, roots) <= options.max_bad_fraction * len(entries),
        }


def _failed(store: Store, roots: Sequence[str]) -> int:
    marks = ", ".join("?" * len(roots))
    return store.scalar(f"SELECT COUNT(*) FROM failures WHERE root IN ({marks})", *roots)


def _summary(store: Store, *, opened: Opened, plan: Plan, roots: Sequence[str]) -> dict[str, Any]:
    model = opened.row.id
    rows = store.connection.execute("SELECT path, reason, detail, root FROM failures ORDER BY path")
    failed = [dict(zip(("path", "reason", "detail"), row[:3], strict=True)) for row in rows if row[3] in roots]
    hours = "SELECT COALESCE(SUM(duration_s), 0) FROM files JOIN finished ON file = id WHERE model = ?"
    return {
        "index": str(store.folder),
        "model": opened.row.name,
        "files": store.scalar("SELECT COUNT(*) FROM finished WHERE model = ?", model),
        "moments": store.scalar("SELECT COUNT(*) FROM vectors WHERE model = ? AND side = 'video'", model),
        **{name: getattr(plan, name) for name in ("added", "changed", "moved", "removed", "unchanged", "forgotten")},
        "failed": failed,
        "hours": round(store.scalar(hours, model) / 3600, 3),
    }


@dataclasses.dataclass(kw_only=True)
class _Part:
    """The moments of a chunk on their way to the index."""

    chunk: Chunk
    moments: list[NewMoment]
    frames: list[np.ndarray]
    sounds: list[np.ndarray]


class _Builder:
    """Decodes, embeds and writes the tasks of a plan."""

    def __init__(self, store: Store, *, opened: Opened, settings: Settings, options: BuildOptions, plan: Plan):
        self._store, self._opened, self._options, self._plan = store, opened, options, plan
        self._windows = Windows(seconds=settings.window_s, overlap=settings.overlap_s)
        self._parts: list[_Part] = []
        self._open: collections.Counter[Task] = collections.Counter()  # chunks that are not written yet
        self._ended: set[Task] = set()
        self._written = time.monotonic()

    def run(self) -> None:
        """Do all tasks."""
        tasks, options = self._plan.tasks, self._options
        if not tasks:
            return
        workers = min(options.workers or cores(), 2 * len(tasks))
        chunks = decode_chunks(tasks, windows=self._windows, options=self._opened.decode, workers=workers)
        bar = _bar(options.progress)
        with concurrent.futures.ThreadPoolExecutor(workers) as threads, contextlib.closing(chunks), bar:
            shown = bar.add_task("index", total=sum(task.entry.size for task in tasks), rate="")
            seconds, begun = 0.0, time.monotonic()
            for chunk in chunks:
                self._take(chunk, threads=threads)
                seconds += chunk.clip.duration_s if isinstance(chunk.clip, DecodedClip) else 0.0
                rate = f"{seconds / max(time.monotonic() - begun, 1e-3):,.1f} x real time"
                share = self._share(chunk)
                bar.update(shown, advance=share * chunk.task.entry.size, rate=rate)
            self._write()

    def _share(self, chunk: Chunk) -> float:
        """Return how much of its file a chunk is, 0 to 1."""
        return 1.0 / max(chunk.task.planned - len(chunk.task.done), 1)

    def _take(self, chunk: Chunk, *, threads: concurrent.futures.ThreadPoolExecutor) -> None:
        """Take a decoded chunk: its moments wait until there are enough for some batches."""
        task = chunk.task
        if isinstance(chunk.clip, DecodeError):
            self._fail(task, chunk.clip, number=chunk.number)
            return
        if chunk.clip is not None:
            try:
                part = self._part(chunk, chunk.clip, threads=threads)
            except (UserError, ValueError) as error:  # pictures too small for the crop; a damaged JPEG
                task.failed = True
                self._fail(task, DecodeError("cannot be transformed", str(error)), number=chunk.number)
                return
            if not task.file:
                task.file = self._store.add_file(task.entry, facts=self._facts(task, chunk.clip))
            self._parts.append(part)
            self._open[task] += 1
        if chunk.last:
            self._ended.add(task)
        waiting = sum(len(part.moments) for part in self._parts)
        late = time.monotonic() - self._written > _LATEST_S
        if waiting >= _GROUP * self._options.batch_size or late:
            self._write()

    def _fail(self, task: Task, error: DecodeError, *, number: int) -> None:
        """List a file as a failure; what was decoded of it before stays in the index."""
        detail = error.detail
        if number:
            at = self._windows.chunk(number)[0]
            detail = f"from {at:.0f} s on{': ' if detail else ''}{detail}"
            self._ended.add(task)
            task.reached_s = at
        self._store.add_failure(task.entry, reason=error.reason, detail=detail)

    def _facts(self, task: Task, clip: DecodedClip) -> FileFacts:
        path, found = task.entry.path, clip.source
        return FileFacts(
            sha256=self._plan.hashes.get(path) or content_sha256(path),
            duration_s=task.reached_s or task.length_s,
            height=clip.height,
            width=clip.width,
            fps=found.get("fps"),
            has_audio=clip.audio is not None,
        )

    def _part(self, chunk: Chunk, clip: DecodedClip, *, threads: concurrent.futures.ThreadPoolExecutor) -> _Part:
        origin = chunk.task.entry.start_s or 0.0
        moments = self._windows.moments(chunk.number, decoded_s=clip.duration_s, origin=origin)
        cut = [part for part, _ in zip(self._windows.cut(clip), moments, strict=False)]
        said = [within(chunk.task.entry.sentences, start_s=one.start_s, end_s=one.end_s) for one in moments]
        pictures = threads.map(thumbnail, cut) if self._options.thumbnails else [b""] * len(cut)
        new = [
            NewMoment(moment=moment, text=" ".join(one.text for one in texts), thumbnail=picture)
            for moment, texts, picture in zip(moments, said, pictures, strict=True)
        ]
        sounds = [self._opened.sound(part) for part in cut] if self._opened.hears else []
        return _Part(chunk=chunk, moments=new, frames=list(threads.map(self._opened.frames, cut)), sounds=sounds)

    def _write(self) -> None:
        """Embed the moments that wait and write them; finish the files that are complete."""
        parts, self._parts, self._written = self._parts, [], time.monotonic()
        moments = [moment for part in parts for moment in part.moments]
        if moments:
            self._embed(moments, parts=parts)
        if parts:
            chunks = [(part.chunk.task.file, part.chunk.number, part.moments) for part in parts]
            self._store.add_moments(self._opened.row, chunks=chunks)
            self._open.subtract(part.chunk.task for part in parts)
        for task in [task for task in self._ended if not self._open[task]]:
            self._ended.discard(task)
            if task.file:
                self._store.finish(self._opened.row, file=task.file, duration_s=task.reached_s)

    def _embed(self, moments: list[NewMoment], *, parts: list[_Part]) -> None:
        """Fill in the vectors of moments, side by side."""
        opened, size = self._opened, self._options.batch_size
        frames, sounds = ([one for part in parts for one in getattr(part, name)] for name in ("frames", "sounds"))
        found = opened.embed_video(frames, sounds=sounds, batch_size=size)
        for moment, vector in zip(moments, found, strict=True):
            moment.vectors[VIDEO] = vector
        if AUDIO in opened.row.sides:
            heard = [i for i, sound in enumerate(sounds) if len(sound)]
            if heard:
                found = opened.embed_sound([sounds[i] for i in heard], batch_size=size)
                for i, vector in zip(heard, found, strict=True):
                    moments[i].vectors[AUDIO] = vector
        said = [moment for moment in moments if moment.text]
        if said and TRANSCRIPT in opened.row.sides:
            found = opened.encoder.encode_text([moment.text for moment in said])
            for moment, vector in zip(said, found, strict=True):
                moment.vectors[TRANSCRIPT] = vector


def thumbnail(clip: DecodedClip) -> bytes:
    """Return the middle frame of a moment as a small WebP picture."""
    with Image.open(io.BytesIO(clip.encoded[len(clip.encoded) // 2])) as picture:
        picture.draft("RGB", (_SIDE, _SIDE))
        small = picture.convert("RGB")
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=70, method=2)
    return out.getvalue()


def _bar(progress: bool) -> Progress:
    """Return a bar over the bytes of the files, with rate and time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]}", style="cyan"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), disable=not progress, transient=True)
