"""Figures of several labels, of levels and of numbers, in percent where they are shares."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from ...evaluate.measures import multilabel
from ...evaluate.measures.sentiment import intensity, sims_intensity

KEPT = 20
"""Predictions of a clip that GAP looks at (YouTube-8M)."""


def multilabel_figures(probability: np.ndarray, *, targets: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Return the figures of clips with several labels.

    Args:
      probability: float [n,K].
      targets: 0 or 1, [n,K].
      names: of the classes.

    Returns:
      `mAP` (classes without positives are left out), `mAP_absent_as_zero` (scikit-learn's reading), `micro_AP`; `GAP`
      at 20, `Hit@1` and `PERR` (YouTube-8M; of the clips with a label); `F1` at 1/2; `per_class`: `ap` (None without
      positives) and `n`; `baseline`: mAP of scores that are all equal, the mean prevalence; `n`.
    """
    own = multilabel.class_average_precision(probability, targets=targets)
    listed = targets.any(axis=1)
    prevalence = targets.mean(axis=0)
    return {
        "n": len(targets),
        "mAP": multilabel.mean_average_precision(probability, targets=targets)["mAP"],
        "mAP_absent_as_zero": multilabel.mean_average_precision(probability, targets=targets, absent="zero")["mAP"],
        "micro_AP": multilabel.pooled_average_precision(probability, targets=targets)["micro"],
        "GAP": multilabel.gap(probability, targets=targets, k=KEPT),
        "Hit@1": multilabel.hit_at_one(probability[listed], targets=targets[listed]),
        "PERR": multilabel.perr(probability[listed], targets=targets[listed]),
        "F1": multilabel.f1_figures(probability, targets=targets),
        "baseline": {"mAP": 100 * float(prevalence[prevalence > 0].mean())},
        "per_class": {
            name: {"ap": None if np.isnan(value) else 100 * float(value), "n": int(count)}
            for name, value, count in zip(names, own, targets.sum(axis=0), strict=True)
        },
    }


def number_figures(predicted: np.ndarray, *, truth: np.ndarray, usual: float, scale: str) -> dict[str, Any]:
    """Return the figures of numbers.

    Args:
      predicted: float [n].
      truth: float [n].
      usual: what a model says that looks at no clip: the median of the train clips.
      scale: "mosi" or "sims" adds the figures of sentiment as MMSA computes them; "" = none.

    Returns:
      `mae`, `rmse`, `corr` (Pearson; NaN becomes None), `baseline` with the `mae` of `usual`, with a scale `sentiment`
      (fractions), and `n`.
    """
    error = predicted - truth
    spread = float(predicted.std() * truth.std())
    centred = (predicted - predicted.mean()) * (truth - truth.mean())
    found: dict[str, Any] = {
        "n": len(truth),
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "corr": float(centred.mean()) / spread if spread > 0 else None,
        "baseline": {"mae": float(np.abs(usual - truth).mean())},
    }
    if scale:
        measure = {"mosi": intensity, "sims": sims_intensity}[scale]
        figures = measure(predicted, truth=truth)
        found["sentiment"] = {name: None if np.isnan(value) else value for name, value in figures.items()}
    return found


def level_figures(probability: np.ndarray, *, level: np.ndarray) -> dict[str, float]:
    """Return how far the predicted level is off, of clips on an ordered scale.

    Args:
      probability: float [n,K], of the levels.
      level: int [n], the true ones.

    Returns:
      `level_error`, the mean distance of the most probable level in levels, `within_one`, the share (percent) that is
      at most one level off, and `kappa`, the quadratically weighted kappa (Cohen 1968; None if it is not defined).
    """
    chosen, levels = probability.argmax(axis=1), probability.shape[1]
    off = np.abs(chosen - level)
    weight = (np.arange(levels)[:, None] - np.arange(levels)) ** 2.0
    table = np.zeros((levels, levels))
    np.add.at(table, (level, chosen), 1)
    by_chance = np.outer(table.sum(axis=1), table.sum(axis=0)) / len(level)
    expected = float((weight * by_chance).sum())
    kappa = 1 - float((weight * table).sum()) / expected if expected > 0 else None
    within = 100 * float((off <= 1).mean())
    return {"level_error": float(off.mean()), "within_one": within, "kappa": kappa}  # pyright: ignore[reportReturnType]


def check_finite(values: np.ndarray, *, clip_ids: Sequence[str]) -> None:
    """Raise UserError if a prediction is not finite; names its clip."""
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise UserError(
            f"the scores of clip {clip_ids[bad[0]]!r} are not finite ({len(bad)} of {len(values)} clips): the model's "
            "weights or this clip's input are damaged; choose an earlier checkpoint"
        )
