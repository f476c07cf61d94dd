"""Cut lists of the found stretches for editing programs: EDL (CMX 3600) and OpenTimelineIO."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...base.errors import UserError
from .engine import Hit, Span

_DEFAULT_FPS = 25.0
_LONGEST_NAME = 60  # characters of a title


def _cuts(hits: Sequence[Hit]) -> Iterator[tuple[Hit, Span]]:
    """Yield the stretches of films, best file first, in order of time within a file; pictures have none."""
    for hit in hits:
        if hit.file.fps:
            for span in sorted(hit.spans, key=lambda span: span.start_s):
                yield hit, span


def edl_text(hits: Sequence[Hit], *, title: str) -> str:
    """Return an edit decision list in the format CMX 3600, one event for each stretch, one after another.

    Time codes count frames of the first film's rate, without drop frames.
    """
    cuts = list(_cuts(hits))
    fps = cuts[0][0].file.fps or _DEFAULT_FPS if cuts else _DEFAULT_FPS
    lines = [f"TITLE: {_line(title)[:_LONGEST_NAME]}", "FCM: NON-DROP FRAME", ""]
    record = 0
    for number, (hit, span) in enumerate(cuts, start=1):
        first, last = round(span.start_s * fps), max(round(span.end_s * fps), round(span.start_s * fps) + 1)
        tracks = "AA/V" if hit.file.has_audio else "V"
        times = (first, last, record, record + last - first)
        codes = " ".join(timecode(frame, fps=fps) for frame in times)
        lines.append(f"{number:03d}  AX       {tracks:<5} C        {codes}")
        lines.append(f"* FROM CLIP NAME: {_line(Path(hit.file.path).name)}")
        lines.append(f"* SOURCE FILE: {_line(hit.file.path)}")
        lines.append(f"* COMMENT: SCORE {span.score:.4f}")
        record = times[3]
    return "\n".join(lines) + "\n"


def timecode(frame: int, *, fps: float) -> str:
    """Return a time code HH:MM:SS:FF without drop frames.

    >>> timecode(3723 * 25 + 7, fps=25.0)
    '01:02:03:07'
    """
    base = max(1, round(fps))
    seconds, rest = divmod(frame, base)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}:{rest:02}"


def otio_text(hits: Sequence[Hit], *, title: str) -> str:
    """Return a timeline of OpenTimelineIO: a video track with a clip for each stretch, in frames of its own file.

    Raises:
      UserError: OpenTimelineIO is not installed.
    """
    try:
        import opentimelineio as otio  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(".otio needs OpenTimelineIO: pip install 'twinreel[serve]'; .edl needs nothing") from error
    time, span_of = otio.opentime.RationalTime, otio.opentime.TimeRange
    timeline = otio.schema.Timeline(name=title)
    track = otio.schema.Track(name="found", kind=otio.schema.TrackKind.Video)
    timeline.tracks.append(track)
    for hit, span in _cuts(hits):
        fps = hit.file.fps or _DEFAULT_FPS
        first, last = round(span.start_s * fps), max(round(span.end_s * fps), round(span.start_s * fps) + 1)
        whole = max(round((hit.file.duration_s or span.end_s) * fps), last)
        reference = otio.schema.ExternalReference(
            target_url=Path(hit.file.path).as_uri(), available_range=span_of(time(0, fps), time(whole, fps))
        )
        clip = otio.schema.Clip(
            name=Path(hit.file.path).name,
            media_reference=reference,
            source_range=span_of(time(first, fps), time(last - first, fps)),
            metadata={"twinreel": {"score": span.score}},
        )
        track.append(clip)
    return timeline.to_json_string(indent=2) + "\n"


def _line(text: str) -> str:
    """Return a text on one line."""
    return " ".join(text.split())
