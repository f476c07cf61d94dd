"""The page of an explanation: the film, frames with their relevance, what counts when, words, and the checks."""

from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from ..pages.charts import Line, line_chart
from ..pages.drawing import COLOURS, MUTED
from ..pages.markup import Html, join, tag
from ..pages.page import paragraph, section, write_page
from ..pages.tables import Row, Tile, protocol_list, table, tiles
from ..pages.thumbnails import clip_figure, jpeg_uri
from ..pages.timelines import Lane, timeline
from .explain import Explanation, Part
from .heat import beside, top_of

MOST_SHOWN = 32
"""Time steps of which the page shows a frame; of more those of the highest relevance."""
_PARTS = {"frames": "time steps", "patches": "cells", "sound": "sound", "words": "words"}
_BINS = 120  # of the lanes along the clip


def write_explanation(explanation: Explanation, *, out: Path) -> Path:
    """Write `index.html` into a folder that exists; `explain.mp4` is expected next to it. Return its path."""
    shown = {"src": "explain.mp4", "poster": _picture(explanation, 0), "controls": "controls"}
    video = tag("video", **shown, preload="metadata", style="max-width: 100%")
    legend = paragraph(
        "Left: the clip as the model sees it. Right: what speaks for the score (orange) and against it (blue).",
        class_="aside",
    )
    return write_page(
        out / "index.html",
        kind="explanation",
        title=explanation.subject,
        subtitle=f"{explanation.clip.path.name} · {explanation.unit}",
        sections=[
            _tiles(explanation),
            section("The clip", legend, video),
            section("Along the clip", _along(explanation)),
            section("Words", _words(explanation)) if "words" in explanation.parts else Html(),
            section("Frames", tag("div", *_frames(explanation), class_="grid", style=_WIDE_GRID)),
            section("Does it hold?", *_checks(explanation)),
            section("Protocol", protocol_list(explanation.protocol)),
        ],
        footer="The same values are in explain.json.",
    )


_WIDE_GRID = "grid-template-columns: repeat(auto-fill, minmax(230px, 1fr))"


def _tiles(explanation: Explanation) -> Html:
    areas = explanation.parts["patches"].curves.areas()
    shown = [Tile(name=_headline(explanation), value=_number(explanation.value), note=explanation.unit)]
    shown.append(Tile(name="Baseline", value=_number(explanation.nothing), note="everything taken away"))
    for name, note in (("deletion", "cells; lower is better"), ("insertion", "cells; higher is better")):
        random = f"random order {_number(areas[f'random_{name}'])}"
        shown.append(Tile(name=f"{name.capitalize()} AUC", value=_number(areas[name]), note=f"{random} ({note})"))
    return tiles(shown)


def _headline(explanation: Explanation) -> str:
    return "Similarity" if explanation.words else "Prediction"


def _along(explanation: Explanation) -> Html:
    duration = float(explanation.step_edges_s[-1])
    lanes = _lanes("frames", explanation.step_edges_s, explanation.parts["frames"].values, duration_s=duration)
    if explanation.sound_edges_s is not None:
        sound = explanation.parts["sound"].values
        lanes += _lanes("sound", explanation.sound_edges_s, sound, duration_s=duration)
    return timeline("relevance over time", picture=None, lanes=lanes, duration_s=duration)


def _lanes(name: str, edges: np.ndarray, values: np.ndarray, *, duration_s: float) -> list[Lane]:
    """Return a lane of values above 0, and one of values below it if there are any, as shares of the largest."""
    times = (np.arange(_BINS) + 0.5) / _BINS * duration_s
    step = np.searchsorted(edges, times, side="right") - 1
    inside = (step >= 0) & (step < len(values))
    shown = np.where(inside, values[np.clip(step, 0, len(values) - 1)], 0.0) / max(np.abs(values).max(), 1e-12)
    lanes = [Lane(name=name, scores=np.maximum(shown, 0).tolist())]
    if shown.min() < 0:
        lanes.append(Lane(name="against", scores=np.maximum(-shown, 0).tolist(), mark="second"))
    return lanes


