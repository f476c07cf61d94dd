"""The model of a server: texts and files of many requests to embeddings, in batches of static sizes."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UserError
from ...data.machine import cores
from ...data.media.workers import Limits
from ..index.database import Settings
from ..index.models import AUDIO, VIDEO, Opened
from ..search.query import decode_moments, decode_sound
from .batching import Batcher, BatchOptions, Busy
from .metrics import Metrics

UPLOAD_LIMITS = Limits(clip_timeout=10.0, clip_memory_gb=2.0)
"""Of the processes that decode what is uploaded."""

TEXT = "text"
_WAITING = 16  # requests with files that may wait for their turn


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodedFile:
    """The embeddings of a file.

    Attributes:
      name: what the client called it.
      side: "video" or "audio".
      spans: start and end of each row in seconds of the file; of "audio" there is one row, without a span.
      vectors: float32 [m,E], rows of unit length.
    """

    name: str
    side: str
    spans: tuple[tuple[float, float], ...]
    vectors: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Coming:
    """A file that is decoded and waits to be embedded."""

    name: str
    side: str
    spans: tuple[tuple[float, float], ...]
    future: concurrent.futures.Future


class Encoding:
    """A model whose towers encode in threads of their own; all methods may be called from several threads."""

    def __init__(self, opened: Opened, *, settings: Settings, options: BatchOptions, metrics: Metrics):
        """Start a thread for each tower.

        Args:
          opened: the model.
          settings: how the index cuts files into moments.
          options: how rows are batched.
          metrics: what counts the batches.
        """
        self._opened, self._settings = opened, settings
        at_once = max(2, cores())
        self._turns, self._places = threading.Semaphore(at_once), threading.Semaphore(at_once + _WAITING)
        towers = {TEXT: self._text, VIDEO: self._video} | ({AUDIO: self._audio} if AUDIO in opened.row.sides else {})
        self._batchers = {
            name: Batcher(encode, name=name, options=options, watch=metrics.watch(name))
            for name, encode in towers.items()
        }

    def _text(self, rows: list[Any]) -> np.ndarray:
        return self._opened.encoder.encode_text(rows)

    def _video(self, rows: list[Any]) -> np.ndarray:
        frames, sounds = zip(*rows, strict=True)
        return self._opened.embed_video(frames, sounds=sounds, batch_size=len(rows))

    def _audio(self, rows: list[Any]) -> np.ndarray:
        return self._opened.embed_sound(rows, batch_size=len(rows))

    @property
    def alive(self) -> bool:
        """Whether all threads work."""
        return all(batcher.alive for batcher in self._batchers.values())

    def warm(self) -> None:
        """Compile the text tower for all sizes of batches; the others are compiled at their first use."""
        self._batchers[TEXT].warm("a")

    def close(self) -> None:
        """End the threads."""
        for batcher in self._batchers.values():
            batcher.close()

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts; float32 [n,E], rows of unit length.

        Raises:
          Busy: too many rows wait.
        """
        return self._batchers[TEXT].submit(texts).result()

    def files(self, files: Sequence[tuple[Path, str]], *, kind: str) -> list[EncodedFile]:
        """Decode files in limited processes, and embed their moments, or the middle of their sound.

        Args:
          files: paths, and what the client calls them; the files may be deleted afterwards.
          kind: "like" or "sound".

        Raises:
          Busy: too many requests with files wait.
          UserError: a file that cannot be decoded, or the model has no tower for it.
        """
        with self._turn():
            coming = [self._decoded(path, name=name, kind=kind) for path, name in files]
            return [
                EncodedFile(name=one.name, side=one.side, spans=one.spans, vectors=one.future.result())
                for one in coming
            ]

    def _decoded(self, path: Path, *, name: str, kind: str) -> _Coming:
        """Decode a file, and queue what the model takes of it."""
        given: dict[str, Any] = {"opened": self._opened, "limits": UPLOAD_LIMITS}
        make = functools.partial(_Coming, name=name)
        try:
            if kind == "sound":
                sound = decode_sound(str(path), **given)
                return make(side=AUDIO, spans=(), future=self._batchers[AUDIO].submit([sound]))
            moments = decode_moments(str(path), settings=self._settings, **given)
        except UserError as error:
            raise UserError(str(error).replace(str(path), name)) from error
        rows = list(zip(moments.frames, moments.sounds, strict=True))
        return make(side=VIDEO, spans=tuple(moments.spans), future=self._batchers[VIDEO].submit(rows))

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for a turn to decode: as many at a time as there are cores; searches go on meanwhile."""
        if not self._places.acquire(blocking=False):
            raise Busy("too many files are being read; ask again in a moment", retry_s=5)
        try:
            with self._turns:
                yield
        finally:
            self._places.release()
