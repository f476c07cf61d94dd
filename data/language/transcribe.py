"""Transcripts: what is said in the clips of a source, recognised once and written into a manifest."""

import collections
import concurrent.futures
import concurrent.futures.process
import contextlib
import dataclasses
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ...base.errors import UserError
from ..clip import REFUSED, Clip, Sentence
from ..clip_fields import make_clip
from ..journal import Journal, key_of
from ..machine import cores
from ..manifest import write_manifest
from ..media.decode import DecodedClip, DecodeError, DecodeOptions
from ..media.limits import Limits
from ..media.sound import is_silent
from ..media.workers import Job, decode_in_order
from ..paths import is_plain, join
from ..sources.read import read_source
from .moved import in_folder
from .recogniser import Recogniser, RecogniserOptions, open_recogniser

SILENT = ("no sound track", "no sound could be decoded")
"""Reasons of `decode_sound` that say that there is nothing to hear."""
_AHEAD = 2  # clips of each recognising process that are decoded ahead


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribeOptions:
    """What is transcribed, and how.

    Attributes:
      workers: processes that recognise, each with its own model; 0 = one per core for pocketsphinx, else one.
      redo: whether clips that have a transcript get a new one.
      as_captions: whether the transcript becomes the caption of clips without a caption.
      max_seconds: of a clip, what comes after it is not heard.
      max_bad_fraction: share of the clips, 0 to 1, that may be unreadable.
    """

    workers: int = 0
    redo: bool = False
    as_captions: bool = False
    max_seconds: float = 14_400.0
    max_bad_fraction: float = 0.05

    def __post_init__(self):
        for name, good, wanted in (
            ("workers", self.workers >= 0, "0 (by the recogniser) or a number of processes"),
            ("max_seconds", self.max_seconds > 0, "more than 0 seconds"),
            ("max_bad_fraction", 0 <= self.max_bad_fraction <= 1, "a share from 0 to 1"),
        ):
            if not good:
                raise UserError(f"--{name} is {getattr(self, name)}, wanted {wanted}")


