"""The classification report: its figures and its files."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UserError
from ...evaluate.measures import classes as classes_measures

NORMAL_95 = 1.959964
"""Quantile of the standard normal distribution for a two-sided 95 % interval."""


def classification_report(
    probability: np.ndarray, *, label: np.ndarray, labels: Sequence[str], clip_ids: Sequence[str]
) -> dict[str, Any]:
    """Measure a classifier on the clips of a split.

    Args:
      probability: float [n,classes], rows sum to 1.
      label: int [n], the true class of each clip.
      labels: names of the classes.
      clip_ids: names of the n clips.

    Returns:
      JSON values, all shares in percent: `n`; `accuracy` with its 95 % Wilson interval (Wilson 1927); `top5_accuracy`
      where there are more than five classes; `balanced_accuracy` (mean recall of the classes that occur); `majority`
      (accuracy of always naming the most frequent class) and `chance`; `macro` and `weighted` means of precision,
      recall and F1; `mean_class`, the mean accuracy of the classes as scikit-learn and as mmaction2 read it; `ece`, the
      expected calibration error; `per_class` with `precision`, `recall`, `f1` and `support`; `confusion` (rows: true
      class, columns: predicted class, counts); `clips`, each with its prediction; `mistakes`, the most confident first.

    Raises:
      UserError: there is no clip to measure, or a probability is not finite (its clip is named).
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    if not len(label):
        raise UserError(
            "there is no clip with one of the labels to measure; set config.task.test_split or config.task.labels"
        )
    bad = np.flatnonzero(~np.isfinite(probability).all(axis=1))
    if len(bad):
        raise UserError(
            f"the scores of clip {clip_ids[bad[0]]!r} are not finite (NaN or inf; {len(bad)} of {len(label)} clips): "
            "the model's weights or this clip's input are damaged; choose an earlier checkpoint"
        )
    classes = np.arange(len(labels))
    predicted = probability.argmax(axis=1)
    scores = precision_recall_fscore_support(label, predicted, labels=classes, zero_division=0)  # pyright: ignore[reportArgumentType]
    precision, recall, f1, support = (np.asarray(column) for column in scores)
    occurs = support > 0
    right = int((predicted == label).sum())
    clips = _predictions(probability, label=label, labels=labels, clip_ids=clip_ids)
    return {
        "n": len(label),
        "accuracy": 100.0 * right / len(label),
        "accuracy_interval_95": wilson_interval(right, n=len(label)),
        **({"top5_accuracy": _top5(probability, label=label)} if len(labels) > 5 else {}),
        "balanced_accuracy": 100.0 * float(recall[occurs].mean()),
        "majority": 100.0 * int(support.max()) / len(label),
        "chance": 100.0 / len(labels),
        "mean_class": classes_measures.mean_class_accuracy(predicted, labels=label, classes=len(labels)),
        "ece": classes_measures.calibration(probability, labels=label)["ece"],
        "macro": _means(precision[occurs], recall=recall[occurs], f1=f1[occurs]),
        "weighted": _means(precision, recall=recall, f1=f1, weights=support),
        "per_class": {
            name: {
                "precision": 100.0 * float(precision[i]),
                "recall": 100.0 * float(recall[i]),
                "f1": 100.0 * float(f1[i]),
                "support": int(support[i]),
            }
            for i, name in enumerate(labels)
        },
        "confusion": confusion_matrix(label, predicted, labels=classes).tolist(),
        "clips": clips,
        "mistakes": sorted(
            (clip for clip in clips if clip["label"] != clip["predicted"]), key=lambda clip: -clip["probability"]
        ),
    }


def _predictions(
    probability: np.ndarray, *, label: np.ndarray, labels: Sequence[str], clip_ids: Sequence[str]
) -> list[dict[str, Any]]:
    """One JSON value per clip: its name, true and predicted class, and how sure the classifier is, in percent."""
    return [
        {
            "clip_id": clip_id,
            "label": labels[true],
            "predicted": labels[row.argmax()],
            "probability": round(100.0 * float(row.max()), 2),
        }
        for clip_id, true, row in zip(clip_ids, label, probability, strict=True)
    ]


def wilson_interval(right: int, *, n: int) -> list[float]:
    """Return the 95 % Wilson score interval of `right` out of `n`, in percent.

    >>> [round(bound, 1) for bound in wilson_interval(32, n=40)]
    [65.2, 89.5]
    """
    z, share = NORMAL_95, right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return [100.0 * max(0.0, middle - half), 100.0 * min(1.0, middle + half)]


def write_report(
    report: dict[str, Any], *, out: Path, title: str, protocol: dict[str, Any], pictures: dict[str, str] | None = None
) -> Path:
    """Write `classification.json`, `confusion.png` and `index.html`; the folder opens from disk without a network.

    Args:
      report: what `classification_report` returned.
      out: folder, made if absent.
      title: heading of the page.
      protocol: how the figures were made; goes into the JSON and onto the page.
      pictures: clip_id -> picture of the clip, relative to the page, for some of the mistakes.

    Returns:
      The path of the page.
    """
    from ...pages.charts import write_confusion_matrix  # here: matplotlib takes a second to import
    from .classification_page import write_classification_page

    out.mkdir(parents=True, exist_ok=True)
    whole = {"protocol": {**protocol, "unit": "percent"}, **report}
    (out / "classification.json").write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    write_confusion_matrix(out / "confusion.png", counts=report["confusion"], labels=list(report["per_class"]))
    return write_classification_page(
        out / "index.html", report=report, title=title, protocol=protocol, pictures=pictures or {}
    )


def _means(
    precision: np.ndarray, *, recall: np.ndarray, f1: np.ndarray, weights: np.ndarray | None = None
) -> dict[str, float]:
    named = {"precision": precision, "recall": recall, "f1": f1}
    return {name: 100.0 * float(np.average(values, weights=weights)) for name, values in named.items()}


def _top5(probability: np.ndarray, *, label: np.ndarray) -> float:
    own = np.take_along_axis(probability, label[:, None], axis=1)
    return 100.0 * float(((probability > own).sum(axis=1) < 5).mean())
