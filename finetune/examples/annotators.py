"""What annotators say of a film: the importance of its parts (TVSum), or the stretches that they would keep (SumMe)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from .clips import Row

FIELDS = ("importance", "summaries")
"""Fields of a clip's `meta`; where a clip has both, scores come from the first, and summaries from the second."""
PART_S = 0.5
"""Length of the parts of a film at which annotators' stretches are compared with scores."""
_SLACK_S = 0.1  # by which a stretch may end after the film


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotations:
    """What u annotators say of a film.

    Attributes:
      scores: float64 [u,p], of p equal parts of the film, the higher the more important.
      summaries: of each annotator float64 [m,2], start and end in seconds of what is kept; None if only scores are
        known.
    """

    scores: np.ndarray
    summaries: tuple[np.ndarray, ...] | None

    @property
    def mean(self) -> np.ndarray:
        """The mean score of each part, scaled to 0..1 within the film; 0.5 where all are alike. float64 [p]."""
        mean = self.scores.mean(axis=0)
        low, high = float(mean.min()), float(mean.max())
        return (mean - low) / (high - low) if high > low else np.full(len(mean), 0.5)

    def kept(self, times_s: np.ndarray) -> np.ndarray | None:
        """Return which times [k] (seconds) each annotator's summary contains, bool [u,k]; None without summaries."""
        if self.summaries is None:
            return None
        return np.stack([_inside(times_s, spans) for spans in self.summaries])


def annotations_of(row: Row) -> Annotations:
    """Read what annotators say of a clip.

    Args:
      row: a line of `clips.jsonl` whose `meta` has `importance`, a list of numbers for each annotator, all of one
        length (scores of equal parts of the clip); or `summaries`, for each annotator a list of [start_s, end_s].

    Raises:
      UserError: other values; names the clip and the field.
    """
    meta, duration = row.get("meta") or {}, float(row["duration_s"])
    summaries = _summaries(row, meta["summaries"], duration_s=duration) if "summaries" in meta else None
    if "importance" in meta:
        return Annotations(scores=_importance(row, meta["importance"]), summaries=summaries)
    assert summaries is not None, "such clips take no part"
    middle = (np.arange(parts := max(1, round(duration / PART_S))) + 0.5) * duration / parts
    kept = np.stack([_inside(middle, spans) for spans in summaries])
    return Annotations(scores=kept.astype(np.float64), summaries=summaries)


def step_targets(annotations: Sequence[Annotations], *, steps: int) -> np.ndarray:
    """Return the mean score at each time step's middle, as `Annotations.mean` has it: float32 [q,steps]."""
    middle = (np.arange(steps) + 0.5) / steps
    return np.stack([one.mean[(middle * one.scores.shape[1]).astype(int)] for one in annotations]).astype(np.float32)


def _inside(times: np.ndarray, spans: np.ndarray) -> np.ndarray:
    return np.any((times[None] >= spans[:, :1]) & (times[None] < spans[:, 1:]), axis=0)


def _importance(row: Row, given: Any) -> np.ndarray:
    lengths = {len(one) for one in given if isinstance(one, (list, tuple))} if isinstance(given, (list, tuple)) else {0}
    found = None
    if len(lengths) == 1 and 0 not in lengths:
        try:
            found = np.array(given, np.float64)
        except (TypeError, ValueError):
            found = None
    if found is None or found.ndim != 2 or not np.isfinite(found).all():
        raise UserError(
            f"clip {row['clip_id']!r}: meta.importance must have for each annotator a list of numbers, the scores of "
            f"equal parts of the clip, all of one length; got {' and '.join(map(str, sorted(lengths))) or 'no'} numbers"
        )
    return found


def _summaries(row: Row, given: Any, *, duration_s: float) -> tuple[np.ndarray, ...]:
    try:
        found = tuple(np.array(spans, np.float64).reshape(-1, 2) for spans in given)
    except (TypeError, ValueError):
        found = ()
    for spans in found:
        inside = (spans >= 0).all() and (spans <= duration_s + _SLACK_S).all()
        if not (inside and (spans[:, 1] > spans[:, 0]).all()):
            raise UserError(
                f"clip {row['clip_id']!r} of {duration_s:g} s: meta.summaries has a stretch that is none of it "
                f"({spans.tolist()}); wanted [start_s, end_s] within the clip"
            )
    if not found:
        raise UserError(
            f"clip {row['clip_id']!r}: meta.summaries must be a list for each annotator, of [start_s, end_s] each"
        )
    return found
