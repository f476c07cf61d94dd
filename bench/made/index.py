"""Made-up indexes for `bench search` and `bench serve`: embeddings like those of towers, films that do not exist."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from ...serve.index.database import ModelRow, Settings
from ...serve.index.store import Store
from ...serve.index.vectors import VectorWriter, vector_file

_BLOCK = 65_536
_DIRECTIONS, _CLUSTERS = 64, 4096
PER_FILE = 20
"""Moments of a film."""


class Embeddings:
    """Rows that fill few directions, in clusters, as embeddings of towers do; all of them point one way a little.

    A row is a point of a mixture of 4,096 Gaussians in 64 dimensions, mapped linearly to `width`, with noise in all
    dimensions and a common offset. Uniformly random rows would be another matter: all of them are equally far apart,
    and no approximate index finds the nearest.
    """

    def __init__(self, *, width: int, seed: int = 0):
        """Draw the clusters and the map."""
        rng = np.random.default_rng(seed)
        self.width, self._seed = width, seed
        self._centres = rng.normal(size=(_CLUSTERS, _DIRECTIONS)).astype(np.float32)
        self._map = rng.normal(size=(_DIRECTIONS, width)).astype(np.float32) / np.float32(np.sqrt(_DIRECTIONS))
        self._offset = rng.normal(size=width).astype(np.float32) / 2

    def blocks(self, rows: int) -> Iterator[Float32[np.ndarray, "k E"]]:
        """Yield `rows` rows of unit length, block by block."""
        for number, start in enumerate(range(0, rows, _BLOCK)):
            rng = np.random.default_rng([self._seed, 1, number])
            yield self._drawn(rng, rows=min(_BLOCK, rows - start))

    def queries(self, count: int) -> Float32[np.ndarray, "count E"]:
        """Return rows that are in none of the blocks, of unit length."""
        return self._drawn(np.random.default_rng([self._seed, 2]), rows=count)

    def _drawn(self, rng: np.random.Generator, *, rows: int) -> np.ndarray:
        points = self._centres[rng.integers(_CLUSTERS, size=rows)]
        points = points + 0.6 * rng.standard_normal((rows, _DIRECTIONS), np.float32)
        made = points @ self._map + self._offset + 0.1 * rng.standard_normal((rows, self.width), np.float32)
        return made / np.linalg.norm(made, axis=1, keepdims=True)


def make_index(folder: Path, *, model: ModelRow, rows: int, seed: int = 0) -> None:
    """Write an index of `rows` moments, `PER_FILE` of each film, with made-up embeddings of a model's pictures.

    Args:
      folder: where; empty or not there.
      model: whose index it is; its `width` is E.
      rows: moments.
      seed: of the embeddings.
    """
    with Store(folder, settings=Settings()) as store:
        row = store.claim_model(model, about={})
        path = vector_file(folder, model=row.id, side="video", generation=row.generation)
        writer = VectorWriter(path, width=model.width, rows=0)
        for block in Embeddings(width=model.width, seed=seed).blocks(rows):
            writer.append(block)
        writer.sync()
        writer.close()
        films = -(-rows // PER_FILE)
        with store.connection as connection:
            columns = "id, key, root, path, size, mtime_ns, sha256, duration_s, fps, captions, sentences"
            connection.executemany(
                f"INSERT INTO files ({columns}) VALUES (?, ?, '/made/up', ?, 1, 0, ?, 105.0, 25.0, '[]', '[]')",
                ((i, f"/made/up/{i}.mp4", f"/made/up/{i}.mp4", f"{i:064x}") for i in range(1, films + 1)),
            )
            connection.executemany(
                "INSERT INTO moments (id, file, number, start_s, end_s, text) VALUES (?, ?, ?, ?, ?, '')",
                (
                    (i + 1, i // PER_FILE + 1, i % PER_FILE, 5.0 * (i % PER_FILE), 5.0 * (i % PER_FILE) + 10)
                    for i in range(rows)
                ),
            )
            connection.executemany(
                f"INSERT INTO vectors VALUES ({row.id}, 'video', ?, ?, ?)",
                ((i, i + 1, i // PER_FILE + 1) for i in range(rows)),
            )
            connection.executemany(f"INSERT INTO finished VALUES ({row.id}, ?)", ((i,) for i in range(1, films + 1)))
