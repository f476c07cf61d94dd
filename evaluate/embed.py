"""Embed a split of prepared records with an encoder, and keep the embeddings so that a report can be re-made."""

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from ..base.errors import UserError, unknown
from .metrics import check_pair

if TYPE_CHECKING:
    from ..data.batches.records import Records
    from ..data.options import ClipData
    from ..data.text.tokenizer import Tokenizer

CAPTIONS = ("all", "first")


class Encoder(Protocol):
    """What evaluation needs of `serve.encoder.Encoder`. Both functions return float32 [b,E]."""

    @property
    def data(self) -> "ClipData":
        """How the model's input is made."""
        ...

    @property
    def tokenizer(self) -> "Tokenizer":
        """The tokenizer of the checkpoint."""
        ...

    @property
    def meta(self) -> dict[str, Any]:
        """What the checkpoint says of itself."""
        ...

    def embed_video_batch(self, video: np.ndarray) -> np.ndarray:
        """Embed preprocessed frames, uint8 [b,T,H,W,3]."""
        ...

    def embed_text_batch(self, text: np.ndarray, *, mask: np.ndarray) -> np.ndarray:
        """Embed token ids, int32 [b,L], under their mask, bool [b,L]."""
        ...


@dataclasses.dataclass(kw_only=True)
class Embeddings:
    """The embeddings of a split and what the report says about them.

    Attributes:
      text: float32 [n,E], one row per caption.
      video: float32 [m,E], one row per clip, in record order.
      video_of_text: int64 [n], each caption's clip.
      video_shuffled: float32 [m,E] of the same clips with shuffled frames, or None.
      captions: the n texts; empty where only arrays are known.
      rows: the m lines of `clips.jsonl`; empty where only arrays are known.
      protocol: see `retrieval.protocol_of`.
      coverage: see `retrieval.coverage_of`, or None where unknown.
    """

    text: np.ndarray
    video: np.ndarray
    video_of_text: np.ndarray
    video_shuffled: np.ndarray | None = None
    captions: list[str] = dataclasses.field(default_factory=list)
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    protocol: dict[str, Any] = dataclasses.field(default_factory=dict)
    coverage: dict[str, Any] | None = None

    def save(self, path: Path) -> None:
        """Write an `.npz` (no pickle): `text, video, video_of_text`, `video_shuffled` if any, and `about` (JSON bytes).

        The file is whole or absent: it is written beside its place and renamed.
        """
        about = {key: getattr(self, key) for key in ("captions", "rows", "protocol", "coverage")}
        arrays = {"text": self.text, "video": self.video, "video_of_text": self.video_of_text}
        if self.video_shuffled is not None:
            arrays["video_shuffled"] = self.video_shuffled
        packed = np.frombuffer(json.dumps(about, ensure_ascii=False).encode(), dtype=np.uint8)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, about=packed, **arrays)  # pyright: ignore[reportArgumentType]
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Embeddings":
        """Read an `.npz` of this class or any with `text [n,E]`, `video [m,E]` and `video_of_text int [n]`.

        Raises:
          UserError: no such file, no `.npz`, a missing key, arrays that do not fit together, or rows that are zero or
            not finite.
        """
        arrays = _read_npz(Path(path))
        wanted = ("text", "video", "video_of_text")
        missing = [key for key in wanted if key not in arrays]
        if missing:
            raise UserError(
                f"{path} has no array {missing[0]!r} (it has: {', '.join(sorted(arrays)) or 'none'}); "
                "wanted text [n,E], video [m,E] and video_of_text int [n]"
            )
        text, video, video_of_text = (arrays[key] for key in wanted)
        shuffled = arrays.get("video_shuffled")
        found = cls(text=text, video=video, video_of_text=video_of_text, video_shuffled=shuffled)
        try:
            check_pair(found.text, video=found.video, video_of_text=found.video_of_text)
            if found.video_shuffled is not None and found.video_shuffled.shape != found.video.shape:
                shapes = f"{found.video_shuffled.shape}; wanted that of 'video', {found.video.shape}"
                raise UserError(f"'video_shuffled' has shape {shapes}")
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        if "about" in arrays:
            for key, value in _about(arrays["about"], path=path, lengths=(len(found.text), len(found.video))).items():
                setattr(found, key, value)
        return found

    @property
    def groups(self) -> list[str | None]:
        """The group of each clip, None for a clip that is in none."""
        return [row.get("group") for row in self.rows] or [None] * len(self.video)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"embeddings file {str(path)!r} does not exist; wanted an .npz, see `twinreel evaluate --help`")
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.lib.npyio.NpzFile):
            with file:
                return {key: file[key] for key in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read as .npz without pickled objects: {error}") from error
    raise UserError(f"{path} holds one bare array; wanted an .npz with text, video and video_of_text")


def _about(packed: np.ndarray, *, path: Path, lengths: tuple[int, int]) -> dict[str, Any]:
    try:
        about = json.loads(packed.tobytes())
        about = {key: about[key] for key in ("captions", "rows", "protocol", "coverage")}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: array 'about' is not the JSON that twinreel writes: {error!r}") from error
    got = (len(about["captions"]), len(about["rows"]))
    if any(size not in (0, length) for size, length in zip(got, lengths, strict=True)):
        raise UserError(
            f"{path}: 'about' describes {got[0]} captions and {got[1]} clips, the arrays have {lengths[0]} and "
            f"{lengths[1]} rows; drop the array 'about' or write the file again"
        )
    return about


def embed_split(
    encoder: Encoder,
    *,
    records: "Records",
    split: str,
    captions: str = "all",
    batch_size: int = 32,
    shuffle_frames_seed: int | None = None,
    progress: bool = True,
) -> Embeddings:
    """Embed every clip of a split and its captions.

    A clip without a caption is embedded too: the captions of others are measured against it (the protocol counts
    such clips as `videos_without_text`).

    Args:
      encoder: the model with its tokenizer and its input settings; its `data.dir` is replaced by that of `records`.
      records: the opened folder of prepared records.
      split: which split.
      captions: "all" of each clip, or its "first".
      batch_size: rows embedded at a time; the last batch is padded, so the model compiles once.
      shuffle_frames_seed: embed the clips a second time with their frames in a random order (`video_shuffled`).
      progress: draw a progress bar with rate and time left on standard error.

    Raises:
      UserError: no such split, no caption in it, a value of `captions` that does not exist, a batch size below 1.
    """
    if split not in records.splits:
        raise unknown("split", split, records.splits)
    if captions not in CAPTIONS:
        raise unknown("value of captions", captions, CAPTIONS)
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; wanted 1 or more (--batch_size)")
    rows = list(records.rows(split))
    texts, video_of_text = _texts(rows, captions=captions, folder=records.folder)
    data = dataclasses.replace(encoder.data, dir=str(records.folder))
    sizes = {"split": split, "batch_size": batch_size, "progress": progress, "rows": rows}
    text, truncated = _embed_texts(encoder, texts, data=data, batch_size=batch_size, progress=progress)
    video = _embed_videos(encoder, data, what="clips", shuffle_frames_seed=None, **sizes)
    shuffled = None
    if shuffle_frames_seed is not None:
        shuffled = _embed_videos(
            encoder, data, what="clips, frames shuffled", shuffle_frames_seed=shuffle_frames_seed, **sizes
        )
    return Embeddings(
        text=text,
        video=video,
        video_of_text=video_of_text,
        video_shuffled=shuffled,
        captions=texts,
        rows=rows,
        protocol=_protocol(data, split=split, captions=captions, records=records) | {"texts_truncated": truncated},
    )


def _texts(rows: list[dict[str, Any]], *, captions: str, folder: Path) -> tuple[list[str], np.ndarray]:
    if not rows:
        raise UserError(f"the split is empty in {folder}; prepare it again with clips in that split")
    if not any(row["captions"] for row in rows):
        raise UserError(
            f"none of the {len(rows)} clips of the split has a caption in {folder}, so there is nothing to retrieve "
            "them by; give captions in the manifest and prepare again"
        )
    chosen = [row["captions"] if captions == "all" else row["captions"][:1] for row in rows]
    index = np.repeat(np.arange(len(rows)), [len(texts) for texts in chosen])
    return [text for texts in chosen for text in texts], index


def _protocol(data: "ClipData", *, split: str, captions: str, records: "Records") -> dict[str, Any]:
    return {
        "dataset": records.folder.resolve().name,
        "split": split,
        "fps": records.options.get("fps"),
        "short_side": records.options.get("short_side"),
        "frames": data.num_frames,
        "sampling": data.eval_sampling,
        "preprocessing": data.eval_video,
        "text_cleaning": data.text,
        "context_length": data.context_length,
        "captions": captions,
    }


def _embed_texts(
    encoder: Encoder, texts: list[str], *, data: "ClipData", batch_size: int, progress: bool
) -> tuple[np.ndarray, int]:
    """Return float32 [n,E] and how many texts were longer than the context."""
    from ..data.text.clean import text_cleaner

    cleaned = list(map(text_cleaner(data.text), texts))
    ids, mask, truncated = encoder.tokenizer.encode(cleaned, context_length=data.context_length)
    # Equal texts are embedded once: in two places of a batch a device may round one differently, and break their tie.
    _, first, place = np.unique(ids, axis=0, return_index=True, return_inverse=True)
    parts = []
    starts = range(0, len(first), batch_size)
    for start in _track(starts, "captions", total=len(first), batch_size=batch_size, progress=progress):
        # The last batch is filled up by starting again from the first text, so that the model compiles once.
        rows = first[np.arange(start, start + batch_size) % len(first)]
        parts.append(np.asarray(encoder.embed_text_batch(ids[rows], mask=mask[rows]), dtype=np.float32))
    return np.concatenate(parts)[place], truncated


def _embed_videos(
    encoder: Encoder,
    data: "ClipData",
    *,
    split: str,
    rows: list[dict[str, Any]],
    batch_size: int,
    shuffle_frames_seed: int | None,
    what: str,
    progress: bool,
) -> np.ndarray:
    """Return float32 [m,E] in record order."""
    from ..data.batches.pipeline import eval_batches
    from ..encode.views import embed_views

    batches = eval_batches(
        data,
        tokenizer=encoder.tokenizer,
        split=split,
        batch_size=batch_size,
        shuffle_frames_seed=shuffle_frames_seed,
    )
    found: dict[int, np.ndarray] = {}
    first: dict[bytes, int] = {}  # clips of equal frames get one embedding, for the reason given in _embed_texts
    for batch in _track(batches, what, total=len(rows), batch_size=batch_size, progress=progress):
        embedded = embed_views(encoder.embed_video_batch, batch["video"])
        for row in np.flatnonzero(batch["valid"]):
            clip = int(batch["clip_index"][row])
            frames = hashlib.blake2b(batch["video"][row].tobytes(), digest_size=16).digest()
            same = first.setdefault(frames, clip)
            found[clip] = embedded[row] if same == clip else found[same]
    lost = [row["clip_id"] for clip, row in enumerate(rows) if clip not in found]
    if lost:
        raise UserError(
            f"the input pipeline gave {len(found)} of the {len(rows)} clips of split {split!r} (first missing: "
            f"{lost[0]!r}); the records are damaged: prepare the data set again"
        )
    return np.stack([found[clip] for clip in range(len(rows))])


class _Rate(ProgressColumn):
    """Items a second."""

    def render(self, task: Task) -> Text:
        """Return the rate, or a dash before it is known."""
        return Text(f"{task.speed:,.0f}/s" if task.speed else "-/s", style="cyan")


def _track(items: Any, what: str, *, total: int, batch_size: int, progress: bool) -> Iterator[Any]:
    """Pass `items` on, one per batch, under a bar that counts the rows of the `total`."""
    columns = (
        TextColumn("embed {task.description:<23}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not progress) as bars:
        task, done = bars.add_task(what, total=total), 0
        for item in items:
            yield item
            done = min(total, done + batch_size)
            bars.update(task, completed=done)
