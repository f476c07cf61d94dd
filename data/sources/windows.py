"""Windows of time in annotation files: corrected or refused, and cut from a longer video."""

import dataclasses

from ..manifest import Clip
from .source import Annotations

_ROUNDING_S = 0.011  # a window that ends so much after the video ends with it; files give times to 0.01 s


def cut_from(clip: Clip, *, path: str, start_s: float | None = None, end_s: float | None = None) -> Clip:
    """Return a clip that is a whole file as a window of another file; its sentences and spans move with it.

    Args:
      clip: the clip.
      path: the other file's name without suffix.
      start_s: where the clip's file begins in the other file, in seconds; None = it is the same video.
      end_s: where it ends.
    """
    if start_s is None:
        return dataclasses.replace(clip, path=path)
    sentences = tuple(sentence.moved(start_s) for sentence in clip.sentences)
    spans = tuple(
        dataclasses.replace(span, start_s=span.start_s + start_s, end_s=span.end_s + start_s) for span in clip.spans
    )
    window = {"start_s": start_s, "end_s": end_s}
    return dataclasses.replace(clip, path=path, **window, sentences=sentences, spans=spans)


def mended(start_s: float, end_s: float, *, duration_s: float | None, found: Annotations) -> tuple[float, float] | None:
    """Return a window as it can be used, for published files with known faults; all changes are counted.

    Args:
      start_s: start of the window, in seconds.
      end_s: its end; before the start, the two are taken to be swapped.
      duration_s: the video's length; None where the file does not say it.
      found: whose notes count what was changed.

    Returns:
      The window, or None if nothing is left of it.
    """
    if start_s > end_s:
        start_s, end_s = end_s, start_s
        found.notes["windows whose start and end were swapped"] += 1
    if start_s < 0:
        start_s = 0.0
        found.notes["windows that started before 0"] += 1
    if duration_s is not None and end_s > duration_s:
        if end_s > duration_s + _ROUNDING_S:
            found.notes["windows cut at the end of the video"] += 1
        end_s = duration_s
    if end_s <= start_s:
        found.notes["windows without length left out"] += 1
        return None
    return start_s, end_s


def trimmed_name(clip_id: str) -> tuple[str, float, float] | None:
    """Split `ID_START_END` into the video and the window in seconds; None if the name is not of that form.

    >>> trimmed_name("a_b_000012_000022"), trimmed_name("x_60.0_210.0"), trimmed_name("x_y_z")
    (('a_b', 12.0, 22.0), ('x', 60.0, 210.0), None)
    """
    video, *window = clip_id.rsplit("_", 2)
    if not video or len(window) < 2 or not all(_is_number(text) for text in window):
        return None
    start_s, end_s = map(float, window)
    return (video, start_s, end_s) if start_s < end_s else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.replace(".", "", 1).isdigit()