def transcribe(
    source: str | Path,
    *,
    out: Path,
    recogniser: RecogniserOptions,
    options: TranscribeOptions | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Write the manifest of a source with what is said in its clips.

    Results are kept in `out.transcripts`, a journal beside the manifest, as they come: the same command resumes, and
    with more clips in the source it recognises these alone.

    Args:
      source: what `prepare` takes, but for benchmarks by name.
      out: the manifest to write (`.jsonl`).
      recogniser: which one listens.
      options: see `TranscribeOptions`.
      console: where notes and the progress bar go; None = standard error.

    Returns:
      JSON values: `clips`; `kept` (they had a transcript), `recognised`, `reused` (from the journal), `silent`,
      `unreadable` (reason -> clips), `words`, and `seconds` of sound that were heard.

    Raises:
      UserError: a fault in the source or the options, a recogniser that is not installed, too many unreadable clips.
    """
    options, console = options or TranscribeOptions(), console or Console(stderr=True)
    if out.suffix != ".jsonl":
        raise UserError(f"--out {out}: wanted the name of a manifest, which ends in .jsonl")
    if Path(source).exists() and out.exists() and out.samefile(source):
        raise UserError(f"--out {out} is the source; give the new manifest another name")
    listing = read_source(source)
    for line in listing.notes.lines():
        console.print(line, style="yellow", highlight=False)
    wanted = [clip for clip in listing.clips if _listens_to(clip, redo=options.redo)]
    listener = open_recogniser(recogniser) if wanted else None  # its faults come before anything is decoded
    counts: collections.Counter[str] = collections.Counter()
    bad: collections.Counter[str] = collections.Counter()
    found: dict[str, tuple[Sentence, ...]] = {}
    with Journal(out.with_name(f"{out.name}.transcripts")) as journal:
        given = {"root": listing.root, "recogniser": recogniser, "listener": listener, "options": options}
        work = _Work(**given, journal=journal, counts=counts, bad=bad)
        for clip, sentences in _progress(work.run(wanted), total=len(wanted), console=console):
            if sentences is not None:
                found[clip.clip_id] = sentences
    _check_bad(bad, of=len(wanted), most=options.max_bad_fraction)
    clips = [_with(clip, found.get(clip.clip_id), as_captions=options.as_captions) for clip in listing.clips]
    write_manifest(out, clips=[in_folder(clip, root=listing.root, folder=out.parent) for clip in clips])
    names = ("recognised", "reused", "silent", "words")
    return {
        "clips": len(clips),
        "kept": len(clips) - len(wanted),
        **{name: counts[name] for name in names},
        "unreadable": dict(bad.most_common()),
        "seconds": round(counts["milliseconds"] / 1000, 3),
        "recogniser": dataclasses.asdict(recogniser) | {"version": recogniser.version()},
        "out": str(out),
    }


def _check_bad(bad: "collections.Counter[str]", *, of: int, most: float) -> None:
    """Raise UserError if too many clips cannot be decoded."""
    if bad.total() > most * of:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in bad.most_common(3))
        raise UserError(
            f"{bad.total()} of {of} clips cannot be heard ({reasons}); correct them, or raise --max_bad_fraction "
            f"({most:g})"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Work:
    """The recognition of clips, of which the journal keeps the results."""

    root: str | Path
    recogniser: RecogniserOptions
    listener: Recogniser | None
    options: TranscribeOptions
    journal: Journal
    counts: "collections.Counter[str]"
    bad: "collections.Counter[str]"

    def run(self, clips: Sequence[Clip]) -> Iterator[tuple[Clip, tuple[Sentence, ...] | None]]:
        """Yield what is said in each clip, in order; None of one that cannot be decoded."""
        keys = [self._key(clip) for clip in clips]
        fresh = [i for i, key in enumerate(keys) if self.journal.get(key) is None]
        heard = self._hear(clips[i] for i in fresh)
        waiting = set(fresh)
        for i, (clip, key) in enumerate(zip(clips, keys, strict=True)):
            if i in waiting:
                value = next(heard)
                if "reason" in value:
                    self.bad[value["reason"]] += 1
                    yield clip, None
                    continue
                self.journal.put(key, value=value)
                self.counts["recognised"] += 1
                self.counts["milliseconds"] += round(1000 * value["seconds"])
            else:
                value = self.journal.get(key)
                self.counts["reused"] += 1
            sentences = _read(value, clip=clip)
            self.counts["silent"] += not sentences
            self.counts["words"] += sum(len(sentence.words) for sentence in sentences)
            yield clip, sentences

    def _key(self, clip: Clip) -> str:
        """Of a clip's sound and what listens to it; a local file counts as the same while size and time are."""
        path = join(self.root, clip.path)
        state = None
        if is_plain(path):
            with contextlib.suppress(OSError):
                found = os.stat(path)  # noqa: PTH116
                state = [found.st_size, found.st_mtime_ns]
        how = {"name": self.recogniser.name, "model": self.recogniser.model, "language": self.recogniser.language}
        how |= {"version": self.recogniser.version(), "max_seconds": self.options.max_seconds}
        return key_of(path=path, state=state, window=[clip.start_s, clip.end_s], how=how)

    def _hear(self, clips: Iterable[Clip]) -> Iterator[dict[str, Any]]:
        """Yield a value for the journal for each clip, or its `reason`."""
        several = self.recogniser.name == "pocketsphinx"
        workers = self.options.workers or (cores() if several else 1)
        decode = DecodeOptions(max_seconds=self.options.max_seconds)
        jobs = (
            Job(
                path=join(self.root, clip.path),
                options=decode,
                start_s=clip.start_s or 0.0,
                end_s=clip.end_s,
                sound_only=True,
            )
            for clip in clips
        )
        decoded = decode_in_order(jobs, workers=min(workers, cores()), limits=Limits())
        with _Listeners(self.recogniser, listener=self.listener, workers=workers) as listeners:
            waiting: collections.deque[concurrent.futures.Future[dict[str, Any]]] = collections.deque()
            for result in decoded:
                waiting.append(listeners.submit(result))
                if len(waiting) > _AHEAD * workers:
                    yield self._heard(waiting.popleft())
            while waiting:
                yield self._heard(waiting.popleft())

    def _heard(self, result: "concurrent.futures.Future[dict[str, Any]]") -> dict[str, Any]:
        """Return what a process heard, once it is there."""
        try:
            return result.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise UserError(
                f"a process of {self.recogniser.name} was killed or has crashed, perhaps because memory ran out; give "
                "fewer --workers and run the same command again: what was recognised is kept"
            ) from error


class _Listeners:
    """Recognising processes, each with its model; one alone is a thread of this process, with `listener`."""

    def __init__(self, options: RecogniserOptions, *, listener: Recogniser | None, workers: int):
        self._pool: concurrent.futures.Executor
        if workers == 1:
            self._pool = concurrent.futures.ThreadPoolExecutor(1, initializer=_take, initargs=(listener,))
        else:
            context = multiprocessing.get_context("spawn")
            self._pool = concurrent.futures.ProcessPoolExecutor(
                workers, mp_context=context, initializer=_start, initargs=(options,)
            )

    def __enter__(self) -> "_Listeners":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, clip: DecodedClip | DecodeError) -> "concurrent.futures.Future[dict[str, Any]]":
        """Queue the sound of a clip."""
        if isinstance(clip, DecodedClip) and clip.audio is not None and not is_silent(clip.audio):
            return self._pool.submit(_listen, clip.audio)
        done: concurrent.futures.Future[dict[str, Any]] = concurrent.futures.Future()
        if isinstance(clip, DecodeError) and clip.reason not in SILENT:
            done.set_result({"reason": clip.reason})
        else:
            done.set_result({"sentences": [], "seconds": 0.0})
        return done


