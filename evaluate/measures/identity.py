"""Verification of identity from pairs: ROC figures, EER in both rules, FAR tables, minDCF, and LFW's ten folds."""

from typing import Any

import numpy as np

from ...base.errors import UserError
from .checks import check_numbers, check_vector

FAR = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def verification(scores: np.ndarray, *, same: np.ndarray, far: tuple[float, ...] = FAR) -> dict[str, Any]:
    """Return the figures of pairs scored by similarity, fractions.

    Args:
      scores: float [n], higher for pairs of one identity.
      same: bool [n].
      far: the false-accept rates.

    Returns:
      `auc`; `eer`, where the interpolated curve has FPR = FNR (facenet); `eer_nearest`, max(FPR, FNR) at the point of
      the curve where they are closest (voxceleb_trainer); `tar` per rate, the largest TPR with FPR ≤ rate;
      `tar_nearest`, the largest TPR where FPR is closest to the rate, and may exceed it (insightface's IJB table);
      `min_dcf` (p = 0.05); `smallest_far`, 1 / pairs of two identities: below it a rate means "no false accept"; `n`.

    >>> found = verification(np.array([0.9, 0.8, 0.7, 0.1]), same=np.array([True, False, True, False]), far=(0.5,))
    >>> found["auc"], found["eer"], found["tar"]["0.5"]
    (0.75, 0.5, 1.0)
    """
    scores, same = _check(scores, same=same)
    fpr, tpr = roc(scores, same=same)
    fnr, nearest = 1 - tpr, int(np.abs(1 - tpr - fpr).argmin())
    return {
        "auc": float(np.trapezoid(tpr, fpr)),
        "eer": _crossing(fpr, fnr=fnr),
        "eer_nearest": float(max(fpr[nearest], fnr[nearest])),
        "tar": {f"{rate:g}": float(tpr[fpr <= rate].max()) for rate in far},
        "tar_nearest": {f"{rate:g}": float(tpr[np.abs(fpr - rate) == np.abs(fpr - rate).min()].max()) for rate in far},
        "min_dcf": float((0.05 * fnr + 0.95 * fpr).min() / 0.05),
        "smallest_far": float(1 / (~same).sum()),
        "n": len(scores),
    }


def far_table(scores: np.ndarray, *, same: np.ndarray, far: tuple[float, ...] = (1e-1, 1e-2, 1e-3)) -> dict[str, Any]:
    """Return voxceleb_trainer's table: the point of the curve whose false-accept rate is nearest to each rate.

    The rate at the point may be above the one asked for; below half of 1 / pairs of two identities the point is the
    first one, where nothing is accepted. `tar` of `verification` keeps the rate. Points on a straight line between two
    others are no points of its curve (scikit-learn's `roc_curve`), and of equally near ones the first counts.

    Args:
      scores: as in `verification`.
      same: as in `verification`.
      far: the rates.

    Returns:
      Rate -> `threshold` (None where nothing is accepted), `fpr` and `fnr`, fractions.

    >>> far_table(np.array([0.9, 0.8, 0.7, 0.1]), same=np.array([True, False, True, False]), far=(0.4,))
    {'0.4': {'threshold': 0.8, 'fpr': 0.5, 'fnr': 0.5}}
    """
    scores, same = _check(scores, same=same)
    fpr, tpr = roc(scores, same=same)
    thresholds = np.concatenate([[np.inf], np.unique(scores)[::-1]])
    bent = (np.abs(np.diff(fpr[1:], 2)) > 1e-12) | (np.abs(np.diff(tpr[1:], 2)) > 1e-12)
    kept = np.concatenate([[True, True], bent, [True]]) if len(fpr) > 3 else np.ones(len(fpr), bool)
    table = {}
    for rate in far:
        at = np.flatnonzero(kept)[np.abs(fpr[kept] - rate).argmin()]
        threshold = None if np.isinf(thresholds[at]) else float(thresholds[at])
        table[f"{rate:g}"] = {"threshold": threshold, "fpr": float(fpr[at]), "fnr": float(1 - tpr[at])}
    return table


def roc(scores: np.ndarray, *, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the false- and true-positive rates over all distinct thresholds, from (0, 0) to (1, 1).

    >>> [rate.tolist() for rate in roc(np.array([0.9, 0.5, 0.5]), same=np.array([True, True, False]))]
    [[0.0, 0.0, 1.0], [0.0, 0.5, 1.0]]
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits, misses = np.cumsum(same[order])[last], np.cumsum(~same[order])[last]
    return np.concatenate([[0], misses / (~same).sum()]), np.concatenate([[0], hits / same.sum()])


def _check(scores: np.ndarray, *, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores = check_vector(scores, name="scores")
    same = check_vector(same, name="same", length=len(scores), of="scores") > 0
    if same.all() or not same.any():
        raise UserError(f"{int(same.sum())} of {len(same)} pairs are of one identity; the figures need both kinds")
    return scores, same


def _crossing(fpr: np.ndarray, *, fnr: np.ndarray) -> float:
    after = int(np.argmax(fpr >= fnr))  # the curve starts at (0, 1) and ends at (1, 0)
    width = fpr[after] - fpr[after - 1] - (fnr[after] - fnr[after - 1])
    share = (fnr[after - 1] - fpr[after - 1]) / width
    return float(fpr[after - 1] + share * (fpr[after] - fpr[after - 1]))


def ten_folds(first: np.ndarray, *, second: np.ndarray, same: np.ndarray, folds: int = 10) -> dict[str, float]:
    """Return LFW's accuracy: the best threshold on nine folds, counted on the tenth, in file order (insightface).

    Args:
      first: float [n,E]; normalised here.
      second: float [n,E]; normalised here.
      same: bool [n].
      folds: of consecutive pairs.

    Returns:
      `accuracy` and `std` over the folds, fractions; `n`.

    >>> rows = np.tile(np.array([[1.0, 0.0]]), (4, 1))
    >>> other = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    >>> ten_folds(rows, second=other, same=np.array([True, False, True, False]), folds=2)["accuracy"]
    1.0
    """
    a, b = (check_numbers(rows, name=name, dimensions=2) for name, rows in (("first", first), ("second", second)))
    if a.shape != b.shape or len(same) != len(a) or not 2 <= folds <= len(a):
        raise UserError(
            f"'first' is {a.shape}, 'second' {b.shape}, 'same' {len(same)} long and folds {folds}; wanted pairs of one "
            "width, a truth for each, and from 2 folds to one per pair"
        )
    lengths = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in (a, b)]
    for name, length in zip(("first", "second"), lengths, strict=True):
        bad = np.flatnonzero(~(np.isfinite(length[:, 0]) & (length[:, 0] > 0)))
        if len(bad):
            raise UserError(f"row {bad[0]} of {name!r} is zero or not finite; encode it again or leave the pair out")
    distance = ((a / lengths[0] - b / lengths[1]) ** 2).sum(axis=1)
    right = (distance[:, None] < np.arange(0, 4, 0.01)) == np.asarray(same, dtype=bool)[:, None]  # [n, thresholds]
    found = []
    for fold in np.array_split(np.arange(len(a)), folds):
        best = np.delete(right, fold, axis=0).mean(axis=0).argmax()
        found.append(right[fold, best].mean())
    return {"accuracy": float(np.mean(found)), "std": float(np.std(found)), "n": len(a)}
