"""Figures of the first k places that mteb and MMEB-V2 share."""

import numpy as np

K = (1, 5, 10)


def gains(hits: np.ndarray, *, total: np.ndarray, k: int) -> dict[str, float]:
    """Return means over queries of the figures at k.

    Args:
      hits: bool [n,p], whether a right candidate stands at each of the first places.
      total: int [n], the right candidates of each query.
      k: the number of places.

    Returns:
      `hit`, `ndcg`, `precision` (divided by k), `recall` (divided by all right candidates), `mrr`, `map_all` (divided
      by all right candidates) and `map_cut` (divided by min(k, right candidates)).

    >>> found = gains(np.array([[False, True]]), total=np.array([4]), k=2)
    >>> found["recall"], found["mrr"], found["map_all"], found["map_cut"]
    (0.25, 0.5, 0.125, 0.25)
    """
    hits = hits[:, :k]
    place = np.arange(1, hits.shape[1] + 1)
    discount = 1 / np.log2(1 + np.arange(1, k + 1))
    ideal = np.concatenate([[np.inf], np.cumsum(discount)])[np.minimum(total, k)]
    found = hits.sum(axis=1)
    precision = (np.cumsum(hits, axis=1) / place * hits).sum(axis=1)
    first = np.where(hits.any(axis=1), 1 / (1 + hits.argmax(axis=1)), 0.0)
    every = np.maximum(total, 1)  # no query without a right candidate has a hit
    figures = {
        "hit": found > 0,
        "ndcg": (hits * discount[: hits.shape[1]]).sum(axis=1) / ideal,
        "precision": found / k,
        "recall": found / every,
        "mrr": first,
        "map_all": precision / every,
        "map_cut": precision / np.minimum(every, k),
    }
    return {name: float(np.mean(values)) for name, values in figures.items()}
