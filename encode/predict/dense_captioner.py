"""Captions with times: films are cut into events, and each event is described from its own frames."""

import concurrent.futures
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ...base.errors import UserError
from ...data.machine import cores
from ...data.media.decode import DecodedClip, DecodeError, DecodeOptions
from ...data.media.workers import Job, decode_in_order
from ...data.options import SAMPLE_RATE
from ..devices.rows import Rows, padded
from ..embed.encoder import Encoder
from ..embed.film import film_of_clip, index_options, read_film
from ..films.events import EventOptions, event_spans
from ..media.files import listed, rows_of
from ..media.windows import part_of
from .captioner import Captioner

MOST_FRAMES = 600
"""Frames of an event from which the model draws its own; long events are decoded with fewer frames per second."""


class _Place(NamedTuple):
    """Where an event is: the number of its film, that film's length, and its times."""

    film: int
    duration_s: float
    start_s: float
    end_s: float


_Event = tuple[_Place, DecodedClip]


class DenseCaptioner:
    """A `Captioner` that describes films event by event.

    In a run of several processes all make the same calls, decode the same films, and get all results.

    Attributes:
      captioner: the model, and how captions are written.
      options: how films are cut into events.
    """

    def __init__(self, captioner: Captioner, *, options: EventOptions | None = None):
        """Use a captioner's model, whose parameters stay where they are, for the embeddings of moments, too.

        Raises:
          UserError: a model that takes no frames, or sound of another rate than that of decoded films.
        """
        spec, name = captioner.spec, captioner.source or "this model"
        if spec.towers.get("video", {}).get("family") in (None, "features"):
            raise UserError(f"{name} takes no frames, so it finds no events in films; give a model with a video tower")
        if captioner.hears and spec.input.audio_rate != SAMPLE_RATE:
            raise UserError(
                f"{name} hears sound of config.data.audio_rate={spec.input.audio_rate} Hz; events of films have sound "
                f"of {SAMPLE_RATE} Hz: describe whole files (without --dense)"
            )
        self.captioner, self.options = captioner, options or EventOptions()
        kept: dict[str, Any] = {"mesh": captioner.mesh, "source": captioner.source}
        self._encoder = Encoder(spec=spec, model=captioner.model, **kept)

    def caption(
        self,
        paths: Iterable[str | Path],
        *,
        batch_size: int = 16,
        workers: int = 0,
        seed: int = 0,
        tick: Callable[[Path, float, float | None], object] = lambda path, done_s, length_s: None,
    ) -> Iterator[dict[str, Any]]:
        """Find and describe the events of films of any length, in bounded memory.

        A film is decoded twice: in chunks for the embeddings of its moments, and event by event for the captions.

        Args:
          paths: films that PyAV decodes.
          batch_size: moments and events at a time.
          workers: processes that decode; 0 = one per core.
          seed: of sampling.
          tick: called with the film, the seconds of it that are embedded and its length (None = unknown).

        Yields:
          Of each film, as soon as it is described: `path`, `duration_s` and `events`, in order of time: `start_s`,
          `end_s`, `caption`, and `score` as `Captioner.caption` returns it. Neighbours with the same caption are one
          event; its score is the mean of theirs, weighted by their lengths.

        Raises:
          UserError: a film that cannot be decoded, or that is longer than the events that `options` allow.
        """
        files, first = listed(paths, method="caption"), 0
        for number, path in enumerate(files):
            how: dict[str, Any] = {"batch_size": self.captioner.global_batch(batch_size, total=batch_size)}

            def told(done_s: float, length_s: float | None, path: Path = path) -> None:
                tick(path, done_s, length_s)

            film = read_film(self._encoder, path, seconds=self.options.seconds, workers=workers, tick=told, **how)
            spans = event_spans(film, options=self.options)
            events = self._of_file(path, spans=spans, number=number, duration_s=film.duration_s, workers=workers)
            for _, found in self._described(events, size=how["batch_size"], seed=seed, first=first):
                yield {"path": str(path), **found}
            first += len(spans)

    def caption_clips(
        self, clips: Iterable[tuple[int, DecodedClip]], *, batch_size: int = 16, seed: int = 0
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Find and describe the events of clips in memory, such as those of records, which come with their numbers.

        Args:
          clips: numbers, each one once, and frames; of a model that hears with their sound.
          batch_size: moments and events at a time; events of several clips share a batch.
          seed: of sampling.

        Yields:
          The number of each clip and what `caption` yields of a film, but the path.
        """
        size = self.captioner.global_batch(batch_size, total=batch_size)
        return self._described(self._of_clips(clips, size=size), size=size, seed=seed, first=0)

    def _of_file(
        self, path: Path, *, spans: np.ndarray, number: int, duration_s: float, workers: int
    ) -> Iterator[_Event]:
        """Decode the events of a film, each from its own stretch."""
        times = [(float(start), float(end)) for start, end in spans]
        jobs = [
            Job(path=path, options=self._decode(end_s - start_s), start_s=start_s, end_s=end_s)
            for start_s, end_s in times
        ]
        clips = decode_in_order(iter(jobs), workers=min(workers or cores(), len(jobs)))
        for (start_s, end_s), clip in zip(times, clips, strict=True):
            if isinstance(clip, DecodeError):
                raise UserError(f"{path} cannot be read from {start_s:.2f} s on: {clip}") from clip
            yield _Place(number, duration_s, start_s, end_s), clip

    def _decode(self, seconds: float) -> DecodeOptions:
        """Return how an event of that length is decoded: as films are, with `MOST_FRAMES` frames at most."""
        options = index_options(self.captioner.spec.input, audio=self.captioner.hears)
        fps = min(options.fps or np.inf, MOST_FRAMES / seconds)
        return dataclasses.replace(options, fps=fps, max_seconds=max(options.max_seconds, seconds + 1.0))

    def _of_clips(self, clips: Iterable[tuple[int, DecodedClip]], *, size: int) -> Iterator[_Event]:
        """Cut clips in memory into events."""
        for number, clip in clips:
            given: dict[str, Any] = {"path": Path(f"clip {number}"), "seconds": self.options.seconds}
            film = film_of_clip(self._encoder, clip, batch_size=size, **given)
            for start_s, end_s in event_spans(film, options=self.options).tolist():
                part = part_of(clip, start_s=start_s, end_s=end_s)
                yield _Place(number, film.duration_s, start_s, end_s), part

    def _described(
        self, events: Iterable[_Event], *, size: int, seed: int, first: int
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Describe events that come in order, and yield number, length and events of each film."""
        told = self._captions(events, size=size, seed=seed, first=first)
        for number, every in itertools.groupby(told, key=lambda one: one[0].film):
            own = list(every)
            found = [
                {"start_s": round(place.start_s, 3), "end_s": round(place.end_s, 3)}
                | {key: made[key] for key in ("caption", "score")}
                for place, made in own
            ]
            yield number, {"duration_s": round(own[0][0].duration_s, 3), "events": merged(found)}

    def _captions(
        self, events: Iterable[_Event], *, size: int, seed: int, first: int
    ) -> Iterator[tuple[_Place, dict[str, Any]]]:
        """Describe events, batch by batch; sampling depends on the seed and on how many events came before."""
        coming, begin = iter(events), first
        local = size // jax.process_count()
        start = jax.process_index() * local
        with concurrent.futures.ThreadPoolExecutor(cores()) as threads:
            while batch := list(itertools.islice(coming, size)):
                own = [clip for _, clip in batch[start : start + local]]
                made = list(threads.map(self._rows, own or [batch[0][1]]))
                rows = {key: padded(np.stack([one[key] for one in made]), size=local) for key in made[0]}
                rows |= {"clip_index": begin + start + np.arange(local), "valid": np.arange(local) < len(own)}
                found = self.captioner.caption_rows(rows, size=size, seed=seed)
                begin += len(batch)
                places = [place for place, _ in batch]
                del batch, own  # the frames: what is yielded is kept until its film is complete
                yield from zip(places, [one for _, valid, one in found if valid], strict=True)

    def _rows(self, clip: DecodedClip) -> Rows:
        """Return what the model takes of an event: its frames and, if it hears, the middle of its sound."""
        spec = self.captioner.spec.input
        rows = rows_of(spec, clip=clip)
        if not self.captioner.hears:
            return rows
        sound = np.zeros(0, np.int16) if clip.audio is None else clip.audio
        start = max(0, (len(sound) - spec.audio_samples) // 2)
        sound = sound[start : start + spec.audio_samples]
        audio = np.zeros(spec.audio_samples, np.int16)
        audio[: len(sound)] = sound
        heard = {"audio": audio, "audio_samples": np.int32(len(sound)), "audio_mask": np.bool_(len(sound) > 0)}
        return rows | {key: np.asarray(value) for key, value in heard.items()}


def merged(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join neighbours with the same caption; their score is the mean, weighted by the lengths.

    >>> one, two = ({"start_s": i, "end_s": i + 1, "caption": "a dog", "score": -i} for i in (1, 2))
    >>> merged([one, two])
    [{'start_s': 1, 'end_s': 3, 'caption': 'a dog', 'score': -1.5}]
    """
    found: list[dict[str, Any]] = []
    for event in events:
        if not found or found[-1]["caption"] != event["caption"]:
            found.append(dict(event))
            continue
        last = found[-1]
        before, own = last["end_s"] - last["start_s"], event["end_s"] - event["start_s"]
        score = (before * last["score"] + own * event["score"]) / (before + own) if before + own else event["score"]
        last |= {"end_s": event["end_s"], "score": score}
    return found
