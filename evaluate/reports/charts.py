"""The charts of the retrieval report."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...pages.charts import (
    COLOURS,
    MUTED,
    Counts,
    Line,
    Panel,
    bar_chart,
    curves,
    heat_map,
    histogram,
    interval_chart,
    line_chart,
)
from ...pages.markup import Html
from ..measures.ranks import Ranks, recall_at
from ..protocols.minimal_pairs import CHANCE

_BINS = ((1, 1), (2, 5), (6, 10), (11, 50), (51, 100), (101, None))
RANK_TICKS = (1, 5, 10, 50, 100, 500, 1000, 5000)
"""Labelled values of an axis of K."""


def recall_curves(*, text_to_video: Ranks, video_to_text: Ranks, videos: int) -> Html:
    """Draw recall at K over K for both directions, with a band from worst to best case of the ties, and chance."""
    ks = np.unique(np.geomspace(1, videos, 60).round().astype(int))
    lines = []
    for ranks, name, colour in (
        (text_to_video, "text to video", COLOURS[0]),
        (video_to_text, "video to text", COLOURS[1]),
    ):
        low = high = None
        if ranks.equal.any():
            low, high = (100 * (rank[:, None] <= ks).mean(axis=0) for rank in (ranks.pessimistic, ranks.optimistic))
        expected = [recall_at(ranks, k=int(k)) for k in ks]
        lines.append(Line(name=name, x=ks, y=expected, low=low, high=high, colour=colour))
    lines.append(Line(name="chance", x=ks, y=100 * ks / videos, colour=MUTED, dotted=True))
    ticks = [k for k in RANK_TICKS if k <= videos]
    return line_chart(lines, name="recall", xlabel="K", ylabel="R@K, %", ticks=ticks, top=102)


def rank_histogram(*, text_to_video: Ranks, video_to_text: Ranks) -> Html:
    """Draw the share of queries whose right answer is at rank 1, 2-5, 6-10, ... in both directions."""
    worst = max(text_to_video.expected.max(), video_to_text.expected.max())
    bins = [(low, high) for low, high in _BINS if low <= worst]
    shares = {}
    for ranks, name in ((text_to_video, "text to video"), (video_to_text, "video to text")):
        at = np.ceil(ranks.expected)  # a rank of 1.5 (one tie) is past 1, so it belongs to the next bin
        shares[name] = [100 * float(((at >= low) & (at <= (high or np.inf))).mean()) for low, high in bins]
    names = [str(low) if low == high else f"{low}–{high}" if high else f"{low}+" for low, high in bins]
    return bar_chart(shares, categories=names, name="ranks", xlabel="rank of the right answer", ylabel="queries, %")


def cosine_map(similarity: np.ndarray) -> Html:
    """Draw cosines [captions, clips] of the same clips in the same order; right pairs lie on the diagonal."""
    return heat_map(similarity, name="heat", xlabel="clips", ylabel="captions", key="cosine")


def score_histogram(similarity: np.ndarray, *, right: np.ndarray) -> Html:
    """Draw the distributions of the cosines [n,n] of right pairs (bool [n,n], True where right) and of all others."""
    edges = np.linspace(similarity.min(), similarity.max() + 1e-9, 41)
    series = [
        Counts(name=name, counts=np.histogram(similarity[pairs], bins=edges)[0], edges=edges, colour=colour)
        for name, pairs, colour in (("other pairs", ~right, MUTED), ("right pairs", right, COLOURS[0]))
    ]
    return histogram(series, name="scores", xlabel="cosine", ylabel="pairs, %", size=(5.2, 4.4))


def minimal_pair_chart(pairs: dict[str, dict[str, float]]) -> Html:
    """Draw the accuracy on minimal pairs with its confidence interval for each attribute, best first, and chance."""
    ordered = sorted(pairs.items(), key=lambda item: -item[1]["accuracy"])
    values = {name: (one["accuracy"], one["low"], one["high"]) for name, one in ordered}
    return interval_chart(values, name="pairs", xlabel="caption above its foil, %", chance=CHANCE)


def training_curves(history: Sequence[dict[str, Any]]) -> Html:
    """Draw loss, `scale` and R@1 over the steps of `metrics.jsonl`; "" if it has none of them."""
    panels = []
    for title, kind, ending, colour in (
        ("loss, nats", "train", "loss", COLOURS[0]),
        ("scale (1 / temperature)", "train", "scale", COLOURS[0]),
        ("validation R@1, %", "eval", "t2v_R@1", COLOURS[1]),
    ):
        points = {line["step"]: _value(line, ending) for line in history if line.get("kind") == kind}
        known = {step: value for step, value in points.items() if value is not None}
        if known:  # a resumed run writes a step twice: the later line holds
            panels.append(Panel(title=title, points=dict(sorted(known.items())), colour=colour))
    return curves(panels, name="training") if panels else Html()


def _value(line: dict[str, Any], ending: str) -> float | None:
    """The finite number under `ending`, or under a key such as `val/<ending>`."""
    values = [line[key] for key in line if key.split("/")[-1] == ending]
    return values[0] if values and isinstance(values[0], int | float) and math.isfinite(values[0]) else None
