"""New data as embeddings and texts: from an index, a prepared split, a file of embeddings, or media files."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from ...base.errors import UserError
from ...data.machine import cores
from ...data.media.decode import DecodedClip, DecodeError
from ...data.media.workers import Job, decode_in_order
from ...data.sources.kinds import PICTURE_SUFFIXES, VIDEO_SUFFIXES, suffix_of
from ...encode.embed.encoder import Encoder
from ...evaluate.embedding.embed import embed_split
from ...evaluate.embedding.loaded import LoadedSplit
from ...evaluate.npz import read_npz
from ..index import database
from ..index.listing import Entry, combined
from ..index.models import Opened, opened_of
from ..index.nearest import Side

_NPZ = {"video": "video", "clip": "video", "audio": "audio", "side_audio": "audio", "text": "text"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowOptions:
    """How sources are read and embedded.

    Attributes:
      split: of prepared folders.
      limit: rows of an index, or files, that are taken at most, at random.
      batch_size: clips that are embedded at a time.
      workers: processes that decode; 0 = one per core.
      max_bad_fraction: of files that cannot be decoded; more are an error.
      seed: of the choice.
      progress: draw progress bars on standard error.
    """

    split: str = "test"
    limit: int = 20_000
    batch_size: int = 16
    workers: int = 0
    max_bad_fraction: float = 0.2
    seed: int = 0
    progress: bool = True


@dataclasses.dataclass(kw_only=True)
class Data:
    """Embeddings and texts.

    Attributes:
      sides: "video" (what stands for a clip), "audio", "text", "transcript" -> float32 [n,E].
      texts: captions or strings of the sources.
      kind: "index", "split", "embeddings" or "files".
      video_of_text: int64 [n], the row of "video" of each text; None where that is unknown.
      models: `model_sha256` of the indexes that they come from.
      rejected: files that could not be decoded, with reasons.
    """

    sides: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    texts: list[str] = dataclasses.field(default_factory=list)
    kind: str = ""
    video_of_text: np.ndarray | None = None
    models: set[str] = dataclasses.field(default_factory=set)
    rejected: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def read_sources(sources: Sequence[str], *, encoder: Encoder | None, options: RowOptions, digest: str = "") -> Data:
    """Read sources of one kind: indexes, files of embeddings, prepared folders; or folders, manifests and media files.

    Args:
      sources: at least one.
      encoder: the model; None = it is not at hand, so only indexes and files of embeddings can be read.
      options: see the class.
      digest: `model_sha256` of the model whose embeddings are taken of an index; "" = those of its first model.

    Raises:
      UserError: sources of different kinds, one that cannot be read, or that needs a model.
    """
    kinds = {source: _kind(Path(source).expanduser()) for source in sources}
    if len(set(kinds.values())) > 1:
        named = ", ".join(f"{source} ({kind})" for source, kind in kinds.items())
        raise UserError(f"sources of different kinds are embedded in different ways: {named}; give one kind at a time")
    kind = next(iter(kinds.values()))
    if kind in ("split", "files") and encoder is None:
        raise UserError(f"{sources[0]} has to be embedded: give the MODEL in place of the file of statistics")
    if kind == "files":
        assert encoder is not None
        return embed_files(sources, opened=_opened(encoder), options=options)
    parts = []
    for source in sources:
        path = Path(source).expanduser()
        if kind == "index":
            parts.append(_of_index(path, digest=digest, options=options))
        elif kind == "embeddings":
            parts.append(_of_npz(path))
        else:
            assert encoder is not None
            parts.append(_of_split(path, encoder=encoder, options=options))
    return parts[0] if len(parts) == 1 else _joined(parts)


def read_queries(path: Path) -> list[str]:
    """Read texts, one per line; empty lines are left out.

    Raises:
      UserError: no such file, not UTF-8, or no text in it.
    """
    try:
        texts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--queries {str(path)!r} cannot be read as UTF-8 text: {error}") from error
    texts = [text for text in texts if text]
    if not texts:
        raise UserError(f"--queries {str(path)!r} has no text; wanted one query per line")
    return texts


def _kind(path: Path) -> str:
    if database.exists(path):
        return "index"
    if (path / "prepare.json").is_file():
        return "split"
    return "embeddings" if path.suffix == ".npz" else "files"


def _opened(encoder: Encoder) -> Opened:
    source = encoder.source or "the model"
    return opened_of(encoder, name="model", source=source)


def _of_index(folder: Path, *, digest: str, options: RowOptions) -> Data:
    """Read the embeddings of a model of an index."""
    connection = database.connect(folder)
    try:
        models = database.read_models(connection)
        chosen = [model for model in models if model.weights == digest] if digest else models[:1]
        if not chosen:
            known = ", ".join(f"{model.name} ({model.source})" for model in models) or "none"
            raise UserError(
                f"the index {folder} has no embeddings of this model (its models: {known}); `twinreel index --out "
                f"{folder} --model MODEL` adds them"
            )
        data = Data(kind="index", models={chosen[0].weights})
        for name in chosen[0].sides:
            side = Side(connection, folder=folder, model=chosen[0], side=name)
            if len(side):
                data.sides[name] = side.vectors(_some(len(side), options=options))
    finally:
        connection.close()
    if not data.sides:
        raise UserError(f"the index {folder} has no moments yet; run `twinreel index --out {folder}` first")
    return data


def _of_npz(path: Path) -> Data:
    """Read what `twinreel encode --out` or `twinreel evaluate` wrote, or any file with such names."""
    arrays = read_npz(path, wanted={})
    data = Data(kind="embeddings")
    data.sides = {_NPZ[name]: rows for name, rows in arrays.items() if name in _NPZ and rows.ndim == 2}
    if not data.sides:
        raise UserError(
            f"{path} has no embeddings (arrays: {', '.join(sorted(arrays)) or 'none'}); wanted any of "
            f"{', '.join(_NPZ)}, each [n,E]"
        )
    data.texts = arrays["strings"].tolist() if "strings" in arrays else []
    return data


def _of_split(folder: Path, *, encoder: Encoder, options: RowOptions) -> Data:
    """Embed a split of a prepared folder, as `twinreel evaluate` does."""
    from ...data.batches.records import Records

    loaded = LoadedSplit(Records(folder), split=options.split)
    found = embed_split(encoder, loaded=loaded, batch_size=options.batch_size, progress=options.progress)
    sides = {"video": found.video, "text": found.text}
    return Data(sides=sides, texts=found.captions, kind="split", video_of_text=found.video_of_text)


def embed_files(sources: Sequence[str], *, opened: Opened, options: RowOptions) -> Data:
    """Decode and embed media files, and the captions of those that have some.

    Args:
      sources: media files; or folders, manifests and tables of them.
      opened: the model.
      options: see the class.

    Raises:
      UserError: nothing there, or more files than `max_bad_fraction` cannot be decoded.
    """
    entries = _entries(sources)
    entries = [entries[i] for i in _some(len(entries), options=options)]
    data = Data(kind="files")
    parts: dict[str, list[np.ndarray]] = {"video": [], "audio": []}
    texts_of: list[int] = []
    for part in _decoded(entries, opened=opened, options=options, rejected=data.rejected):
        frames, sounds = [opened.frames(clip) for _, clip in part], [opened.sound(clip) for _, clip in part]
        first = sum(map(len, parts["video"]))
        parts["video"].append(opened.embed_video(frames, sounds=sounds, batch_size=options.batch_size))
        heard = [sound for sound in sounds if len(sound)]
        if "audio" in opened.row.sides and heard:
            parts["audio"].append(opened.embed_sound(heard, batch_size=options.batch_size))
        for number, (entry, _) in enumerate(part):
            data.texts += entry.captions
            texts_of += [first + number] * len(entry.captions)
    if len(data.rejected) > options.max_bad_fraction * len(entries):
        path, reason = data.rejected[0]
        raise UserError(
            f"{len(data.rejected)} of {len(entries)} files cannot be decoded (first: {path}: {reason}); repair or "
            "remove them, or raise --max_bad_fraction"
        )
    for path, reason in data.rejected:
        print(f"warning: {path} left out: {reason}", file=sys.stderr)
    data.sides = {side: np.concatenate(rows) for side, rows in parts.items() if rows}
    if data.texts and "text" in opened.encoder.spec.towers:
        data.sides["text"] = opened.encoder.encode_text(data.texts)
    data.video_of_text = np.array(texts_of, np.int64)
    return data


def _entries(sources: Sequence[str]) -> list[Entry]:
    """List the clips of sources; a single media file stands for itself."""
    single, others = [], []
    for source in sources:
        path = Path(source).expanduser()
        media = path.is_file() and suffix_of(path.name) in VIDEO_SUFFIXES | PICTURE_SUFFIXES
        (single if media else others).append(source)
    entries = [Entry(key=source, root=source, path=str(Path(source).expanduser().resolve())) for source in single]
    return entries + (combined(others)[0] if others else [])


def _decoded(
    entries: Sequence[Entry], *, opened: Opened, options: RowOptions, rejected: list[tuple[str, str]]
) -> Iterator[list[tuple[Entry, DecodedClip]]]:
    """Yield batches of decoded clips; those that cannot be decoded are noted."""
    jobs = (
        DecodeError(entry.refused)
        if entry.refused
        else Job(path=entry.path, options=opened.decode, start_s=entry.start_s, end_s=entry.end_s)
        for entry in entries
    )
    results = decode_in_order(jobs, workers=min(options.workers or cores(), max(len(entries), 1)))
    shown = track(
        entries, "decode and embed", console=Console(stderr=True), disable=not options.progress, transient=True
    )
    part: list[tuple[Entry, DecodedClip]] = []
    for entry, result in zip(shown, results, strict=True):
        if isinstance(result, DecodeError):
            rejected.append((entry.path, str(result)))
            continue
        part.append((entry, result))
        if len(part) == options.batch_size:
            yield part
            part = []
    if part:
        yield part


def _some(total: int, *, options: RowOptions) -> np.ndarray:
    """Return at most `limit` places of `total`, rising."""
    if total <= options.limit:
        return np.arange(total)
    return np.sort(np.random.default_rng(options.seed).choice(total, options.limit, replace=False))


def _joined(parts: Sequence[Data]) -> Data:
    """Return the rows of several sources together; a side counts where all have it."""
    whole = Data(kind=parts[0].kind, models=set().union(*(part.models for part in parts)))
    whole.texts = [text for part in parts for text in part.texts]
    for side in parts[0].sides:
        rows: list[Any] = [part.sides[side] for part in parts if side in part.sides]
        widths = {one.shape[1] for one in rows}
        if len(widths) > 1:
            raise UserError(f"the sources have embeddings of different widths ({sorted(widths)}): of different models")
        if len(rows) == len(parts):
            whole.sides[side] = np.concatenate(rows)
    return whole
