"""Shots of a film by change points of its embeddings, and the choice of some of them within a length.

Kernel temporal segmentation (Potapov et al. 2014, "Category-specific video summarization", algorithm 1) with the dot
product as kernel; the 0/1 knapsack by which summaries are chosen (Song et al. 2015, TVSum).
"""

import numpy as np
from jaxtyping import Float64, Int64

from ...base.errors import UserError

MOST_CELLS = 1 << 23
"""Costs of segments that are held at a time; longer films get a bound on the length of a shot."""


def change_points(
    vectors: np.ndarray,
    *,
    shortest: int = 1,
    longest: int | None = None,
    most: int | None = None,
    penalty: float = 2.0,
) -> Int64[np.ndarray, "m"]:
    """Return where the vectors of a film change: the first moment of each shot but the first, in order.

    For each number of shots, dynamic programming finds the division with the least scatter: the squared distances of
    the vectors from the mean of their shot. The number k of change points is the one with the least scatter + penalty *
    noise * k * (log(moments / k) + 1). The noise is that of vectors within a shot, the largest of three: half of the
    squared distance that a quarter of the neighbours do not exceed; a tenth of the variance of all vectors, so that a
    slow movement is one shot; and a hundredth of their mean squared length, so that a still scene is one, too.

    Args:
      vectors: float [n,D], one for each moment, in order of time.
      shortest: moments of a shot at least; where there are fewer, all are one shot.
      longest: moments of a shot at most; None = as `MOST_CELLS` allows.
      most: shots at most; None = as many as there may be.
      penalty: of a change point; the higher, the fewer shots.

    Raises:
      UserError: no vectors, or numbers that are not finite or out of range.
    """
    vectors = _checked(vectors)
    count = len(vectors)
    if shortest < 1 or not penalty >= 0 or (longest is not None and longest < shortest) or (most or 1) < 1:
        raise UserError(
            f"at most {most} shots of {shortest} to {longest} moments with a penalty of {penalty}; wanted at least 1, "
            "no fewer moments at most than at least, and a penalty of at least 0"
        )
    longest = min(count, longest or max(2 * shortest, MOST_CELLS // count))
    if count < 2 * shortest:
        return np.zeros(0, np.int64)
    least = -(-count // longest)
    most = min(count // shortest, most or count)
    if most < least:
        raise UserError(
            f"{count} moments do not fit into {most} shots of at most {longest}; allow more, or longer ones"
        )
    totals, last = divisions(segment_scatter(vectors, longest=longest), shortest=shortest, most=most)
    noise = _noise(vectors)
    cuts = np.arange(most, dtype=np.float64)
    prices = penalty * noise * cuts * (np.log(count / np.maximum(cuts, 1)) + 1)
    shots = int(np.argmin(np.where(cuts + 1 >= least, totals + prices, np.inf))) + 1
    ends = [count]
    for number in range(shots, 1, -1):
        ends.append(int(last[number - 1, ends[-1]]))
    return np.array(ends[:0:-1], np.int64)


def at_frames(edges: np.ndarray, *, stamps: np.ndarray) -> np.ndarray:
    """Move the edges between shots to the nearest frame, by less than half the length of a shot: none becomes empty.

    Args:
      edges: float64 [s+1], seconds, increasing; the first and the last one stay.
      stamps: float64 [k], times of frames in seconds, in order.
    """
    inner = edges[1:-1]
    right = np.clip(np.searchsorted(stamps, inner), min(1, len(stamps) - 1), len(stamps) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(inner - stamps[left] <= stamps[right] - inner, stamps[left], stamps[right])
    room = np.minimum(np.diff(edges[:-1]), np.append(np.diff(inner), np.inf)[: len(inner)]) / 2
    return np.concatenate([edges[:1], np.where(np.abs(nearest - inner) < room, nearest, inner), edges[-1:]])


def segment_scatter(vectors: np.ndarray, *, longest: int) -> Float64[np.ndarray, "L n"]:
    """Return the scatter of each stretch of vectors: cell [l - 1, i] is that of the `l` vectors that end before i + 1.

    Stretches that would begin before the first vector are infinite.
    """
    count = len(vectors)
    centred = vectors - vectors.mean(axis=0)  # scatters stay the same, and rounding is less
    sums = np.concatenate([np.zeros((1, vectors.shape[1])), np.cumsum(centred, axis=0)])
    squares = np.concatenate([[0.0], np.cumsum(np.sum(centred**2, axis=1))])
    found = np.full((longest, count), np.inf)
    for length in range(1, longest + 1):
        whole = sums[length:] - sums[:-length]
        own = squares[length:] - squares[:-length] - np.einsum("nd,nd->n", whole, whole) / length
        found[length - 1, length - 1 :] = np.maximum(own, 0.0)
    return found


def divisions(
    scatter: Float64[np.ndarray, "L n"], *, shortest: int, most: int
) -> tuple[Float64[np.ndarray, "K"], np.ndarray]:
    """Divide moments into 1 to `most` shots, each with the least total scatter.

    Args:
      scatter: of `segment_scatter`; L is the length of the longest shot.
      shortest: length of the shortest shot.
      most: shots.

    Returns:
      float64 [most], the least totals, infinite where there is no division; and int32 [most, n + 1], where the last of
      k + 1 shots begins if they end before moment i.
    """
    longest, count = scatter.shape
    lengths = np.arange(shortest, longest + 1)
    ends = np.arange(1, count + 1)
    begins = ends[None] - lengths[:, None]  # [L',n]
    inside, own = begins >= 0, scatter[shortest - 1 :]
    begins = np.maximum(begins, 0)
    best = np.full(count + 1, np.inf)
    best[0] = 0.0
    totals, last = np.full(most, np.inf), np.zeros((most, count + 1), np.int32)
    for number in range(most):
        reached = np.where(inside, best[begins] + own, np.inf)
        choice = np.argmin(reached, axis=0)
        best = np.concatenate([[np.inf], np.take_along_axis(reached, choice[None], axis=0)[0]])
        last[number, 1:] = ends - lengths[choice]
        totals[number] = best[count]
    return totals, last


def knapsack(values: np.ndarray, *, weights: np.ndarray, capacity: int) -> list[int]:
    """Return the items with the largest total value within the capacity, in order; of equal choices the earlier items.

    >>> knapsack(np.array([0.6, 0.3, 0.3, 0.31]), weights=np.array([10, 5, 5, 5]), capacity=10)
    [1, 3]
    """
    table = np.zeros((len(values) + 1, capacity + 1))
    for row, (value, weight) in enumerate(zip(values, weights, strict=True)):
        table[row + 1] = table[row]
        if weight <= capacity:
            table[row + 1, weight:] = np.maximum(table[row, weight:], table[row, : capacity + 1 - weight] + value)
    chosen, left = [], capacity
    for row in range(len(values) - 1, -1, -1):
        if table[row + 1, left] != table[row, left]:
            chosen.append(row)
            left -= int(weights[row])
    return chosen[::-1]


def _noise(vectors: Float64[np.ndarray, "n D"]) -> float:
    """Return how far vectors of one shot are taken to be from their mean, squared; see `change_points`."""
    steps = np.sum(np.diff(vectors, axis=0) ** 2, axis=1)
    spread = np.mean(np.sum((vectors - vectors.mean(axis=0)) ** 2, axis=1))
    return max(
        float(np.quantile(steps, 0.25)) / 2, 0.1 * float(spread), 0.01 * float(np.mean(np.sum(vectors**2, axis=1)))
    )


def _checked(vectors: np.ndarray) -> Float64[np.ndarray, "n D"]:
    found = np.asarray(vectors, np.float64)
    if found.ndim != 2 or not len(found) or not np.isfinite(found).all():
        raise UserError(
            f"vectors of shape {found.shape}; wanted finite numbers [moments, width], one row at least: the model's "
            "weights or the film are damaged"
        )
    return found
