"""A model of sessions: which clips of a catalogue come next, after clips of it or after media files."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...base.errors import UserError, unknown
from ..devices.placed import PlacedModel
from ..devices.rows import Rows, padded
from ..media.files import frames_of_files

CATALOGUE = "report/catalogue.npz"
"""Where a run keeps the vectors of the clips that can be recommended, relative to its workdir."""


class Recommender(PlacedModel):
    """A video tower and a session model, the input of both, and the catalogue.

    Attributes:
      clip_ids: of the catalogue; () until there is one.
      max_length: the latest items of a history that count.
    """

    def _read_spec(self) -> None:
        self.max_length: int = self.spec.heads["recommend"]["max_length"]
        self.clip_ids: tuple[str, ...] = ()
        self._vectors = self._items = np.zeros((0, 1), np.float32)
        kept = Path(self.source).parent.parent / CATALOGUE
        if self.source and self.meta and kept.is_file():
            with np.load(kept, allow_pickle=False) as found:
                self.use_catalogue(found["vectors"], clip_ids=found["clip_ids"].tolist())

    def use_catalogue(self, vectors: np.ndarray, *, clip_ids: Sequence[str] = ()) -> None:
        """Take these clips as the catalogue: float32 [n,C], of `vectors`, and their ids."""
        self.clip_ids, self._vectors = tuple(clip_ids), np.asarray(vectors, np.float32)
        size = self.global_batch(1024, total=len(vectors))
        parts = [
            self.apply_local(
                self._local({"vectors": padded(self._vectors[i : i + size], size=size)}, size=size), function=_items
            )["items"]
            for i in range(0, len(vectors), size)
        ]
        self._items = np.concatenate(parts)[: len(vectors)]

    def scores(self, histories: Sequence[np.ndarray], *, batch_size: int = 256) -> np.ndarray:
        """Return the cosine of each history's vector and each item's, float64 [histories,n].

        Args:
          histories: of each the numbers of its items, at least one.
          batch_size: histories at a time.
        """
        size = self.global_batch(batch_size, total=len(histories))
        found = []
        for begin in range(0, len(histories), size):
            part = [items[-self.max_length :] for items in histories[begin : begin + size]]
            rows = np.zeros((size, self.max_length, self._items.shape[1]), np.float32)
            mask = np.zeros((size, self.max_length), bool)
            mask[:, 0] = True
            for row, items in enumerate(part):
                rows[row, : len(items)], mask[row, : len(items)] = self._items[items], True
            own = self._local({"items": rows, "mask": mask}, size=size)
            found.append(self.apply_local(own, function=_histories)["history"][: len(part)])
        return np.concatenate(found).astype(np.float64) @ self._items.T.astype(np.float64)

    def predict(
        self,
        history: Iterable[str | Path],
        *,
        count: int = 10,
        batch_size: int = 16,
        workers: int = 0,
        progress: bool = False,
    ) -> list[dict[str, Any]]:
        """Recommend clips of the catalogue after a history.

        Args:
          history: at least one clip id of the catalogue or media file, in order of time.
          count: how many clips; those of the history are left out.
          batch_size: files at a time.
          workers: processes that decode; 0 = one per core.
          progress: draw a progress bar on standard error.

        Returns:
          `clip_id` and `score` (the cosine), best first.

        Raises:
          UserError: no catalogue, no history, or one that is neither a clip nor a file.
        """
        given = [str(one) for one in history]
        if not self.clip_ids:
            raise UserError(
                f"{self.source or 'this model'} has no catalogue: load the workdir of the run, whose {CATALOGUE} holds "
                "the clips that can be recommended"
            )
        if not given or count < 1:
            raise UserError(f"a history of {len(given)} clips and count={count}; wanted at least one of each")
        place = {clip: i for i, clip in enumerate(self.clip_ids)}
        files = [one for one in given if one not in place]
        for one in files:
            if not Path(one).is_file():
                raise unknown("clip, which is neither in the catalogue nor a file:", one, place)
        vectors, items = self._vectors, self._items
        if files:
            new = self.embed(files, batch_size=batch_size, workers=workers, progress=progress)
            self.use_catalogue(np.concatenate([vectors, new]), clip_ids=self.clip_ids)
        try:
            order = iter(range(len(vectors), len(vectors) + len(files)))
            numbers = np.array([place[one] if one in place else next(order) for one in given])
            found = self.scores([numbers])[0, : len(vectors)]
        finally:
            self._vectors, self._items = vectors, items
        found[[place[one] for one in given if one in place]] = -np.inf
        best = [i for i in np.argsort(-found, kind="stable")[:count].tolist() if np.isfinite(found[i])]
        return [{"clip_id": self.clip_ids[i], "score": float(found[i])} for i in best]

    def embed(
        self, paths: Iterable[str | Path], *, batch_size: int = 16, workers: int = 0, progress: bool = False
    ) -> np.ndarray:
        """Return the vectors of n media files, float32 [n,C]."""
        files = [Path(path) for path in paths]
        size = self.global_batch(batch_size, total=len(files))
        how = {"batch_size": size, "workers": workers, "progress": progress}
        parts = [
            self.vectors({"video": padded(part["video"], size=size // jax.process_count())})["vectors"]
            for part in frames_of_files(self.spec.input, files, **how)
        ]
        return np.concatenate(parts)[: len(files)]

    def vectors(self, rows: Rows) -> Rows:
        """Embed one global batch of `video` or `tokens`: `vectors` float32 [B,C], and its other arrays."""
        return self.apply_local(rows, function=_vectors)

    @staticmethod
    def _local(rows: Rows, *, size: int) -> Rows:
        share = size // jax.process_count()
        return {key: value[jax.process_index() * share :][:share] for key, value in rows.items()}


def _vectors(model: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
    rest = dict(rows)
    found = model.score(rest.pop("tokens")) if "tokens" in rest else model(rest.pop("video"))
    return {"vectors": found, **rest}


def _items(model: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {"items": model.head.items(rows["vectors"])}


def _histories(model: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
    found, last = model.head.histories(rows["items"], mask=rows["mask"]), jnp.sum(rows["mask"], axis=1) - 1
    return {"history": jnp.take_along_axis(found, last[:, None, None], axis=1)[:, 0]}
