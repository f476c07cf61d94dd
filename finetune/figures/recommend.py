"""Figures of the next clip of sessions: nDCG, MAP, MRR, recall; of a model and of what needs none."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...evaluate.measures.recommendation import recommendation

CHUNK = 1_024
"""Sessions whose scores are held at a time."""
Scores = Callable[[Sequence[np.ndarray]], np.ndarray]
"""Histories -> float64 [sessions,items], higher for what is to come next."""


def recommendation_figures(
    scores: Scores, *, sessions: Sequence[np.ndarray], known: np.ndarray, k: int, exclude_seen: bool
) -> dict[str, Any]:
    """Measure what comes next: the last item of each session, from those before it.

    Args:
      scores: of the items.
      sessions: of each the numbers of its items, at least two.
      known: bool [items], which of them sessions of training have; the others are cold.
      k: the number of places.
      exclude_seen: items of the history come last; not the one that does come next.

    Returns:
      What `measures.recommendation.recommendation` gives, over all sessions; and `cold` and `warm`, the same of those
      whose next item is in no session of training, or in some; None without any.
    """
    parts: dict[str, list[tuple[int, dict[str, Any]]]] = {"cold": [], "warm": []}
    for begin in range(0, len(sessions), CHUNK):
        part = sessions[begin : begin + CHUNK]
        found = scores([items[:-1] for items in part]).astype(np.float64)
        target = np.array([items[-1] for items in part])
        if exclude_seen:
            last = found.min() - 1
            for row, items in enumerate(part):
                found[row, items[:-1][items[:-1] != items[-1]]] = last
        relevance = np.zeros(found.shape, np.float32)
        relevance[np.arange(len(part)), target] = 1
        for name, chosen in (("cold", ~known[target]), ("warm", known[target])):
            if chosen.any():
                own = recommendation(found[chosen], relevance=relevance[chosen], k=k)
                parts[name].append((int(chosen.sum()), own))
    return _mean(parts["cold"] + parts["warm"]) | {
        name: _mean(parts[name]) if parts[name] else None for name in ("cold", "warm")
    }


def _mean(parts: Sequence[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """Return the mean over users of figures of several groups of them."""
    total, found = sum(count for count, _ in parts), {}
    for name, value in parts[0][1].items():
        if isinstance(value, dict):
            found[name] = _mean([(count, one[name]) for count, one in parts])
        elif name in ("users", "empty"):
            found[name] = sum(one[name] for _, one in parts)
        else:
            found[name] = sum(count * one[name] for count, one in parts) / total
    return found


def popularity(sessions: Sequence[np.ndarray], *, items: int) -> np.ndarray:
    """Return how often each item stands in sessions, float64 [items]."""
    return np.bincount(np.concatenate(sessions), minlength=items).astype(np.float64)


def popular_scores(count: np.ndarray) -> Scores:
    """Score items by their popularity."""
    return lambda histories: np.tile(count, (len(histories), 1))


def equal_scores(items: int) -> Scores:
    """Score all items alike: the figures are those of a random order, in expectation."""
    return lambda histories: np.zeros((len(histories), items))


def mean_scores(vectors: np.ndarray) -> Scores:
    """Score items by the cosine of their vector, less the mean of all, and that of the mean of the history.

    Args:
      vectors: float [items,D], such as those of a tower that was not trained for it.
    """
    centred = vectors - vectors.mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)

    def score(histories: Sequence[np.ndarray]) -> np.ndarray:
        mean = np.stack([unit[items].mean(axis=0) for items in histories])
        mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
        return mean @ unit.T

    return score
