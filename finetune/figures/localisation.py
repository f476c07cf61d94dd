"""Figures of found moments: by text (moment retrieval) and by class (temporal action localisation), and a baseline."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...evaluate.measures.intervals import bootstrap
from ...evaluate.measures.localisation import localisation
from ...evaluate.measures.moments import moment_retrieval
from ...evaluate.measures.spans import grounding, overlaps
from ..examples.queries import Queries

RECALL_AT = (0.3, 0.5, 0.7)
"""Overlaps of R@1 and R@5."""
_CANDIDATES = 300  # spans of the train split among which the baseline chooses
_EVERY = 2000  # spans of the train split on which it chooses


def in_seconds(found: Sequence[np.ndarray], *, queries: Queries) -> list[np.ndarray]:
    """Return spans [k,4] (start, end, score, class) of each example with the times in seconds."""
    scale = [np.array([duration, duration, 1.0, 1.0]) for duration in queries.duration]
    return [spans * factor for spans, factor in zip(found, scale, strict=True)]


def moment_figures(found: Sequence[np.ndarray], *, queries: Queries) -> dict[str, Any]:
    """Return the figures of moments asked for by texts, in percent.

    Args:
      found: of each example float64 [k,4], see `TimelinePredictor.head`.
      queries: the examples; each has a span or more.

    Returns:
      `grounding`: of the first true span only, R@1 and R@5 at overlaps above 0.3, 0.5 and 0.7 (2D-TAN, mmaction2), and
      the same `>=` (QVHighlights' reading of a hit), `mIoU`; `moment_retrieval`: MR-R1 and MR-mAP of all true spans and
      by their length (moment_detr); `R1_interval`, the 95 % bootstrap interval of R@1 above 0.5 over clips; `n`.
    """
    seconds = in_seconds(found, queries=queries)
    ids = [f"{i}" for i in range(len(queries))]
    first = [spans[0].tolist() for spans in queries.spans]
    given = [spans[:, :2].tolist() for spans in seconds]
    both = [grounding(given, truth=first, thresholds=RECALL_AT, inclusive=inclusive) for inclusive in (False, True)]
    windows = [{"qid": i, "relevant_windows": spans.tolist()} for i, spans in zip(ids, queries.spans, strict=True)]
    guessed = [
        {"qid": i, "pred_relevant_windows": spans[:, :3].tolist()} for i, spans in zip(ids, seconds, strict=True)
    ]
    hits = np.array([_overlap_of_first(one, truth) > 0.5 for one, truth in zip(given, first, strict=True)], float)
    clusters = queries.record
    interval = bootstrap(100 * hits, clusters=clusters) if len(np.unique(clusters)) > 1 else {}
    return {
        "n": len(queries),
        "grounding": {**both[0], **{key: value for key, value in both[1].items() if ">=" in key}},
        "R1_interval": [interval.get("low"), interval.get("high")],
        "moment_retrieval": moment_retrieval(guessed, truth=windows),
    }


def action_figures(found: Sequence[np.ndarray], *, queries: Queries) -> dict[str, Any]:
    """Return the mAP of labelled spans as ActivityNet computes it, in fractions: see `measures.localisation`.

    Args:
      found: of each clip float64 [k,4], see `TimelinePredictor.head`.
      queries: the clips with their labelled spans.

    Returns:
      `mAP@0.5` ... `mAP@0.95`, `average`, `per_class`, `absent`; `thumos`, the same at overlaps 0.3 to 0.7; `n`.
    """
    names, seconds = queries.labels, in_seconds(found, queries=queries)
    given = {
        f"{i}": [(names[int(label)], start, end, score) for start, end, score, label in spans.tolist()]
        for i, spans in enumerate(seconds)
    }
    truth = {
        f"{i}": [(names[label], *span) for span, label in zip(spans.tolist(), own.tolist(), strict=True)]
        for i, (spans, own) in enumerate(zip(queries.spans, queries.span_labels, strict=True))
    }
    thumos = localisation(given, truth=truth, thresholds=(0.3, 0.4, 0.5, 0.6, 0.7))
    del thumos["per_class"], thumos["absent"]
    return {"n": len(queries), **localisation(given, truth=truth), "thumos": thumos}


def best_guess(train: Queries, *, count: int) -> list[np.ndarray]:
    """Return what a model would say that looks at no clip: of each class the span that suits most of the train split.

    Args:
      train: the examples that are trained on.
      count: for how many examples.

    Returns:
      For each example float64 [C,4]: for each class that occurs, the span (fractions of the clip) whose overlap with
      most true spans of the class exceeds 0.5, and their share of all spans.
    """
    times = [spans / duration for spans, duration in zip(train.spans, train.duration, strict=True)]
    every, label = np.concatenate(times), np.concatenate(train.span_labels)
    guesses, rng = [], np.random.default_rng(0)
    for number in np.unique(label).tolist():
        own = every[label == number]
        chosen = own[rng.permutation(len(own))]
        hits = (overlaps(chosen[:_CANDIDATES], second=chosen[:_EVERY]) > 0.5).mean(axis=1)
        guesses.append((*chosen[hits.argmax()], hits.max() * len(own) / len(every), number))
    table = np.array(sorted(guesses, key=lambda guess: -guess[2]), np.float64)
    return [table] * count


def overlap_of_best(spans: np.ndarray, *, truth: np.ndarray) -> float:
    """Return the overlap of the first found span with the true one that suits it best, 0 where either is missing."""
    return float(overlaps(spans[:1, :2], second=truth).max()) if len(spans) and len(truth) else 0.0


def _overlap_of_first(spans: Sequence[Sequence[float]], truth: Sequence[float]) -> float:
    return float(overlaps(np.array(spans[:1]), second=np.array([truth]))[0, 0]) if len(spans) else 0.0
