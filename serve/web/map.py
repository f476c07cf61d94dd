"""A map of the collection: moments as points in the plane, near each other if they look alike.

At first by two principal components; then by t-SNE (van der Maaten & Hinton 2008) of fifty, which takes a while
and is computed in a thread of its own.
"""

import threading
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from ..index.nearest import Side

POINTS = 5000
"""Moments of a map; of larger collections, a sample."""

_COMPONENTS = 50  # that t-SNE looks at
_LEAST = 10  # points from which on t-SNE is worth it


def sample(side: Side, *, points: int = POINTS) -> Int64[np.ndarray, "n"]:
    """Return the places of the moments of a map: all of them, or `points` drawn without regard to anything."""
    if len(side) <= points:
        return np.arange(len(side))
    return np.sort(np.random.default_rng(0).permutation(len(side))[:points])


def principal(rows: Float32[np.ndarray, "n E"]) -> Float64[np.ndarray, "n C"]:
    """Return the first principal components of rows, at most fifty; at least two columns."""
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred)  # in rising order; [E,E] whatever the number of rows
    found = centred @ vectors[:, np.argsort(-values)[:_COMPONENTS]]
    return np.pad(found, ((0, 0), (0, max(0, 2 - found.shape[1]))))


def spread_out(components: Float64[np.ndarray, "n C"]) -> Float64[np.ndarray, "n 2"]:
    """Return places in the plane that keep neighbours together (t-SNE), computed by one thread."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(30.0, (len(components) - 1) / 3)
    with threadpool_limits(1, user_api="openmp"):  # of this thread alone; requests go on meanwhile
        found = TSNE(2, init="pca", perplexity=perplexity, random_state=0).fit_transform(components)
    return found.astype(np.float64)


def to_square(places: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
    """Move and scale points to 0..1 along both axes."""
    low, high = places.min(axis=0), places.max(axis=0)
    return (places - low) / np.maximum(high - low, 1e-12)


class CollectionMap:
    """The map of one state of an index."""

    def __init__(self, side: Side):
        """Compute the first map, and begin with the better one.

        Args:
          side: the embeddings, at least one.
        """
        places = sample(side)
        self._moments, self._files, self._of = side.moments[places], side.files[places], len(side)
        components = principal(side.vectors(places))
        self._made: tuple[str, np.ndarray, bool] = ("PCA", to_square(components[:, :2]), len(places) < _LEAST)
        self._thread = threading.Thread(target=self._better, args=(components,), name="map", daemon=True)
        if not self.final:
            self._thread.start()

    @property
    def final(self) -> bool:
        """Whether no better map follows."""
        return self._made[2]

    @property
    def files(self) -> list[int]:
        """The files whose moments are on the map."""
        return np.unique(self._files).tolist()

    def wait(self, seconds: float) -> bool:
        """Wait for the better map; return whether it is there."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return self.final

    def answer(self) -> dict[str, Any]:
        """Return the map as JSON values: `points` with rows of x, y (0..1), moment and file; see `MapAnswer`."""
        method, places, final = self._made
        points = [
            [round(x, 4), round(y, 4), moment, file]
            for (x, y), moment, file in zip(places.tolist(), self._moments.tolist(), self._files.tolist(), strict=True)
        ]
        return {"method": method, "final": final, "of": self._of, "points": points}

    def _better(self, components: np.ndarray) -> None:
        try:
            self._made = ("t-SNE", to_square(spread_out(components)), True)
        except Exception:
            self._made = (self._made[0], self._made[1], True)  # the first map stays
            raise
