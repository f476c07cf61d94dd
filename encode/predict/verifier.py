"""A model that embeds clips for comparison: do two media files show the same identity?"""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from ...base.errors import UserError
from ..devices.placed import PlacedModel
from ..devices.rows import Rows, padded
from ..media.files import frames_of_files, listed

REPORT = "report/verification.json"
"""Where a run keeps its threshold, relative to its workdir."""


class Verifier(PlacedModel):
    """A video tower and an embedding head, and the input of both.

    Attributes:
      labels: the identities of training; others can be compared as well.
      threshold: cosine from which two clips count as one identity, of the run's report; None where that is not there.
    """

    def _read_spec(self) -> None:
        self.labels: tuple[str, ...] = tuple(self.spec.heads["identify"]["labels"])
        self.threshold = _threshold_of(Path(self.source)) if self.source and self.meta else None

    def predict(
        self,
        paths: Iterable[str | Path],
        *,
        threshold: float | None = None,
        batch_size: int = 16,
        windows: int = 1,
        workers: int = 0,
        progress: bool = False,
    ) -> list[dict[str, Any]]:
        """Compare each of n media files with each other one.

        Args:
          paths: at least two files of any format that PyAV decodes.
          threshold: cosine from which two files show the same identity, -1..1; None = that of the model.
          batch_size: files at a time.
          windows: windows of each file whose embeddings are averaged.
          workers: processes that decode; 0 = one per core.
          progress: draw a progress bar on standard error.

        Returns:
          For each pair `first`, `second` (paths), `score` (the cosine) and, where a threshold is known, `threshold` and
          `same`.

        Raises:
          UserError: fewer than two files, a threshold out of range, or a file that cannot be decoded.
        """
        files = listed(paths, method="predict")
        self._limit(threshold)
        if len(files) < 2:
            raise UserError(f"a model of identities compares files: give two or more, got {len(files)}")
        found = self.embed(files, batch_size=batch_size, windows=windows, workers=workers, progress=progress)
        return self.pairs(files, embeddings=found, threshold=threshold)

    def pairs(
        self,
        paths: Iterable[str | Path],
        *,
        embeddings: Float32[np.ndarray, "n E"],
        threshold: float | None = None,
    ) -> list[dict[str, Any]]:
        """Return what `predict` does, of n embedded files; for the arguments see there."""
        names, limit = [str(file) for file in paths], self._limit(threshold)
        scores = embeddings.astype(np.float64) @ embeddings.T.astype(np.float64)
        found: list[dict[str, Any]] = []
        for i, j in itertools.combinations(range(len(names)), 2):
            score = float(scores[i, j])
            verdict = {} if limit is None else {"threshold": limit, "same": score >= limit}
            found.append({"first": names[i], "second": names[j], "score": score, **verdict})
        return found

    def embed(
        self,
        paths: Iterable[str | Path],
        *,
        batch_size: int = 16,
        windows: int = 1,
        workers: int = 0,
        progress: bool = False,
    ) -> Float32[np.ndarray, "n E"]:
        """Embed n media files, with the model's own sampling and preprocessing: float32 rows of unit length.

        Args:
          paths: as in `predict`, as for the other arguments.
          batch_size: likewise.
          windows: likewise.
          workers: likewise.
          progress: likewise.

        Raises:
          UserError: a file that does not exist or cannot be decoded; names it and the reason.
        """
        files = listed(paths, method="embed")
        size = self.global_batch(batch_size, total=len(files))
        how = {"batch_size": size, "windows": windows, "workers": workers, "progress": progress}
        parts = [
            self.embed_local({"video": padded(part["video"], size=size // jax.process_count())})["embedding"]
            for part in frames_of_files(self.spec.input, files, **how)
        ]
        width = self.spec.heads["identify"]["embed_dim"]
        return np.concatenate([*parts, np.zeros((0, width), np.float32)])[: len(files)]

    def _limit(self, threshold: float | None) -> float | None:
        limit = self.threshold if threshold is None else threshold
        if limit is not None and not -1 <= limit <= 1:
            raise UserError(f"threshold={limit:g} must be a cosine from -1 to 1")
        return limit

    def embed_local(self, rows: Rows) -> Rows:
        """Embed one global batch of which each process gives its own rows; all processes must call it.

        Args:
          rows: this process's rows, equally many on each process: `video` uint8 [b,T,H,W,3] or [b,V,T,H,W,3] of V
            views, or `tokens` [b,T,D] of a frozen tower (or [b,V,T,D]); and anything else.

        Returns:
          `embedding` float32 [B,E], rows of unit length, of several views of their mean; of `tokens` also `untrained`
          float32 [B,D], likewise of the mean time token; and the other arrays, of all rows, on every process.
        """
        rest = dict(rows)
        key = "tokens" if "tokens" in rest else "video"
        given = rest.pop(key)
        views = given if given.ndim == {"video": 6, "tokens": 4}[key] else given[:, None]
        found: Rows = {}
        sums: Rows = {}
        for v in range(views.shape[1]):  # one view at a time: it compiles for one shape
            part = {key: np.ascontiguousarray(views[:, v]), **rest}
            found = self.apply_local(part, function=_embeddings)
            for name in ("embedding", "untrained"):
                sums[name] = sums.get(name, np.float32(0)) + found.pop(name)
        return {**found, **{name: _unit(value) for name, value in sums.items()}}


def _embeddings(model: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
    rest = dict(rows)
    tokens = rest.pop("tokens") if "tokens" in rest else model.video.features(rest.pop("video"), drop_patches=False)
    plain = jax.numpy.mean(tokens.astype(jax.numpy.float32), axis=1)
    return {"embedding": model.score(tokens), "untrained": plain, **rest}


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.maximum(length, 1e-12)).astype(np.float32)


def _threshold_of(checkpoint: Path) -> float | None:
    """Return the threshold of the report of the run to which a checkpoint belongs, if it is of that checkpoint."""
    report = checkpoint.parent.parent / REPORT
    if not report.is_file():
        return None
    found = json.loads(report.read_text(encoding="utf-8"))
    same = str(found["protocol"].get("checkpoint_step")) == checkpoint.name
    return float(found["threshold"]["value"]) if same else None
