"""How much each moment of a clip is a highlight: marks from spans or annotators, figures, and a baseline."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from ...encode.films.moments import at_moments
from ...encode.predict.timeline import moments_in
from ...evaluate.measures.moments import CLIP_SECONDS, highlight_detection
from ..examples.clips import Row
from ..examples.queries import Queries

BEST = 4.0
"""The highest mark, QVHighlights' "very good"."""


def marks_of(queries: Queries, *, rows: Sequence[Row], seconds: float, highest: float) -> list[np.ndarray]:
    """Return the marks of the moments of each example, float64 [moments, annotators], 0..4.

    Where the clip has `meta.saliency` and `meta.relevant_clip_ids` (QVHighlights), these are the marks; they are of
    moments of 2 s, as many as `meta.duration_s` has where that is no more than 2 s off: a file of 149.98 s has the
    75 moments of 150 s that its annotators saw. Otherwise a moment whose middle a span contains has the mark
    4 * score / `highest`, the best of several, and 4 for a span without a score; all others have 0.

    Args:
      queries: the examples.
      rows: lines of `clips.jsonl` of their split.
      seconds: length of a moment.
      highest: the score of a span that is worth 4.

    Raises:
      UserError: annotators' marks for moments of another length, or out of the clip; a score not from 0 to `highest`.
    """
    found = []
    for number, record in enumerate(queries.record.tolist()):
        row, duration = rows[record], float(queries.duration[number])
        meta = row.get("meta") or {}
        if "saliency" in meta and "relevant_clip_ids" in meta:
            seen = _seen_by_annotators(meta, duration_s=duration)
            found.append(_annotated(row, count=moments_in(seen, seconds=seconds), seconds=seconds))
            continue
        count = moments_in(duration, seconds=seconds)
        middle = (np.arange(count) + 0.5) * duration / count
        marks = np.zeros(count)
        for (start, end), score in zip(queries.spans[number], queries.span_scores[number], strict=True):
            mark = BEST if np.isnan(score) else BEST * score / highest
            if not 0 <= mark <= BEST:
                raise UserError(
                    f"clip {row['clip_id']!r} has a span of score {score:g}; config.task.highest_score={highest:g} "
                    "must be the highest score of the data, and 0 the lowest"
                )
            inside = (middle >= start) & (middle < end)
            marks[inside] = np.maximum(marks[inside], mark)
        found.append(marks[:, None])
    return found


def _seen_by_annotators(meta: Mapping[str, Any], *, duration_s: float) -> float:
    """Return how long the clip was to its annotators: what they say, unless the file is another length altogether."""
    stated = meta.get("duration_s")
    if not isinstance(stated, int | float) or abs(stated - duration_s) > CLIP_SECONDS:
        return duration_s
    return float(stated)


def _annotated(row: Row, *, count: int, seconds: float) -> np.ndarray:
    given = np.asarray(row["meta"]["saliency"], np.float64)
    places = np.asarray(row["meta"]["relevant_clip_ids"], np.int64)
    if seconds != CLIP_SECONDS or given.ndim != 2 or len(given) != len(places):
        raise UserError(
            f"clip {row['clip_id']!r} has annotators' marks (meta.saliency, shape {given.shape}) of moments of "
            f"{CLIP_SECONDS} s for {len(places)} moments; set config.task.moment_seconds={CLIP_SECONDS}, and give a "
            "list of marks for each moment"
        )
    if len(places) and not (places.min() >= 0 and places.max() < count):
        raise UserError(
            f"clip {row['clip_id']!r}: meta.relevant_clip_ids has {places.max()}, and the clip has {count} moments"
        )
    marks = np.zeros((count, given.shape[1] if len(given) else 1))
    marks[places] = given
    return marks


def step_targets(marks: Sequence[np.ndarray], *, steps: int) -> np.ndarray:
    """Return the mean mark over annotators of the moment at each time step's middle, as a share of 4: float32 [q,T]."""
    made = np.zeros((len(marks), steps), np.float32)
    middle = (np.arange(steps) + 0.5) / steps
    for row, own in zip(made, marks, strict=True):
        place = np.minimum((middle * len(own)).astype(int), len(own) - 1)
        row[:] = own.mean(axis=1)[place] / BEST
    return made


def highlight_figures(found: Sequence[np.ndarray], *, marks: Sequence[np.ndarray]) -> dict[str, Any]:
    """Return HL-mAP and HL-Hit1 of the levels Fair, Good and VeryGood in percent, as moment_detr computes them.

    Args:
      found: of each example float64 [T], scores of the time steps.
      marks: of each example [moments, annotators], see `marks_of`.

    Returns:
      `levels`: see `evaluate.measures.moments.highlight_detection`; `chance`, the share of moments with a mark of 4 by
      any annotator, which a random moment hits; `n`.
    """
    truth, guessed = [], []
    for i, (scores, own) in enumerate(zip(found, marks, strict=True)):
        places = np.flatnonzero(own.any(axis=1))
        whole = {"qid": i, "duration": CLIP_SECONDS * len(own), "relevant_clip_ids": places.tolist()}
        truth.append(whole | {"saliency_scores": own[places].tolist() or np.zeros((0, own.shape[1]))})
        guessed.append({"qid": i, "pred_saliency_scores": at_moments(scores, moments=len(own)).tolist()})
    return {
        "n": len(marks),
        "levels": highlight_detection(guessed, truth=truth),
        "chance": 100 * float(np.mean([(own >= BEST).any(axis=1).mean() for own in marks])),
    }
