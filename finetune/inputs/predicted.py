"""Features of all clips of a split and, from a fine-tuned classifier, its predictions: in one pass over the frames."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...base.errors import UserError
from ...encode.devices.rows import padded, rounded_up
from ...encode.predict.predictor import Predictor
from ...evaluate.embedding.frozen import FrozenOptions, VideoModel, frozen_features, load_video

if TYPE_CHECKING:
    from ...data.batches.records import Records


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predicted:
    """What a model makes of the clips of a split, in record order.

    Attributes:
      features: float32 [n,D].
      probability: float64 [n,c], of a fine-tuned classifier; None of another model.
      kind: which features: "embedding", "pooled", or "tokens" (their mean over time).
    """

    features: np.ndarray
    probability: np.ndarray | None
    kind: str


class ClipModel:
    """A model that gives features of clips, and predictions if it was fine-tuned to classify.

    Attributes:
      video: the model.
      labels: of its classes; () of a model that is no classifier.
      several: whether it predicts several labels of a clip.
    """

    def __init__(self, path: str | Path):
        """Load a run, a checkpoint, a bundle or public weights.

        Raises:
          UserError: nothing readable there, a model without a video tower, or one that predicts numbers.
        """
        self.video: VideoModel = load_video(path)
        self._predictor: Predictor | None = None
        if "classify" in self.video.spec.heads:
            self._predictor = Predictor(spec=self.video.spec, model=self.video.model, mesh=self.video.mesh)
            if self._predictor.kind == "regression":
                raise UserError(
                    f"{path} predicts numbers, and these say nothing of how uncertain it is; give --init's model"
                )
        self.labels = self._predictor.labels if self._predictor else ()
        self.several = bool(self._predictor and self._predictor.kind == "multi")

    def of_split(self, split: str, *, records: "Records", folder: Path, batch_size: int = 32) -> Predicted:
        """Return features and predictions of every clip of a split; the features are kept in `folder`.

        Raises:
          UserError: no such split, or damaged records.
        """
        joint = self.video.spec.embed_dim is not None and self._predictor is None
        kind = "tokens" if self._predictor else "embedding" if joint else "pooled"
        options = FrozenOptions(kind=kind, batch_size=batch_size)
        found = frozen_features(self.video, records=records, split=split, folder=folder, options=options)
        if self._predictor is None:
            return Predicted(features=found["features"], probability=None, kind=kind)
        tokens = found["features"]
        size = rounded_up(min(batch_size, len(tokens)), mesh=self.video.mesh)
        parts = [
            self._predictor.predict_local({"tokens": padded(tokens[begin : begin + size], size=size)})["probability"]
            for begin in range(0, len(tokens), size)
        ]
        return Predicted(features=tokens.mean(axis=1), probability=np.concatenate(parts)[: len(tokens)], kind=kind)
