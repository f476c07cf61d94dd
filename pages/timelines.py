"""Examples along time: a strip of frames, and below it lanes with spans or scores on the same scale."""

import dataclasses
from collections.abc import Sequence

from .markup import Html, tag


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lane:
    """A line below the frames.

    Attributes:
      name: stands before it.
      spans: (start, end, words), fractions of the clip; the words are a tooltip.
      scores: of equal parts of the clip, 0..1, drawn as bars; () for none.
      mark: class of the bars: "truth", or "" for what a model found.
    """

    name: str
    spans: Sequence[tuple[float, float, str]] = ()
    scores: Sequence[float] = ()
    mark: str = ""


def timeline(title: str, *, picture: str | None, lanes: Sequence[Lane], duration_s: float, note: object = "") -> Html:
    """Return one example.

    Args:
      title: such as the query, or the clip's name.
      picture: frames evenly spread over the clip, side by side, relative to the page; None for none.
      lanes: below it.
      duration_s: of the clip.
      note: a line about it; escaped unless `Html`.
    """
    strip = tag("img", src=picture, alt=f"frames of {title}", loading="lazy", decoding="async") if picture else ""
    rows = [tag("div", tag("span"), strip, class_="lane")] if picture else []
    rows += [tag("div", tag("span", lane.name), _track(lane, duration_s=duration_s), class_="lane") for lane in lanes]
    ends = tag("span", tag("span", "0"), tag("span", f"{duration_s:.1f} s"), class_="ends")
    head = tag("figcaption", tag("b", title), " ", tag("span", note, class_="note") if note else "")
    return tag("figure", head, *rows, tag("div", tag("span"), ends, class_="lane"), class_="timeline")


def clock(seconds: float) -> str:
    """Return a time as people read it.

    >>> clock(7.25), clock(3723)
    ('0:07.2', '1:02:03.0')
    """
    tenths = int(10 * seconds + 1e-6)
    hours, minutes = tenths // 36_000, tenths // 600 % 60
    rest = f"{tenths % 600 // 10:02}.{tenths % 10}"
    return f"{hours}:{minutes:02}:{rest}" if hours else f"{minutes}:{rest}"


def _track(lane: Lane, *, duration_s: float) -> Html:
    parts = [
        tag(
            "i",
            title=f"{start * duration_s:.2f} to {end * duration_s:.2f} s {words}".strip(),
            style=f"left: {100 * start:.2f}%; width: {100 * (end - start):.2f}%",
        )
        for start, end, words in lane.spans
    ]
    width = 100 / max(len(lane.scores), 1)
    parts += [
        tag(
            "i",
            title=f"{score:.2f}",
            style=f"left: {number * width:.2f}%; width: {width:.2f}%; height: {100 * score:.1f}%",
        )
        for number, score in enumerate(lane.scores)
    ]
    kind = "track tall" if lane.scores else "track"
    return tag("span", *parts, class_=f"{kind} {lane.mark}".rstrip())
