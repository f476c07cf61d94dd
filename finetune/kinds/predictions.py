"""Predictions for the labelled clips of a data set: for validation during training and for the report."""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import track

from ...base.errors import UserError
from ...encode.predict.predictor import Predictor
from ..examples.clips import LabelledClips

if TYPE_CHECKING:
    from ..inputs.feed import Feed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a classifier says of n clips, in record order.

    Attributes:
      probability: float64 [n,classes], rows sum to 1.
      label: int32 [n], the true classes.
      index: int64 [n], the records.
      views: views and windows of each clip whose probabilities were averaged.
    """

    probability: np.ndarray
    label: np.ndarray
    index: np.ndarray
    views: int

    def results(self) -> dict[str, float]:
        """Return loss (nats, not smoothed), accuracy and balanced accuracy (0..1)."""
        own = np.take_along_axis(self.probability, self.label[:, None], axis=1)[:, 0]
        right = self.probability.argmax(axis=1) == self.label
        recall = [right[self.label == y].mean() for y in np.unique(self.label)]
        return {
            "loss": float(-np.log(np.maximum(own, 1e-30)).mean()),
            "accuracy": float(right.mean()),
            "balanced_accuracy": float(np.mean(recall)),
        }


def predict_clips(predictor: Predictor, *, clips: LabelledClips, feed: "Feed", progress: bool = False) -> Predictions:
    """Classify clips with the evaluation's transforms; probabilities of several views or windows are averaged.

    Each process decodes its share, each device computes its share; all processes get all results.

    Args:
      predictor: the classifier.
      clips: which ones.
      feed: where they come from.
      progress: draw a progress bar on standard error, on the first process.

    Raises:
      UserError: none of the clips can be read.
    """
    parts, views = [], 1
    batches: Any = feed.evaluation(clips)
    if progress and jax.process_index() == 0:
        batches = track(batches, "classify the clips", total=None, console=Console(stderr=True), transient=True)
    for batch in batches:
        found = predictor.predict_local(batch)
        views = int(found["views"][0])
        parts.append([found[key][found["valid"]] for key in ("probability", "label", "clip_index")])
    probability, label, index = (np.concatenate(part) for part in zip(*parts, strict=True))
    if not len(label):
        raise UserError(f"none of the {len(clips)} clips of split {clips.split!r} can be read; prepare them again")
    order = np.argsort(index, kind="stable")
    index = index[order].astype(np.int64)
    return Predictions(probability=probability[order], label=label[order], index=index, views=views)
