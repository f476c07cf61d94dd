"""A model with a head as a labeller of media files and arrays."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float64, UInt8
from scipy.special import softmax

from ...base.errors import UserError
from ..devices.placed import PlacedModel
from ..devices.rows import Rows, padded, shares
from ..media.files import frames_of_files

Probabilities = Float64[np.ndarray, "n classes"]


KINDS = ("single", "multi", "ordinal", "regression")
"""What a classifier says of a clip: its class, all its labels, its level on an ordered scale, or a number."""
AVERAGES = ("probability", "score")
"""What is averaged over several views: probabilities (mmaction2's "prob"), or scores before the softmax ("score")."""


class Predictor(PlacedModel):
    """A classifier: a video tower with a head, and the input of both.

    In a run of several processes each decodes and places its share, and all get all results.

    Attributes:
      labels: names of the classes, in the order of the scores; () of a model that predicts a number.
      kind: one of `KINDS`.
    """

    def _read_spec(self) -> None:
        if "classify" not in self.spec.heads:
            raise UserError(
                f"the model of {self.source or 'this spec'} has no head 'classify' (heads: {list(self.spec.heads)})"
            )
        head = self.spec.heads["classify"]
        self.labels: tuple[str, ...] = tuple(head["labels"])
        self._decode: Mapping[str, Any] = head.get("decode") or {}
        self.kind: str = self._decode.get("kind", "single")

    def predict(
        self,
        paths: Iterable[str | Path],
        *,
        batch_size: int = 16,
        windows: int = 1,
        workers: int = 0,
        progress: bool = False,
    ) -> list[dict[str, Any]]:
        """Decode and classify media files, with the model's own sampling and preprocessing.

        Args:
          paths: n files of any format that PyAV decodes.
          batch_size: how many at a time.
          windows: windows of each file, evenly spread; their probabilities are averaged, as those of several views.
          workers: processes that decode; 0 = one per core.
          progress: draw a progress bar on standard error.

        Returns:
          For each file `{"path", "label", "probability", "probabilities"}`: the most probable class, its probability
          (0..1), and those of all classes, the most probable first. Of a model of several labels `labels`, those with
          a probability of at least 1/2, in the place of the first two; of one that predicts numbers `value` alone.

        Raises:
          UserError: a file that does not exist or cannot be decoded; names it and the reason.
        """
        if isinstance(paths, (str, Path)):
            raise UserError(f"predict wants a list, got one; write predict([{str(paths)!r}])")
        files = [Path(path) for path in paths]
        size = self.global_batch(batch_size, total=len(files))
        parts = frames_of_files(
            self.spec.input, files, batch_size=size, windows=windows, workers=workers, progress=progress
        )
        found = self._joined([self._collect(part["video"], size=size) for part in parts], total=len(files))
        return [{"path": str(path), **self.named(row)} for path, row in zip(files, found, strict=True)]

    def predict_arrays(self, video: UInt8[np.ndarray, "n T H W 3"], *, batch_size: int = 32) -> Probabilities:
        """Classify frames that are preprocessed already.

        Args:
          video: uint8 RGB [n,T,H,W,3] of the model's own T, H and W; or [n,V,T,H,W,3] of V views, whose probabilities
            are averaged.
          batch_size: how many at a time.

        Returns:
          float64 [n,classes], rows sum to 1.

        Raises:
          UserError: another dtype or number of axes, or channels that do not come last.
        """
        video = np.asarray(video)
        if video.dtype != np.uint8 or video.ndim not in (5, 6) or video.shape[-1] != 3:
            raise UserError(
                f"video of dtype {video.dtype} and shape {video.shape}; wanted uint8 pixels 0..255 of shape [n,T,H,W,3]"
                " (channels last)"
            )
        size = self.global_batch(batch_size, total=len(video))
        parts = [video[own] for _, own in shares(len(video), batch_size=size)]
        return self._joined([self._collect(part, size=size) for part in parts], total=len(video))

    def predict_local(self, rows: Rows) -> Rows:
        """Classify one global batch of which each process gives its own rows; all processes must call it.

        Args:
          rows: this process's rows, equally many on each process: `video` as in `predict_arrays`, or `tokens` [b,T,D]
            of a frozen tower (or [b,V,T,D]); and anything else.

        Returns:
          `probability` float64 [B,classes] (of a number [B,1], the number itself), `views` int32 [B] (how many were
          averaged) and the other arrays, of all rows, on every process.
        """
        rest = dict(rows)
        key = "tokens" if "tokens" in rest else "video"
        given = rest.pop(key)
        views = given if given.ndim == {"video": 6, "tokens": 4}[key] else given[:, None]
        found: Rows = {}
        mean: np.ndarray = np.zeros(())
        scores = self._decode.get("average", "probability") == "score"
        for v in range(views.shape[1]):  # one view at a time: it compiles for one shape
            found = self.apply_local({key: np.ascontiguousarray(views[:, v]), **rest}, function=_logits)
            logits = found.pop("logits").astype(np.float64)
            mean = mean + (logits if scores else self._probability(logits)) / views.shape[1]
        mean = self._probability(mean) if scores else mean
        return {**found, "probability": mean, "views": np.full(len(mean), views.shape[1], np.int32)}

    def named(self, probability: Float64[np.ndarray, "classes"]) -> dict[str, Any]:
        """Return `{"label", "probability", "probabilities"}` of one clip; see `predict`."""
        if self.kind == "regression":
            return {"value": float(probability[0])}
        order = np.argsort(-probability, kind="stable")
        shown = {self.labels[i]: float(probability[i]) for i in order}
        if self.kind == "multi":
            return {"labels": [name for name, value in shown.items() if value >= 0.5], "probabilities": shown}
        label = self.labels[order[0]]
        return {"label": label, "probability": shown[label], "probabilities": shown}

    def _collect(self, part: np.ndarray, *, size: int) -> Probabilities:
        """Classify a global batch of `size` rows of which `part` holds this process's, as far as there are any."""
        return self.predict_local({"video": padded(part, size=size // jax.process_count())})["probability"]

    def _joined(self, found: list[Probabilities], *, total: int) -> Probabilities:
        return np.concatenate([*found, np.zeros((0, max(len(self.labels), 1)))])[:total]

    def _probability(self, logits: np.ndarray) -> Probabilities:
        """Return what the scores [n,K] mean: probabilities of the classes, or the number."""
        if self.kind == "regression":
            return logits * self._decode["std"] + self._decode["mean"]
        if self.kind == "single":
            return softmax(logits.astype(np.float64), axis=1)
        share = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
        if self.kind == "multi":
            return share
        above = np.minimum.accumulate(share, axis=1)  # of "above level k": never more for a higher k
        ones, zeros = np.ones((len(above), 1)), np.zeros((len(above), 1))
        return np.concatenate([ones, above], axis=1) - np.concatenate([above, zeros], axis=1)


def _logits(model: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
    rest = dict(rows)
    logits = model.score(rest.pop("tokens")) if "tokens" in rest else model(rest.pop("video"))
    return {"logits": logits, **rest}