def _words(explanation: Explanation) -> Html:
    values = explanation.parts["words"].values
    top = max(float(np.abs(values).max()), 1e-12)
    shown = []
    for word, value in zip(explanation.words, values.tolist(), strict=True):
        colour = "var(--second)" if value > 0 else "var(--third)"
        tint = f"background: color-mix(in srgb, {colour} {round(70 * abs(value) / top)}%, transparent)"
        style = f"{tint}; padding: 2px 5px; border-radius: 4px; white-space: nowrap"
        shown.append(tag("span", word, style=style, title=f"{value:+.4f}"))
    note = "Orange words speak for the score, violet ones against it; the value is a tooltip."
    return tag(
        "div", tag("p", join(shown, by=" "), style="font-size: 20px; line-height: 1.9"), paragraph(note, class_="aside")
    )


def _frames(explanation: Explanation) -> list[Html]:
    clip, values = explanation.clip, explanation.parts["frames"].values
    share = len(clip.video) // len(values)
    kept = sorted(np.argsort(-values, kind="stable")[:MOST_SHOWN].tolist())
    found = []
    for step in kept:
        place = step * share + share // 2
        text = f"relevance {values[step]:+.4f}"
        note = f"{clip.times_s[place]:.2f} s"
        found.append(
            clip_figure(
                _picture(explanation, step), note=note, caption=text, alt=f"frame at {note}, {text}", mark="strip"
            )
        )
    return found


def _picture(explanation: Explanation, step: int) -> str:
    """Return the middle frame of a time step beside its relevance, as a `data:` URI."""
    video, cells = explanation.clip.video, explanation.parts["patches"].values
    share = len(video) // len(cells)
    picture = beside(video[step * share + share // 2], cells=cells[step], top=top_of(cells))
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=88, colorspace="RGB")
    return jpeg_uri(jpeg, side=max(picture.shape[:2]))


def _checks(explanation: Explanation) -> list[Html]:
    charts = [
        tag("figure", tag("h3", _PARTS[name]), _chart(part, name=name, unit=explanation.unit))
        for name, part in explanation.parts.items()
    ]
    rows = [Row(name=_PARTS[name], cells=_areas(part)) for name, part in explanation.parts.items()]
    head = ["method", "deletion", "random order", "insertion", "random order", "gap of completeness"]
    about = paragraph(
        "Parts are removed from the clip (deletion) or added to the baseline (insertion), the most relevant first. A "
        "faithful order makes the deletion curve fall and the insertion curve rise earlier than random orders do; the "
        "bands are one standard deviation of these. Compare areas of one clip, model and baseline only.",
        class_="aside",
    )
    return [about, tag("div", *charts, class_="charts"), table(head, rows=rows)]


def _chart(part: Part, *, name: str, unit: str) -> Html:
    curves, lines = part.curves, []
    for number, which in enumerate(("deletion", "insertion")):
        random = getattr(curves, f"random_{which}")
        mean, spread = random.mean(axis=0), random.std(axis=0, ddof=1)
        band: dict[str, Any] = {"low": mean - spread, "high": mean + spread, "colour": MUTED, "dashed": number == 1}
        lines.append(Line(name=which, x=curves.shares, y=getattr(curves, which), colour=COLOURS[number]))
        lines.append(Line(name="" if number else "random orders", x=curves.shares, y=mean, **band))
    values = np.concatenate([np.concatenate([line.y for line in lines]), [0.0]])
    room = 0.05 * max(float(np.ptp(values)), 1e-6)
    low = float(values.min()) - room if values.min() < 0 else 0.0
    axis = {"xlabel": "share of the parts", "ylabel": unit, "ticks": [0, 0.25, 0.5, 0.75, 1]}
    return line_chart(lines, name=f"curves-{name}", **axis, top=float(values.max()) + room, bottom=low, even=True)


def _areas(part: Part) -> list[str]:
    areas, gap = part.curves.areas(), part.relevance.gap
    cells = [part.relevance.method.replace("_", " ")]
    for name in ("deletion", "insertion"):
        cells.append(_number(areas[name]))
        cells.append(f"{_number(areas[f'random_{name}'])} ± {_number(areas[f'random_{name}_std'])}")
    return [*cells, "" if gap is None else f"{100 * gap:.2f} %"]


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"
