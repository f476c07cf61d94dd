"""The report's charts: matplotlib figures as SVG that takes its colours and its font from the page."""

import io
import re
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .metrics import Ranks, recall_at

# Stand-ins that no chart uses otherwise; each becomes a variable of the page's style, so charts follow light and dark.
_INK, _MUTED, _RULE = "#010101", "#020202", "#030303"
_FIRST, _SECOND = "#040404", "#050505"
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _RULE: "--rule", _FIRST: "--first", _SECOND: "--second"}
_HEAT = "#12858c"
_BINS = ((1, 1), (2, 5), (6, 10), (11, 50), (51, 100), (101, None))
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _MUTED,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "font.size": 9,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": _MUTED,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "text.color": _INK,
    "xtick.color": _RULE,
    "xtick.labelcolor": _MUTED,
    "ytick.color": _RULE,
    "ytick.labelcolor": _MUTED,
}


def recall_curves(*, text_to_video: Ranks, video_to_text: Ranks, videos: int) -> str:
    """Draw recall at K over K for both directions, with the span between lost and won ties, and chance."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.1), layout="constrained")
        axes = figure.add_subplot()
        ks = np.unique(np.geomspace(1, videos, 60).round().astype(int))
        for ranks, name, colour in (
            (text_to_video, "text to video", _FIRST),
            (video_to_text, "video to text", _SECOND),
        ):
            axes.plot(ks, [recall_at(ranks, k=int(k)) for k in ks], color=colour, label=name)
            if ranks.equal.any():
                low, high = [100 * (r[:, None] <= ks).mean(0) for r in (ranks.pessimistic, ranks.optimistic)]
                axes.fill_between(ks, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(ks, 100 * ks / videos, color=_MUTED, linewidth=1, linestyle=(0, (2, 2)), label="chance")
        axes.set(xscale="log", ylim=(0, 102), xlim=(1, max(videos, 2)), xlabel="K", ylabel="R@K, %")
        axes.set_xticks([k for k in (1, 5, 10, 50, 100, 500, 1000, 5000) if k <= videos])
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.minorticks_off()
        axes.grid(axis="y")
        _legend(axes)
        return _svg(figure, name="recall")


def rank_histogram(*, text_to_video: Ranks, video_to_text: Ranks) -> str:
    """Draw which share of the queries has its right answer at rank 1, 2-5, 6-10, ... in both directions."""
    worst = max(text_to_video.expected.max(), video_to_text.expected.max())
    bins = [(low, high) for low, high in _BINS if low <= worst]
    names = [str(low) if low == high else f"{low}–{high}" if high else f"{low}+" for low, high in bins]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.1), layout="constrained")
        axes = figure.add_subplot()
        for shift, ranks, name, colour in (
            (-0.19, text_to_video, "text to video", _FIRST),
            (0.19, video_to_text, "video to text", _SECOND),
        ):
            # A rank of 1.5 (one tie) is past 1, so it belongs to the next bin.
            at = np.ceil(ranks.expected)
            share = [100 * ((at >= low) & (at <= (high or np.inf))).mean() for low, high in bins]
            bars = axes.bar(np.arange(len(bins)) + shift, share, width=0.34, color=colour, label=name)
            axes.bar_label(
                bars, labels=[f"{s:.0f}" if s >= 0.5 else "" for s in share], padding=2, color=_MUTED, size=8
            )
        axes.set_xticks(range(len(bins)), names)
        axes.tick_params(axis="x", length=0)
        axes.set(xlabel="rank of the right answer", ylabel="queries, %")
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        _legend(axes)
        return _svg(figure, name="ranks")


def heat_map(similarity: np.ndarray) -> str:
    """Draw cosines [captions, clips] of the same clips in the same order; right pairs lie on the diagonal."""
    low, high = np.percentile(similarity, 1), max(similarity.max(), np.percentile(similarity, 1) + 1e-6)
    strength = np.clip((similarity - low) / (high - low), 0, 1)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 4.4), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(_tint(strength), interpolation="none")
        axes.set(xlabel="clips", ylabel="captions")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(4, integer=True))
        key = axes.inset_axes((1.04, 0.0, 0.03, 1.0))
        key.imshow(_tint(np.linspace(1, 0, 64)[:, None]), aspect="auto", extent=(0, 1, low, high))
        key.set_xticks([])
        key.yaxis.tick_right()
        key.set_ylabel("cosine")
        key.yaxis.set_label_position("right")
        for part in (axes, key):
            part.spines[:].set_visible(True)
        return _svg(figure, name="heat")


def score_histogram(similarity: np.ndarray) -> str:
    """Draw the distribution of the cosines on the diagonal of [n,n] and of those off it."""
    own = np.eye(len(similarity), dtype=bool)
    edges = np.linspace(similarity.min(), similarity.max() + 1e-9, 41)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 4.4), layout="constrained")
        axes = figure.add_subplot()
        for scores, name, colour in (
            (similarity[~own], "other pairs", _MUTED),
            (similarity[own], "right pairs", _FIRST),
        ):
            share = 100 * np.histogram(scores, bins=edges)[0] / max(1, scores.size)
            axes.stairs(share, edges, color=colour, alpha=0.35, fill=True)
            axes.stairs(share, edges, color=colour, linewidth=1.2, label=name)
        axes.set(xlabel="cosine", ylabel="pairs, %", ylim=(0, None))
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        _legend(axes)
        return _svg(figure, name="scores")


def _legend(axes: Axes) -> None:
    """Name the lines above the plot, where nothing is drawn."""
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, borderpad=0, handlelength=1.6)


def _tint(strength: np.ndarray) -> np.ndarray:
    """One hue whose opacity is the strength in [0, 1]: it reads on a light and on a dark page alike."""
    colour = np.empty((*strength.shape, 4))
    colour[...] = to_rgba(_HEAT)
    colour[..., 3] = strength**1.5
    return colour


def training_curves(history: list[dict[str, Any]]) -> str:
    """Draw loss, `scale` and R@1 over the steps of `metrics.jsonl`; "" if none of them is in it."""
    panels = []
    for title, kind, ending, colour in (
        ("loss, nats", "train", "loss", _FIRST),
        ("scale (1 / temperature)", "train", "scale", _FIRST),
        ("validation R@1, %", "eval", "t2v_R@1", _SECOND),
    ):
        points = {line["step"]: _value(line, ending) for line in history if line.get("kind") == kind}
        points = {step: value for step, value in points.items() if value is not None}
        if points:  # a resumed run writes a step twice: the later line holds
            panels.append((title, dict(sorted(points.items())), colour))
    if not panels:
        return ""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10.6, 2.7), layout="constrained")
        for axes, (title, points, colour) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            _curve(axes, title=title, points=points, colour=colour)
        return _svg(figure, name="training")


def _curve(axes: Axes, *, title: str, points: dict[int, float], colour: str) -> None:
    few = {"marker": "o", "markersize": 3.5} if len(points) <= 30 else {}
    axes.plot(list(points), list(points.values()), color=colour, **few)
    top = max(points.values())  # with room above, or a flat curve lies on the frame
    axes.set(title=title, xlabel="step", ylim=(0, 1.1 * top if top > 0 else None))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.grid(axis="y")
    axes.set_title(f"{list(points.values())[-1]:.3g}", loc="right", color=_MUTED)


def _value(line: dict[str, Any], ending: str) -> float | None:
    """The number under `ending`, or under a key such as `val/<ending>`."""
    names = [key for key in line if key.split("/")[-1] == ending]
    return line[names[0]] if names and isinstance(line[names[0]], int | float) else None


def _svg(figure: Figure, *, name: str) -> str:
    """Return an `<svg>` element to stand inside a page: no fixed size, ids of its own, the page's colours and font."""
    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    # matplotlib names its font as `font: 9px ...` or as `font-family: ...`: either way the page's font takes over.
    text = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", re.sub(r" font-family: [^;\"]+;", "", text))
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text
