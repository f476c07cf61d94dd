"""The embeddings of one side of a model, and which of them are the nearest to a query."""

import importlib
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from ...base.errors import UserError
from ...evaluate.measures.neighbours import has_faiss
from .approximate import approximate_file, open_approximate
from .database import ModelRow
from .vectors import map_vectors, vector_file

_BLOCK = 131_072  # rows that are scored at a time; bounds the memory
_SAMPLE = 4096  # rows from which the spread of scores is estimated
_EFFORT = 512  # neighbours that searches of approximate indexes are made for


class Side:
    """The embeddings of the moments of an index by one side of a model.

    Attributes:
      rows: int64 [n], their places in the file of vectors, increasing.
      moments: int64 [n], the ids of their moments.
      files: int64 [n], the ids of the moments' files.
    """

    def __init__(self, connection: sqlite3.Connection, *, folder: Path, model: ModelRow, side: str):
        """Read which vectors there are, and map them into memory.

        Raises:
          UserError: the file of vectors does not fit to the database.
        """
        query = "SELECT row, moment, file FROM vectors WHERE model = ? AND side = ? ORDER BY row"
        found = np.array(connection.execute(query, (model.id, side)).fetchall(), np.int64).reshape(-1, 3)
        self.rows, self.moments, self.files = (np.ascontiguousarray(column) for column in found.T)
        total = int(self.rows[-1]) + 1 if len(self.rows) else 0
        path = vector_file(folder, model=model.id, side=side, generation=model.generation)
        self._vectors = map_vectors(path, width=model.width, rows=total)
        self._dense = total == len(self.rows)  # no holes: blocks need not be copied
        self._index = open_approximate(approximate_file(folder, model=model, side=side), count=_EFFORT)
        self._by_moment, self._by_file = (np.argsort(ids, kind="stable") for ids in (self.moments, self.files))
        self.width = model.width

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def kind(self) -> str:
        """How it is searched, for messages."""
        if self._index is not None:
            return "FAISS HNSW" if hasattr(self._index, "hnsw") else "FAISS IVF-PQ"
        return "FAISS flat (exact)" if has_faiss() else "NumPy (exact)"

    @property
    def exact(self) -> bool:
        """Whether `nearest` misses none."""
        return self._index is None

    def vectors(self, places: Int64[np.ndarray, "k"]) -> Float32[np.ndarray, "k E"]:
        """Return embeddings by their places, 0 <= place < n."""
        return np.asarray(self._vectors[self.rows[places]], np.float32)

    def scores(
        self, queries: Float32[np.ndarray, "q E"], *, places: Int64[np.ndarray, "k"] | None = None
    ) -> Float32[np.ndarray, "k"]:
        """Return the largest cosine of each embedding with any of the queries.

        Args:
          queries: rows of unit length.
          places: of the embeddings; None = all n.
        """
        self._check(queries)
        if places is not None:
            return (self.vectors(places) @ queries.T).max(axis=1)
        found = np.empty(len(self), np.float32)
        for start in range(0, len(self), _BLOCK):
            found[start : start + _BLOCK] = (self._block(start) @ queries.T).max(axis=1)
        return found

    def find(self, moments: Int64[np.ndarray, "k"]) -> Int64[np.ndarray, "k"]:
        """Return the places of moments by their ids; -1 for those that have no embedding here."""
        if not len(self):
            return np.full(len(moments), -1, np.int64)
        at = np.minimum(np.searchsorted(self.moments, moments, sorter=self._by_moment), len(self) - 1)
        places = self._by_moment[at]
        return np.where(self.moments[places] == moments, places, -1)

    def of_file(self, file: int) -> Int64[np.ndarray, "k"]:
        """Return the places of a file's moments."""
        first, last = (np.searchsorted(self.files, file, side, sorter=self._by_file) for side in ("left", "right"))
        return self._by_file[first:last]

    def spread(self, queries: Float32[np.ndarray, "q E"]) -> tuple[float, float]:
        """Return mean and standard deviation of `scores` over the collection, from a sample of it."""
        chosen = np.random.default_rng(0).permutation(len(self))[:_SAMPLE]
        scores = self.scores(queries, places=np.sort(chosen)).astype(np.float64)
        return float(scores.mean()), max(float(scores.std()), 1e-6)

    def nearest(
        self, queries: Float32[np.ndarray, "q E"], *, count: int, allowed: Bool[np.ndarray, "n"] | None = None
    ) -> Int64[np.ndarray, "k"]:
        """Return the places of the `count` nearest embeddings of each query, without order, each once.

        Args:
          queries: rows of unit length.
          count: how many of each.
          allowed: which may be returned; None = all.
        """
        self._check(queries)
        count = min(count, len(self))
        if count == 0:
            return np.zeros(0, np.int64)
        if self._index is None:
            return self._exact(queries, count=count, allowed=allowed, first=0)
        found = self._approximate(queries, count=count, allowed=allowed)
        behind = int(np.searchsorted(self.rows, self._index.ntotal))
        tail = self._exact(queries, count=count, allowed=allowed, first=behind)
        return np.unique(np.concatenate([found, tail]))

    def _exact(self, queries: np.ndarray, *, count: int, allowed: np.ndarray | None, first: int) -> np.ndarray:
        """Score all embeddings from place `first` on, block by block, and keep the best so far of each query."""
        best = np.full((len(queries), 0), 0, np.int64)
        top = np.full((len(queries), 0), 0, np.float32)
        for start in range(first, len(self), _BLOCK):
            block, places = self._block(start), np.arange(start, min(start + _BLOCK, len(self)))
            if allowed is not None:
                kept = allowed[places]
                block, places = block[kept], places[kept]
            if not len(places):
                continue
            scores, found = _top(queries, block=np.ascontiguousarray(block), count=count)
            top, best = np.concatenate([top, scores], axis=1), np.concatenate([best, places[found]], axis=1)
            order = np.argsort(-top, axis=1, kind="stable")[:, :count]
            top, best = np.take_along_axis(top, order, axis=1), np.take_along_axis(best, order, axis=1)
        return np.unique(best)

    def _approximate(self, queries: np.ndarray, *, count: int, allowed: np.ndarray | None) -> np.ndarray:
        faiss: Any = importlib.import_module("faiss")  # SWIG tells pyright nothing true of these classes
        index: Any = self._index
        selector = None
        if allowed is not None or not self._dense:
            kept = np.zeros(-(-index.ntotal // 8) * 8, bool)
            live = self.rows if allowed is None else self.rows[allowed]
            kept[live[live < index.ntotal]] = True
            selector = faiss.IDSelectorBitmap(np.packbits(kept, bitorder="little"))
        if hasattr(index, "hnsw"):
            params = faiss.SearchParametersHNSW(sel=selector, efSearch=max(index.hnsw.efSearch, 2 * count))
        else:
            params = faiss.SearchParametersIVF(sel=selector, nprobe=index.nprobe)
        _, found = index.search(np.ascontiguousarray(queries, np.float32), count, params=params)
        return np.unique(np.searchsorted(self.rows, found[found >= 0]))

    def _block(self, start: int) -> np.ndarray:
        stop = min(start + _BLOCK, len(self))
        return self._vectors[start:stop] if self._dense else self._vectors[self.rows[start:stop]]

    def _check(self, queries: np.ndarray) -> None:
        if queries.ndim != 2 or queries.shape[1] != self.width:
            raise UserError(
                f"a query of shape {queries.shape}, but the index has embeddings of width {self.width}; search with "
                "the model that made the index"
            )


def _top(queries: np.ndarray, *, block: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of the best `count` rows of a block for each query, and their places, best first."""
    count = min(count, len(block))
    if has_faiss():
        import faiss  # pyright: ignore[reportMissingImports]

        return faiss.knn(np.ascontiguousarray(queries, np.float32), block, count, metric=faiss.METRIC_INNER_PRODUCT)
    scores = queries @ block.T
    found = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(scores, found, axis=1), axis=1, kind="stable")
    found = np.take_along_axis(found, order, axis=1)
    return np.take_along_axis(scores, found, axis=1), found
