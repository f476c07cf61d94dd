"""Whether relevance holds: the score as parts are removed from the clip, or added to the baseline, in its order.

Deletion and insertion, Petsiuk, Das & Saenko 2018 (RISE, arXiv:1806.07421): in a faithful order the score falls early
when the most relevant parts are removed first, and rises early when they are added first. Random orders stand next to
it: an area alone says little, since it depends on the score, the model and the baseline.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from .explained import Tick

POINTS = 20
"""Steps of a curve at most; fewer where there are fewer parts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curves:
    """Values of the score along deletion and insertion.

    Attributes:
      shares: share of the parts that is removed, or added, 0 ... 1, float64 [p].
      deletion: in the order of relevance, float64 [p].
      insertion: likewise.
      random_deletion: in random orders, float64 [draws,p].
      random_insertion: likewise.
    """

    shares: Float64[np.ndarray, "p"]
    deletion: Float64[np.ndarray, "p"]
    insertion: Float64[np.ndarray, "p"]
    random_deletion: Float64[np.ndarray, "draws p"]
    random_insertion: Float64[np.ndarray, "draws p"]

    def areas(self) -> dict[str, float]:
        """Return the areas under the curves, those of random orders as mean and standard deviation."""
        found: dict[str, float] = {}
        for name in ("deletion", "insertion"):
            found[name] = float(np.trapezoid(getattr(self, name), self.shares))
            random = np.trapezoid(getattr(self, f"random_{name}"), self.shares, axis=1)
            found[f"random_{name}"] = float(random.mean())
            found[f"random_{name}_std"] = float(random.std(ddof=1)) if len(random) > 1 else 0.0
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; of random orders mean and standard deviation along the curve."""
        found: dict[str, Any] = {"shares": self.shares.tolist()}
        found |= {"deletion": self.deletion.tolist(), "insertion": self.insertion.tolist()}
        for name in ("random_deletion", "random_insertion"):
            found[name] = getattr(self, name).mean(axis=0).tolist()
        return found | {"areas": self.areas(), "draws": len(self.random_deletion)}


def counts_of(parts: int) -> Int64[np.ndarray, "p"]:
    """Return after how many removed parts the score is measured: 0 ... `parts`, at most `POINTS` steps."""
    return np.unique(np.linspace(0, parts, min(parts, POINTS) + 1).round().astype(np.int64))


def rows_of(parts: int, *, draws: int) -> int:
    """Return how many changed clips `curves` scores."""
    return 2 * (1 + draws) * len(counts_of(parts))


def curves(
    relevance: np.ndarray,
    *,
    score: Callable[..., Float64[np.ndarray, "n"]],
    value: Callable[[Any], Any],
    draws: int,
    seed: int,
    tick: Tick | None = None,
) -> Curves:
    """Remove and add parts in the order of their relevance and in random orders.

    Args:
      relevance: of the parts, of any shape; equal values are ordered at random.
      score: bool [n,*shape of the relevance], True = kept -> scores [n].
      value: scores -> the values that are drawn.
      draws: random orders.
      seed: of the random orders.
      tick: called with how many rows are done since the last call.
    """
    generator, parts = np.random.default_rng(seed), relevance.size
    counts, shuffled = counts_of(parts), generator.permutation(parts)
    best = shuffled[np.argsort(-relevance.reshape(-1)[shuffled], kind="stable")]
    orders = np.stack([best, *(generator.permutation(parts) for _ in range(draws))])
    first = np.stack([_first(order, counts=counts) for order in orders])  # [1 + draws,p,parts]
    keep = np.stack([~first, first]).reshape(-1, *relevance.shape)
    found = value(score(keep, tick=tick)).reshape(2, len(orders), len(counts))
    shares = counts / parts
    (deletion, *_), (insertion, *_) = found
    random = {"random_deletion": found[0, 1:], "random_insertion": found[1, 1:]}
    return Curves(shares=shares, deletion=deletion, insertion=insertion, **random)


def _first(order: Int64[np.ndarray, "parts"], *, counts: Int64[np.ndarray, "p"]) -> Bool[np.ndarray, "p parts"]:
    """Tell for each count which parts are among the first in an order."""
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return place[None] < counts[:, None]
