"""Thumbnails of a split's clips: made from records, or taken over from an earlier report."""

import os
import shutil
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import track

from ...pages.markup import Html
from ...pages.thumbnails import clip_figure, write_strip, write_webp
from ..embedding.embeddings import Embeddings
from ..options import THUMBNAILS
from .pictures import clip_frames

if TYPE_CHECKING:
    from ...data.batches.records import Records

MEDIA = "media"
"""The folder of the pictures in that of the report."""
_FEW = 50  # pictures that need no progress bar


class Gallery:
    """Thumbnails of a split's clips as `<figure>` elements; each clip's file is written when it is first shown."""

    def __init__(
        self,
        out: Path,
        *,
        embeddings: Embeddings,
        records: "Records | None",
        earlier: Path | None = None,
        most: int = THUMBNAILS,
    ):
        """Begin with an empty folder of pictures, or with those of the report that is made again.

        Args:
          out: folder of the report, which exists; its pictures of clips are replaced.
          embeddings: of the split.
          records: the prepared data set; None: only pictures of `earlier`.
          earlier: folder of an earlier report of the same clips, whose pictures are taken over; None: all are made.
          most: clips that get a moving picture; those that are asked for later have none.
        """
        self._out, self._records, self._embeddings, self._most = out / MEDIA, records, embeddings, most
        self._out.mkdir(parents=True, exist_ok=True)
        self._earlier = None if earlier is None else earlier / MEDIA
        if self._earlier is None or self._earlier.resolve() != self._out.resolve():
            for old in self._out.glob("clip-*.webp"):
                old.unlink()
        self._moving = len([path for path in self._out.glob("clip-*.webp") if "strip" not in path.name])
        self._split = embeddings.protocol.get("split")
        self._first_caption: dict[int, str] = {}
        for text, clip in zip(embeddings.captions, embeddings.video_of_text.tolist(), strict=False):
            self._first_caption.setdefault(clip, text)

    def caption(self, clip: int) -> str:
        """Return the first caption of a clip, or its number where captions are not known."""
        return self._first_caption.get(clip, f"clip {clip}")

    def figure(self, clip: int, *, note: Html, mark: str = "", caption: str | None = None, strip: bool = False) -> Html:
        """Return one clip as `<figure>`.

        Args:
          clip: index in the split.
          note: the line below the picture.
          mark: CSS class.
          caption: below the note; the clip's first caption by default.
          strip: frames side by side instead of the moving picture.
        """
        own = self.caption(clip)
        caption = own if caption is None else caption
        return clip_figure(self._picture(clip, strip=strip), note=note, caption=caption, alt=own, mark=mark)

    def prepare(self, clips: Iterable[int]) -> None:
        """Write the pictures of clips, in several threads, until there are as many as the gallery may have."""
        wanted = [clip for clip in dict.fromkeys(clips) if not self.has(clip) and self._can(clip)]
        wanted = wanted[: max(0, self._most - self._moving)]
        hidden = len(wanted) < _FEW or not sys.stderr.isatty()
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            made = pool.map(self._write, wanted)
            console = Console(stderr=True)
            for _ in track(made, "thumbnails", total=len(wanted), console=console, transient=True, disable=hidden):
                self._moving += 1

    def has(self, clip: int) -> bool:
        """Return whether a clip has a moving picture."""
        return self._path(clip).exists()

    def shape(self) -> str:
        """Return the CSS aspect ratio that suits most clips."""
        ratios = [row["width"] / row["height"] for row in self._embeddings.rows if row.get("height")]
        return f"{np.clip(np.median(ratios), 0.75, 16 / 9) if ratios else 4 / 3:.3f}"

    def _picture(self, clip: int, *, strip: bool) -> str | None:
        path = self._path(clip, strip=strip)
        if not path.exists():
            if not self._can(clip, strip=strip) or (not strip and self._moving >= self._most):
                return None
            self._write(clip, strip=strip)
            self._moving += not strip
        return f"{MEDIA}/{path.name}"

    def _path(self, clip: int, *, strip: bool = False) -> Path:
        return self._out / f"clip-{clip:05d}{'-strip' if strip else ''}.webp"

    def _can(self, clip: int, *, strip: bool = False) -> bool:
        return self._records is not None or self._taken(clip, strip=strip) is not None

    def _taken(self, clip: int, *, strip: bool) -> Path | None:
        """The picture of the earlier report, if it has one."""
        path = None if self._earlier is None else self._earlier / self._path(clip, strip=strip).name
        return path if path is not None and path.is_file() else None

    def _write(self, clip: int, *, strip: bool = False) -> None:
        path = self._path(clip, strip=strip)
        if (taken := self._taken(clip, strip=strip)) is not None:
            shutil.copyfile(taken, path)
            return
        assert self._records is not None
        jpegs, timestamps_s = clip_frames(self._records, split=str(self._split), index=clip)
        if strip:
            write_strip(path, jpegs=jpegs)
        else:
            write_webp(path, jpegs=jpegs, timestamps_s=timestamps_s)