_listening: Recogniser | None = None


def _start(options: RecogniserOptions) -> None:
    _take(open_recogniser(options))


def _take(listener: Recogniser | None) -> None:
    global _listening
    _listening = listener


def _listen(samples: np.ndarray) -> dict[str, Any]:
    assert _listening is not None
    sentences = [sentence.to_json() for sentence in _listening.listen(samples)]
    return {"sentences": sentences, "seconds": len(samples) / 16_000}


def _read(value: dict[str, Any], *, clip: Clip) -> tuple[Sentence, ...]:
    """The sentences of a value of the journal, in the time of the file."""
    fields = {"clip_id": clip.clip_id, "path": "x", "sentences": value["sentences"]}
    found = make_clip(fields, where="the journal of transcripts")
    return tuple(sentence.moved(clip.start_s or 0.0) for sentence in found.sentences)


def _listens_to(clip: Clip, *, redo: bool) -> bool:
    """Whether a clip has a file whose sound is wanted."""
    return bool(clip.path) and REFUSED not in clip.meta and (redo or not (clip.sentences or clip.transcript.strip()))


def _with(clip: Clip, sentences: tuple[Sentence, ...] | None, *, as_captions: bool) -> Clip:
    """A clip with what is said in it; None = it was not listened to."""
    if sentences is not None:
        transcript = " ".join(sentence.text for sentence in sentences)
        clip = dataclasses.replace(clip, sentences=sentences, transcript=transcript)
    if as_captions and not any(caption.strip() for caption in clip.captions) and clip.transcript.strip():
        clip = dataclasses.replace(clip, captions=(clip.transcript,))
    return clip


def _progress(found: Iterator[Any], *, total: int, console: Console) -> Iterator[Any]:
    columns = (TextColumn("listening"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield from bar.track(found, total=total)
