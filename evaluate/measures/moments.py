"""Moments and highlights of QVHighlights, as moment_detr's standalone evaluation computes them (Lei et al. 2021)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from .checks import check_vector
from .spans import THRESHOLDS, check_spans, interpolated_precision, match, overlaps

LENGTHS = {"full": (0.0, np.inf), "short": (0.0, 10.0), "middle": (10.0, 30.0), "long": (30.0, 150.0)}
HIGHLIGHTS = {"Fair": 2, "Good": 3, "VeryGood": 4}
CLIP_SECONDS = 2
KEPT = 10


def moment_retrieval(
    predictions: Sequence[Mapping[str, Any]], *, truth: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return R1 and mAP of moments at overlaps 0.5 … 0.95, for all true windows and for those of a range of lengths.

    R1 looks at the first window listed, whatever its score; its overlap is with the best true window. mAP keeps the
    first ten windows listed, then orders them by score (equal scores as listed). An overlap equal to the threshold
    counts. Ranges of lengths filter the true windows only, so a long prediction is wrong in "short".

    Args:
      predictions: `qid` and `pred_relevant_windows`, a list of [start_s, end_s, score].
      truth: `qid` and `relevant_windows`, a list of [start_s, end_s].

    Returns:
      For each of "full", "short" (up to 10 s), "middle" (up to 30 s) and "long" (up to 150 s): `MR-R1` and `MR-mAP`,
      each threshold (as text) in percent, and "average" in `MR-mAP`; None where no query has such a window.

    Raises:
      UserError: queries of one side only, doubled, or without a window.

    >>> truth = [{"qid": 1, "relevant_windows": [[10, 20]]}]
    >>> found = moment_retrieval([{"qid": 1, "pred_relevant_windows": [[10, 18, 0.9]]}], truth=truth)
    >>> found["full"]["MR-R1"]["0.8"], found["full"]["MR-R1"]["0.85"], found["long"]["MR-R1"]["0.5"]
    (100.0, 0.0, None)
    """
    pairs = []
    for qid, guess, wanted in _pairs(predictions, truth=truth):
        windows = check_spans(wanted["relevant_windows"], name=f"relevant_windows of query {qid!r}")
        if not len(windows):
            raise UserError(f"query {qid!r} has no relevant window; leave it out of the truth and the predictions")
        given = check_spans(guess["pred_relevant_windows"], name=f"windows of query {qid!r}", scored=True)
        pairs.append((given, windows))
    return {name: _of_length(pairs, low=low, high=high) for name, (low, high) in LENGTHS.items()}


def _of_length(
    pairs: list[tuple[np.ndarray, np.ndarray]], *, low: float, high: float
) -> dict[str, dict[str, float | None]]:
    first, precision = [], []
    for given, windows in pairs:
        length = windows[:, 1] - windows[:, 0]
        windows = windows[(length > low) & (length <= high)] if np.isfinite(high) else windows
        if not len(windows):
            continue
        best = overlaps(given[:1, :2], second=windows).max() if len(given) else 0.0
        first.append([best >= threshold for threshold in THRESHOLDS])
        kept = given[:KEPT]
        kept = kept[np.argsort(-kept[:, 2], kind="stable")]
        hits = match(overlaps(kept[:, :2], second=windows), thresholds=THRESHOLDS)
        precision.append([interpolated_precision(row, positives=len(windows)) for row in hits])
    names = [str(threshold) for threshold in THRESHOLDS]
    if not first:
        return {"MR-R1": dict.fromkeys(names), "MR-mAP": dict.fromkeys([*names, "average"])}
    recall, mean = 100 * np.mean(first, axis=0), 100 * np.mean(precision, axis=0)
    average = {"average": float(mean.mean())}
    return {
        "MR-R1": dict(zip(names, recall.tolist(), strict=True)),
        "MR-mAP": dict(zip(names, mean.tolist(), strict=True)) | average,
    }


