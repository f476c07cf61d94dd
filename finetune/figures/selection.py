"""Which clips to label next: uncertainty of predictions, coverage of embeddings (k-centre), or both."""

import dataclasses
from collections.abc import Callable

import numpy as np

from ...base.errors import UserError, unknown

WAYS = ("uncertainty", "k_centre", "both", "random")
_ROWS, _CENTRES = 8192, 512  # of a block of distances: memory does not grow with the number of clips
Tick = Callable[[int], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectOptions:
    """How clips are chosen.

    Attributes:
      budget: how many.
      by: one of `WAYS`. "both" takes the `candidates * budget` most uncertain clips, and of these a k-centre cover
        (the filter of Zhdanov 2019, "Diverse mini-batch Active Learning", arXiv:1901.05954, with k-centre for k-means).
      candidates: see `by`.
      seed: of "random".
    """

    budget: int
    by: str = "k_centre"
    candidates: int = 5
    seed: int = 0

    def __post_init__(self):
        if self.by not in WAYS:
            raise unknown("value of --by", self.by, WAYS)
        for name, least in (("budget", 1), ("candidates", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} must be at least {least}, got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """The chosen clips, in the order in which to label them.

    Attributes:
      index: int64 [k], numbers of the clips.
      distance: float64 [k], from each to the nearest labelled or earlier chosen clip; inf of a first clip without any.
      nearest: int64 [k], that clip; -1 = none.
      radius: distance to the nearest labelled or chosen clip of the clip that is farthest from all; nan if distances
        took no part.
    """

    index: np.ndarray
    distance: np.ndarray
    nearest: np.ndarray
    radius: float


def entropy(probability: np.ndarray, *, several: bool = False) -> np.ndarray:
    """Return how uncertain predictions are, nats, float64 [n].

    Args:
      probability: float [n,c]; rows sum to 1, or with `several` each is of its own class.
      several: clips may have several classes: the mean of the classes' binary entropies.
    """
    p = np.clip(np.asarray(probability, np.float64), 1e-12, 1.0)
    if not several:
        return -(p * np.log(p)).sum(axis=1)
    q = np.clip(1 - np.asarray(probability, np.float64), 1e-12, 1.0)
    return -(p * np.log(p) + q * np.log(q)).mean(axis=1)


def margin(probability: np.ndarray, *, several: bool = False) -> np.ndarray:
    """Return by how much the best class leads the second, 0..1, float64 [n]; small = uncertain.

    Args:
      probability: float [n,c], c at least 2 (or `several`).
      several: clips may have several classes: the smallest distance of a probability from 1/2, doubled.
    """
    p = np.asarray(probability, np.float64)
    if several:
        return 2 * np.abs(p - 0.5).min(axis=1)
    ordered = np.sort(p, axis=1)
    return ordered[:, -1] - ordered[:, -2]


def scaled(features: np.ndarray) -> np.ndarray:
    """Return features around 0 with a mean variance of 1, float32 [n,D].

    All are moved by one vector and multiplied by one number, which keeps the order of distances. The regularisation of
    a probe then means the same for every model; rows of unit length would hardly be fitted at all.
    """
    centred = features - features.mean(axis=0, dtype=np.float64).astype(np.float32)
    return centred / max(float(np.sqrt(np.mean(np.square(centred), dtype=np.float64))), 1e-12)


def k_centre(
    features: np.ndarray,
    *,
    budget: int,
    labelled: np.ndarray,
    candidates: np.ndarray | None = None,
    tick: Tick | None = None,
) -> Selection:
    """Choose clips that cover all others: again and again the one farthest from all labelled and chosen ones.

    The greedy 2-approximation of k-centre (Gonzalez 1985) as Sener & Savarese 2018 use it ("Active Learning for
    Convolutional Neural Networks: A Core-Set Approach", arXiv:1708.00489, algorithm 1); distances are Euclidean. Of
    equally far clips the first one is taken. Without labelled clips the first is the one nearest to the mean. Takes
    O(n (m + k) D) operations and, besides the features, O(n) memory.

    Args:
      features: float32 [n,D].
      budget: k.
      labelled: bool [n], clips that are centres already.
      candidates: bool [n], clips that may be chosen; None = all that are not labelled. The radius is over all clips.
      tick: called with the number of chosen clips.

    Returns:
      At most k clips; distances as of `Selection`.
    """
    may = ~labelled if candidates is None else candidates & ~labelled
    distance, nearest = _to_centres(features, centres=np.flatnonzero(labelled))
    chosen, at, by = [], [], []
    for _ in range(min(budget, int(may.sum()))):
        if np.isinf(distance).all():
            mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
            best = int(np.argmin(np.where(may, _squared(features, point=mean), np.inf)))
        else:
            best = int(np.argmax(np.where(may, distance, -1.0)))
        chosen.append(best)
        at.append(distance[best])
        by.append(nearest[best])
        may = may.copy()
        may[best] = False
        found = _squared(features, point=features[best])
        closer = found < distance
        distance, nearest = np.where(closer, found, distance), np.where(closer, best, nearest)
        if tick is not None:
            tick(len(chosen))
    return Selection(
        index=np.array(chosen, np.int64),
        distance=np.sqrt(np.array(at, np.float64)),
        nearest=np.array(by, np.int64),
        radius=float(np.sqrt(distance.max())) if len(distance) else float("nan"),
    )


def select_clips(
    features: np.ndarray,
    *,
    probability: np.ndarray | None,
    labelled: np.ndarray,
    options: SelectOptions,
    several: bool = False,
    tick: Tick | None = None,
) -> Selection:
    """Choose the clips to label next.

    Args:
      features: float32 [n,D].
      probability: float [n,c], predictions; needed by "uncertainty" and "both".
      labelled: bool [n], clips that have labels.
      options: how to choose.
      several: clips may have several classes.
      tick: called with the number of clips chosen so far.

    Raises:
      UserError: uncertainty is asked for without predictions.
    """
    free = np.flatnonzero(~labelled)
    if options.by in ("uncertainty", "both") and probability is None:
        raise UserError(f"--by {options.by} needs predictions of the clips; use --by k_centre")
    if options.by == "k_centre":
        return k_centre(features, budget=options.budget, labelled=labelled, tick=tick)
    if options.by == "random":
        generator = np.random.Generator(np.random.Philox(key=np.array((options.seed, 0x5E1EC7), np.uint64)))
        return _without_distances(generator.permutation(free)[: options.budget])
    assert probability is not None
    doubt = entropy(probability, several=several)[free]
    order = free[np.argsort(-doubt, kind="stable")]
    if options.by == "uncertainty":
        return _without_distances(order[: options.budget])
    candidates = np.zeros(len(features), bool)
    candidates[order[: options.candidates * options.budget]] = True
    return k_centre(features, budget=options.budget, labelled=labelled, candidates=candidates, tick=tick)


def _without_distances(index: np.ndarray) -> Selection:
    none = np.full(len(index), np.nan)
    return Selection(index=index, distance=none, nearest=np.full(len(index), -1), radius=float("nan"))


def _to_centres(features: np.ndarray, *, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the squared distance to the nearest centre, float64 [n], and which that is, int64 [n]; inf, -1 of none."""
    distance, nearest = np.full(len(features), np.inf), np.full(len(features), -1, np.int64)
    for begin in range(0, len(features), _ROWS):
        rows = features[begin : begin + _ROWS].astype(np.float64)
        part = slice(begin, begin + len(rows))
        for first in range(0, len(centres), _CENTRES):
            own = centres[first : first + _CENTRES]
            other = features[own].astype(np.float64)
            squared = (rows**2).sum(axis=1)[:, None] - 2 * rows @ other.T + (other**2).sum(axis=1)[None]
            best = squared.argmin(axis=1)
            found = np.maximum(squared[np.arange(len(rows)), best], 0.0)
            closer = found < distance[part]
            distance[part] = np.where(closer, found, distance[part])
            nearest[part] = np.where(closer, own[best], nearest[part])
    distance[centres] = 0.0
    return distance, nearest


def _squared(features: np.ndarray, *, point: np.ndarray) -> np.ndarray:
    """Return the squared distance of each row to a point, float64 [n], block by block."""
    found = np.empty(len(features))
    for begin in range(0, len(features), _ROWS):
        apart = features[begin : begin + _ROWS] - point
        found[begin : begin + _ROWS] = np.einsum("nd,nd->n", apart, apart, dtype=np.float64)
    return found
