"""Figures of summaries against annotators', and of shots against known changes, with baselines that learn nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from ...encode.films.moments import at_moments
from ...encode.films.summary import choose
from ...evaluate.measures.summaries import correlations, spread, summarise, summary_f
from ..examples.annotators import Annotations

GRID_S = 0.1
"""Length of a frame in the figures; F-scores count frames."""
NEAR_S = (0.25, 0.5)
"""How far from a known change a found one may lie, in seconds."""
RANDOM_DRAWS = 10
ROWS = ("model", "untrained", "random", "uniform", "annotators")
"""What is measured."""


def summary_figures(
    found: Sequence[np.ndarray], *, annotations: Sequence[Annotations], duration: np.ndarray, share: float
) -> dict[str, Any]:
    """Return F-scores and rank correlations of predicted scores, as TVSum and SumMe are evaluated.

    Shots are those that were found, for predictions and annotators alike; F counts frames of `GRID_S`. An annotator's
    summary is what he keeps; of one who gives scores, the knapsack over them (rule "vsumm").

    Args:
      found: of each example float64 [T,3], what `TimelinePredictor.head` gives.
      annotations: of each example.
      duration: float64 [q], seconds.
      share: of the film's length.

    Returns:
      `n`; `model`, and as baselines `untrained` (what a shot adds to the representation of the film), `random` (mean of
      `RANDOM_DRAWS` draws), `uniform` (shots evenly spread) and `annotators` (each of them against the others), each
      `F_mean` and `F_max` in percent, and but for `uniform` `kendall` and `spearman`. None = not defined.
    """
    rng = np.random.default_rng(0)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in ROWS}
    for output, said, seconds in zip(found, annotations, duration.tolist(), strict=True):
        film = _GriddedFilm(output[:, 1] > 0, said=said, seconds=seconds, share=share)
        rows["model"].append(film.figures(output[:, 0]))
        rows["untrained"].append(film.figures(output[:, 2]))
        draws = [film.figures(rng.random(len(output))) for _ in range(RANDOM_DRAWS)]
        rows["random"].append({key: _mean([draw[key] for draw in draws]) for key in draws[0]})
        rows["uniform"].append(film.uniform())
        rows["annotators"].append(film.annotators())
    means = {
        name: {key: _none(_mean([one[key] for one in own])) for key in own[0]} for name, own in rows.items() if own
    }
    return {"n": len(found), **means}


def change_figures(
    found: Sequence[np.ndarray], *, changes: Sequence[Sequence[float] | None], duration: np.ndarray
) -> dict[str, Any]:
    """Return recall and precision of the found change points, in percent, where the true ones are known.

    Args:
      found: see `summary_figures`.
      changes: of each example the times of its changes in seconds; None = unknown, the example does not count.
      duration: float64 [q], seconds.

    Returns:
      {} where none are known; else `n` films, `changes` and `found` in all, and for each distance of `NEAR_S`, by its
      name, `recall`, `precision`, and `even`, the recall of as many change points that are evenly spread. A true change
      and a found one are matched once.
    """
    known = [i for i, one in enumerate(changes) if one is not None]
    if not known:
        return {}
    counts = {"changes": 0, "found": 0}
    hits = {near: [0, 0] for near in NEAR_S}
    for i in known:
        truth, seconds = np.sort(np.asarray(changes[i], np.float64)), float(duration[i])
        starts = np.flatnonzero(found[i][:, 1])[1:] * seconds / len(found[i])
        even = np.linspace(0, seconds, len(starts) + 2)[1:-1]
        counts["changes"] += len(truth)
        counts["found"] += len(starts)
        for near, own in hits.items():
            own[0] += matched(truth, found=starts, near_s=near)
            own[1] += matched(truth, found=even, near_s=near)
    shares = {
        f"within {near:g} s": {
            "recall": 100 * right / max(1, counts["changes"]),
            "precision": 100 * right / max(1, counts["found"]),
            "even": 100 * even / max(1, counts["changes"]),
        }
        for near, (right, even) in hits.items()
    }
    return {"n": len(known), **counts, **shares}


def matched(truth: np.ndarray, *, found: np.ndarray, near_s: float) -> int:
    """Return how many sorted times can be matched with found ones at most `near_s` away, each of both once.

    >>> matched(np.array([1.0, 2.0, 5.0]), found=np.array([1.4, 1.5, 9.0]), near_s=0.5)
    2
    """
    count, place = 0, 0
    for time in truth:
        while place < len(found) and found[place] < time - near_s - 1e-9:
            place += 1
        if place < len(found) and found[place] <= time + near_s + 1e-9:
            count, place = count + 1, place + 1
    return count


class _GriddedFilm:
    """A film on the grid of frames, with its shots and what its annotators keep."""

    def __init__(self, begins: np.ndarray, *, said: Annotations, seconds: float, share: float):
        steps, parts = len(begins), said.scores.shape[1]
        self._said, self._share = said, share
        self._frames = max(round(seconds / GRID_S), steps, parts)
        self._picks = np.arange(steps) * self._frames // steps
        starts = self._picks[np.flatnonzero(begins)]
        self._points = np.column_stack([starts, np.append(starts[1:], self._frames) - 1])
        times = (np.arange(self._frames) + 0.5) * seconds / self._frames
        kept = said.kept(times)
        if kept is None:
            places = np.arange(parts) * self._frames // parts
            kept = np.stack([self._summary(scores, picks=places) for scores in said.scores])
        self._users = kept

    def figures(self, scores: np.ndarray) -> dict[str, float]:
        """Return the figures of scores of the time steps."""
        own = self._f(self._summary(scores, picks=self._picks), users=self._users)
        return own | self._ranks(at_moments(scores, moments=self._said.scores.shape[1]), users=self._said.scores)

    def uniform(self) -> dict[str, float]:
        """Return the F-scores of shots that are evenly spread, as many as fit."""
        lengths = self._points[:, 1] - self._points[:, 0] + 1
        summary = np.zeros(self._frames, bool)
        for count in range(len(lengths), 0, -1):
            shots = np.unique(((np.arange(count) + 0.5) * len(lengths) / count).astype(int))
            if lengths[shots].sum() <= self._frames * self._share or count == 1:
                for first, last in self._points[shots]:
                    summary[first : last + 1] = True
                break
        return self._f(summary, users=self._users)

    def annotators(self) -> dict[str, float]:
        """Return the figures of each annotator against the others, their mean."""
        count = len(self._users)
        if count < 2:
            return dict.fromkeys(("F_mean", "F_max", "kendall", "spearman"), float("nan"))
        found = []
        for i in range(count):
            others = np.arange(count) != i
            ranks = self._ranks(self._said.scores[i], users=self._said.scores[others])
            found.append(self._f(self._users[i], users=self._users[others]) | ranks)
        return {key: _mean([one[key] for one in found]) for key in found[0]}

    def _summary(self, scores: np.ndarray, *, picks: np.ndarray) -> np.ndarray:
        how: dict[str, Any] = {"change_points": self._points, "n_frames": self._frames, "share": self._share}
        summary, chosen = summarise(scores, picks=picks, **how)
        if not chosen:  # no shot fits: the same shot as in a summary that is written
            frames = spread(scores, picks=picks, n_frames=self._frames)
            values = np.array([frames[first : last + 1].mean() for first, last in self._points])
            lengths = (self._points[:, 1] - self._points[:, 0] + 1).astype(np.float64)
            for number in choose(values, seconds=lengths, share=self._share):
                summary[self._points[number, 0] : self._points[number, 1] + 1] = True
        return summary

    def _f(self, summary: np.ndarray, *, users: np.ndarray) -> dict[str, float]:
        found = summary_f(summary, users=users)
        return {"F_mean": found["mean"]["F"], "F_max": found["best"]["F"]}

    def _ranks(self, scores: np.ndarray, *, users: np.ndarray) -> dict[str, float]:
        try:
            found = correlations(scores, users=users)
        except UserError:  # all alike: no correlation is defined
            return {"kendall": float("nan"), "spearman": float("nan")}
        return {key: found[key] for key in ("kendall", "spearman")}


def _mean(values: Sequence[float]) -> float:
    kept = [value for value in values if not np.isnan(value)]
    return float(np.mean(kept)) if kept else float("nan")


def _none(value: float) -> float | None:
    return None if np.isnan(value) else value