def highlight_detection(
    predictions: Sequence[Mapping[str, Any]], *, truth: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    """Return mAP and Hit1 of highlights, in percent, for the levels "Fair", "Good" and "VeryGood".

    A video has int(duration / 2) clips; a list of scores is cut or padded with 0 to that length. Hit1 asks whether the
    clip of the first maximum is a highlight for any of the annotators; mAP is the mean over annotators, 0 where an
    annotator marks nothing.

    Args:
      predictions: `qid` and `pred_saliency_scores`, a number per clip of 2 s.
      truth: `qid`, `duration` (s), `relevant_clip_ids` and for each of these `saliency_scores`, a list of annotators.

    Returns:
      For each level `HL-mAP` and `HL-Hit1`.

    >>> truth = [{"qid": 1, "duration": 6, "relevant_clip_ids": [1], "saliency_scores": [[4, 4, 2]]}]
    >>> highlight_detection([{"qid": 1, "pred_saliency_scores": [0.1, 0.9, 0.2]}], truth=truth)["VeryGood"]["HL-Hit1"]
    100.0
    """
    found: dict[str, dict[str, list[float]]] = {name: {"HL-mAP": [], "HL-Hit1": []} for name in HIGHLIGHTS}
    for qid, guess, wanted in _pairs(predictions, truth=truth):
        scores, marks = _saliency(qid, guess=guess, wanted=wanted)
        for name, level in HIGHLIGHTS.items():
            right = marks >= level
            found[name]["HL-Hit1"].append(float(right[scores.argmax()].any()))
            found[name]["HL-mAP"] += [_average_precision(column, scores=scores) for column in right.T]
    return {name: {key: 100 * float(np.mean(row)) for key, row in block.items()} for name, block in found.items()}


def _saliency(qid: Any, *, guess: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Scores [clips] and marks [clips, annotators] of a query."""
    clips = int(wanted["duration"] / CLIP_SECONDS)
    scores = check_vector(guess["pred_saliency_scores"], name=f"pred_saliency_scores of query {qid!r}")[:clips]
    scores = np.concatenate([scores, np.zeros(clips - len(scores))])
    given = np.asarray(wanted["saliency_scores"], dtype=np.float64)
    places = np.asarray(wanted["relevant_clip_ids"], dtype=np.int64)
    if given.ndim != 2 or len(given) != len(places) or not ((places >= 0) & (places < clips)).all():
        raise UserError(
            f"query {qid!r} has {len(places)} relevant clips and saliency_scores of shape {given.shape}; wanted a list "
            f"of annotators for each, and ids from 0 to {clips - 1}"
        )
    marks = np.zeros((clips, given.shape[1]))
    marks[places] = given
    return scores, marks


def _average_precision(right: np.ndarray, *, scores: np.ndarray) -> float:
    """moment_detr's AP: the mean, over the distinct recalls, of the best precision at that recall or a higher one."""
    if right.all() or not right.any():
        return float(right.all())
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # the last place of each score
    found = np.cumsum(right[order])[last]
    precision = np.maximum.accumulate((found / (last + 1))[::-1])[::-1]
    rises = np.diff(np.concatenate([[0], found])) > 0
    return float(precision[rises].mean())


def _pairs(
    predictions: Sequence[Mapping[str, Any]], *, truth: Sequence[Mapping[str, Any]]
) -> list[tuple[Any, Mapping[str, Any], Mapping[str, Any]]]:
    by_id = {one["qid"]: one for one in predictions}
    if not len(truth):
        raise UserError("the truth has no query")
    wanted = {one["qid"]: one for one in truth}
    for name, rows, distinct in (("predictions", predictions, by_id), ("truth", truth, wanted)):
        if len(rows) != len(distinct):
            raise UserError(f"the {name} have {len(rows)} lines for {len(distinct)} queries; wanted one each")
    for qid in [*wanted, *by_id]:
        if qid not in by_id or qid not in wanted:
            side = "predictions" if qid not in by_id else "truth"
            raise UserError(f"query {qid!r} is missing in the {side}; both must be of one split")
    return [(qid, by_id[qid], one) for qid, one in wanted.items()]
