"""What is written of a film's summary: the film itself, its key frames, and the storyboard, a page to look at."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import simplejpeg

from ...base.errors import UserError
from ...data.manifest import write_whole
from ...data.media.clip import DecodeOptions
from ...data.media.cut import Part, join
from ...data.media.place import DecodeError
from ...data.media.reader import Reader
from ...encode.films.summary import Summary
from ...pages.markup import Html, tag
from ...pages.page import details, section, write_page
from ...pages.tables import Tile, protocol_list, tiles
from ...pages.thumbnails import clip_figure, jpeg_uri
from ...pages.timelines import Lane, clock, timeline

MOST_SHOWN = 240
"""Shots of which the storyboard shows a frame; of longer films the best ones."""
LONGEST_PART_S = 600.0
"""Neighbouring shots are cut together up to this length: a stretch's sound is held in memory."""
_FRAME_S = 0.5  # so much is decoded for a key frame at most


def write_storyboard(
    summary: Summary, *, out: Path, protocol: dict[str, Any], tick: Callable[[str], object] = lambda _: None
) -> dict[str, Any]:
    """Write `summary.mp4`, `keyframes/NUMBER-SECONDS.jpg` of the chosen shots, `summary.json` and `index.html`.

    Args:
      summary: of a film.
      out: folder, made if absent; the key frames of an earlier summary are removed.
      protocol: how it was made, for the page and the JSON.
      tick: called with what is done next, again and again.

    Returns:
      The content of `summary.json`.

    Raises:
      UserError: the film cannot be decoded again, or lies where a file is to be written.
    """
    film, chosen = summary.film.path, summary.chosen
    shown = sorted({*chosen, *summary.values.argsort(kind="stable")[::-1][:MOST_SHOWN].tolist()})
    (out / "keyframes").mkdir(parents=True, exist_ok=True)
    for old in (out / "keyframes").glob("*.jpg"):
        old.unlink()
    names: dict[int, str] = {}
    pictures: dict[int, bytes] = {}
    try:
        for number in shown:
            tick("key frames")
            time = _representative(summary, number)
            pictures[number] = _frame(film, time_s=time)
            if number in chosen:
                names[number] = f"keyframes/{len(names) + 1:03d}-{time:.2f}.jpg"
                (out / names[number]).write_bytes(pictures[number])
        join(stretches(summary), out=out / "summary.mp4", tick=lambda _: tick("summary.mp4"))
    except DecodeError as error:
        raise UserError(f"{film} cannot be cut: {error}") from error
    whole = {"path": str(film), **summary.to_dict(), "protocol": protocol}
    for number, name in names.items():
        whole["shots"][number]["keyframe"] = name
    write_whole(out / "summary.json", parts=[json.dumps(whole, indent=1, ensure_ascii=False) + "\n"])
    _write_page(summary, out=out, names=names, pictures=pictures, protocol=protocol)
    return whole


def _representative(summary: Summary, number: int) -> float:
    """Return the time of the frame that stands for a shot, in seconds: the middle of its best moment."""
    edges, best = summary.film.edges_s, int(summary.best[number])
    start, end = summary.shots[number]
    middle = float(edges[best] + edges[best + 1]) / 2
    return middle if start <= middle < end else float(start + end) / 2


def _frame(path: Path, *, time_s: float) -> bytes:
    """Return the frame on display at a time as JPEG, in the film's own size."""
    options = DecodeOptions(fps=None, short_side=0, audio=False)
    frames = iter(Reader(path, options=options, start_s=time_s, end_s=time_s + _FRAME_S))
    _, rgb = next(frames)
    frames.close()  # pyright: ignore[reportAttributeAccessIssue] - a generator
    return simplejpeg.encode_jpeg(rgb.copy(order="C"), quality=90, colorspace="RGB", colorsubsampling="420")


def stretches(summary: Summary) -> list[Part]:
    """Return the chosen shots as stretches of the film; neighbours are one stretch, up to `LONGEST_PART_S`."""
    parts: list[Part] = []
    for number in summary.chosen:
        start, end = summary.shots[number].tolist()
        last = parts[-1] if parts else None
        if last and abs(last.end_s - start) < 1e-6 and end - last.start_s <= LONGEST_PART_S:
            start = parts.pop().start_s
        parts.append(Part(source=summary.film.path, start_s=start, end_s=end))
    return parts


def _write_page(
    summary: Summary, *, out: Path, names: dict[int, str], pictures: dict[int, bytes], protocol: dict[str, Any]
) -> None:
    film, seconds = summary.film, summary.film.duration_s
    shown: dict[str, str] = {"src": "summary.mp4", "poster": next(iter(names.values())), "controls": "controls"}
    video = tag("video", **shown, preload="metadata", style="max-width: 100%")
    kept = [_figure(summary, number, src=name, mark="") for number, name in names.items()]
    every = [
        _figure(summary, number, src=jpeg_uri(jpeg, side=200), mark="right" if number in names else "")
        for number, jpeg in pictures.items()
    ]
    most = f"the best {len(every)} of {len(summary.shots)} shots" if len(every) < len(summary.shots) else "all shots"
    write_page(
        out / "index.html",
        kind="summary",
        title=film.path.name,
        subtitle=f"{clock(summary.seconds)} of {clock(seconds)} · {len(names)} of {len(summary.shots)} shots",
        sections=[
            _tiles(summary),
            section("Summary", video),
            section("Along the film", _timeline(summary)),
            section("Key frames", tag("div", *kept, class_="grid")),
            section("Storyboard", details(most, tag("div", *every, class_="grid"))),
            section("Protocol", protocol_list(protocol)),
        ],
        footer="The same values are in summary.json.",
    )


def _tiles(summary: Summary) -> Html:
    whole, share = clock(summary.film.duration_s), 100 * summary.seconds / summary.film.duration_s
    return tiles(
        [
            Tile(name="Summary", value=clock(summary.seconds), note=f"{share:.1f} % of {whole}"),
            Tile(name="Shots", value=f"{len(summary.chosen)}", note=f"of {len(summary.shots)}"),
        ]
    )


def _timeline(summary: Summary) -> Html:
    seconds = summary.film.duration_s
    spans = [(start / seconds, end / seconds) for start, end in summary.shots.tolist()]
    words = [f"score {value:.2f}" for value in summary.values]
    every = [(*span, text) for span, text in zip(spans, words, strict=True)]
    top = max(float(summary.values.max()), 1e-9)
    lanes = [
        Lane(name="scores", scores=_along(summary.scores / top)),
        Lane(name="shots", spans=every, mark="second"),
        Lane(name="kept", spans=[every[number] for number in summary.chosen]),
    ]
    return timeline("scores of moments, shots, and those that are kept", picture=None, lanes=lanes, duration_s=seconds)


def _along(scores: Any) -> list[float]:
    """Return at most 400 values for the page: means of equal parts."""
    count = min(len(scores), 400)
    edges = [len(scores) * i // count for i in range(count + 1)]
    return [float(min(1.0, scores[a:b].mean())) for a, b in itertools.pairwise(edges)]


def _figure(summary: Summary, number: int, *, src: str, mark: str) -> Html:
    start, end = summary.shots[number]
    note = f"{clock(start)} to {clock(end)}"
    text = f"shot {number + 1}, score {summary.values[number]:.2f}"
    return clip_figure(src, note=note, caption=text, alt=f"frame of {text}", mark=mark)
