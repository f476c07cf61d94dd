"""Temporal spans: overlap, matching, and grounding of one span per sentence (Charades-STA, TACoS).

Spans are [start_s, end_s]. Papers count a hit where the overlap is greater than a threshold (2D-TAN, mmaction2) or at
least the threshold (QVHighlights): spans that are multiples of a step hit 0.5 and 0.7 exactly, so the two differ.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from .checks import check_same_length

THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))


def check_spans(spans: Any, *, name: str, scored: bool = False) -> np.ndarray:
    """Return spans as float64 [n,2], or [n,3] with scores; n may be 0.

    Raises:
      UserError: not numbers in two (three) columns, a value that is not finite, or a span that ends before it starts.

    >>> check_spans([[1, 2]], name="truth of video 'v1'").tolist()
    [[1.0, 2.0]]
    """
    columns = 3 if scored else 2
    try:
        found = np.asarray(spans, dtype=np.float64).reshape(len(spans), columns)
    except (TypeError, ValueError):
        wanted = "[start_s, end_s, score]" if scored else "[start_s, end_s]"
        raise UserError(f"{name} is {spans!r:.80}; wanted a list of {wanted}") from None
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1) | ~(found[:, 1] >= found[:, 0]))
    if len(bad):
        raise UserError(
            f"{name}: entry {bad[0]} is {found[bad[0]].tolist()}; wanted finite numbers and an end not before the start"
        )
    return found


def overlaps(first: np.ndarray, *, second: np.ndarray, added: float = 0.0) -> np.ndarray:
    """Return the intersection over union of spans [n,2] with spans [m,2], [n,m]; 0 where both have no length.

    `added`, seconds, is added to each union, as some public codes do.

    >>> overlaps(np.array([[0.0, 10.0]]), second=np.array([[5.0, 10.0], [20.0, 30.0]])).tolist()
    [[0.5, 0.0]]
    """
    start = np.maximum(first[:, None, 0], second[None, :, 0])
    end = np.minimum(first[:, None, 1], second[None, :, 1])
    inside = np.maximum(end - start, 0)
    union = (first[:, 1] - first[:, 0])[:, None] + (second[:, 1] - second[:, 0])[None] - inside + added
    return np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)


def suppress(spans: np.ndarray, *, threshold: float) -> np.ndarray:
    """Return the indices that non-maximum suppression keeps of spans [n,2], best first.

    >>> suppress(np.array([[0.0, 10.0], [1.0, 10.0], [20.0, 30.0]]), threshold=0.5).tolist()
    [0, 2]
    """
    overlap = overlaps(spans, second=spans)
    kept: list[int] = []
    for number in range(len(spans)):
        if all(overlap[number, one] <= threshold for one in kept):
            kept.append(number)
    return np.array(kept, dtype=np.int64)


def grounding(
    predicted: Sequence[Any],
    *,
    truth: Sequence[Any],
    at: Sequence[int] = (1, 5),
    thresholds: Sequence[float] = (0.3, 0.5, 0.7),
    inclusive: bool = False,
    nms: float | None = None,
    ids: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return how often one of the first K spans overlaps with the true one, in percent.

    Args:
      predicted: of each sentence, its spans [[start_s, end_s], …], best first; further columns are not looked at.
      truth: of each sentence, its span [start_s, end_s].
      at: each K.
      thresholds: of the overlap.
      inclusive: count an overlap equal to the threshold as a hit (QVHighlights) or not (2D-TAN, mmaction2).
      nms: threshold of non-maximum suppression before the first K are taken; None: none.
      ids: the id of each sentence, for messages; None: its index.

    Returns:
      `R@K,IoU>m` (`>=` if inclusive) for each K and m; `mIoU`, the mean overlap of the first span; `n`.

    >>> found = grounding([[[0, 5]], [[0, 9], [2, 9]]], truth=[[0, 10], [0, 10]], thresholds=[0.5])
    >>> found["R@1,IoU>0.5"], found["mIoU"]
    (50.0, 70.0)
    """
    n = check_same_length(predicted=predicted, truth=truth)
    names = [str(i) for i in range(n)] if ids is None else ids
    check_same_length(predicted=predicted, ids=names)
    sign = ">=" if inclusive else ">"
    hits: dict[str, list[bool]] = {f"R@{k},IoU{sign}{m}": [] for k in at for m in thresholds}
    first = []
    for name, given, wanted in zip(names, predicted, truth, strict=True):
        target = check_spans([wanted], name=f"truth of sentence {name!r}")
        spans = check_spans([list(one)[:2] for one in given], name=f"predicted of sentence {name!r}")
        if nms is not None and len(spans):
            spans = spans[suppress(spans, threshold=nms)]
        overlap = overlaps(spans, second=target)[:, 0]
        first.append(overlap[0] if len(overlap) else 0.0)
        for k in at:
            for m in thresholds:
                hit = overlap[:k] >= m if inclusive else overlap[:k] > m
                hits[f"R@{k},IoU{sign}{m}"].append(bool(hit.any()))
    return {
        **{name: 100 * float(np.mean(values)) for name, values in hits.items()},
        "mIoU": 100 * float(np.mean(first)),
        "n": n,
    }


def match(overlap: np.ndarray, *, thresholds: Sequence[float]) -> np.ndarray:
    """Return which predictions find a true span of their own, bool [thresholds, n].

    In order, each prediction takes the true span with the largest overlap that no earlier one has taken, if the overlap
    is at least the threshold.

    Args:
      overlap: float [n,m], predictions (best first) by true spans.
      thresholds: of the overlap.

    >>> match(np.array([[0.9, 0.6], [0.8, 0.7]]), thresholds=[0.65, 0.75]).tolist()
    [[True, True], [True, False]]
    """
    best = np.argsort(-overlap, axis=1, kind="stable")
    found = np.zeros((len(thresholds), len(overlap)), dtype=bool)
    for row, threshold in enumerate(thresholds):
        taken: set[int] = set()
        for number, order in enumerate(best):
            free = [one for one in order.tolist() if one not in taken and overlap[number, one] >= threshold]
            if free:
                taken.add(free[0])
                found[row, number] = True
    return found


def interpolated_precision(hits: np.ndarray, *, positives: int) -> float:
    """Return the average precision of ranked predictions with VOC's interpolation: precision never rises with recall.

    Args:
      hits: bool [n], best first.
      positives: the number of true spans.

    >>> interpolated_precision(np.array([False, True, True]), positives=2)
    0.6666666666666666
    """
    found = np.cumsum(hits)
    precision = np.concatenate([[0], found / np.arange(1, len(hits) + 1), [0]])
    recall = np.concatenate([[0], found / positives, [1]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(((recall[steps] - recall[steps - 1]) * precision[steps]).sum())
