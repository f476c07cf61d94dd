"""Summaries of films: shots by change points, a score for each, and those that fit into a share of the length."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UserError
from ..embed.film import Film, FilmModel, read_film
from .importance import moment_scores
from .shots import at_frames, change_points, knapsack

_GRID_S = 0.01  # lengths are weighed in the knapsack as whole multiples of it, in films of an hour ten times that


@dataclasses.dataclass(frozen=True, kw_only=True)
class SummaryOptions:
    """How films are summarised; a model of task "summarise" carries its own.

    Attributes:
      share: length of the summary at most, as a share of the film's.
      seconds: length of the moments that a model without a head embeds.
      shortest_s: length of a shot at least, in seconds.
      penalty: of a change point; the higher, the fewer shots, see `shots.change_points`.
    """

    share: float = 0.15
    seconds: float = 0.5
    shortest_s: float = 1.0
    penalty: float = 2.0

    def __post_init__(self):
        if not 0 < self.share <= 1:
            raise UserError(f"share={self.share:g} of a film's length; wanted above 0 and at most 1, such as 0.15")
        for name in ("seconds", "shortest_s"):
            if not 0 < getattr(self, name) < np.inf:
                raise UserError(f"{name}={getattr(self, name):g}; wanted seconds, above 0")
        if not 0 <= self.penalty < np.inf:
            raise UserError(f"penalty={self.penalty:g}; wanted at least 0, such as 2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """A film with its shots, s in all.

    Attributes:
      film: its moments.
      scores: float64 [n], of the moments, 0..1.
      starts: int64 [s], the first moment of each shot.
      shots: float64 [s,2], start and end in seconds, at times of frames where any are near.
      values: float64 [s], mean score of each shot's moments.
      chosen: the numbers of the shots in the summary, in order.
      best: int64 [s], the moment of each shot that stands for it.
    """

    film: Film
    scores: np.ndarray
    starts: np.ndarray
    shots: np.ndarray
    values: np.ndarray
    chosen: tuple[int, ...]
    best: np.ndarray

    @property
    def seconds(self) -> float:
        """Length of the summary in seconds."""
        return float(sum(end - start for start, end in self.shots[list(self.chosen)]))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: `duration_s`, `summary_s`, and `shots` with `start_s`, `end_s`, `score`, `chosen`."""
        rows = zip(self.shots.round(3).tolist(), self.values.tolist(), strict=True)
        shots = [
            {"start_s": start, "end_s": end, "score": round(score, 4), "chosen": number in self.chosen}
            for number, ((start, end), score) in enumerate(rows)
        ]
        return {
            "duration_s": round(self.film.duration_s, 3),
            "summary_s": round(self.seconds, 3),
            "shots": shots,
        }


def summarise_file(
    model: FilmModel,
    path: Path,
    *,
    options: SummaryOptions,
    workers: int = 0,
    batch_size: int = 8,
    tick: Callable[[float, float | None], object] = lambda done_s, length_s: None,
) -> Summary:
    """Find the shots of a film and choose its summary.

    A model of task "summarise" scores the moments; for any other, a shot's score is what it adds to the film's
    representation (`importance.moment_scores`): nothing is trained.

    Args:
      model: an `Encoder`, or a `TimelinePredictor` of task "summarise".
      path: the film.
      options: see `SummaryOptions`.
      workers: processes that decode; 0 = one per core.
      batch_size: moments at a time.
      tick: see `film.read_film`.

    Raises:
      UserError: a file that cannot be decoded.
    """
    how: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "tick": tick}
    return summary_of(read_film(model, path, seconds=options.seconds, **how), options=options)


def summary_of(film: Film, *, options: SummaryOptions) -> Summary:
    """Find the shots of a film whose moments are embedded, and choose its summary."""
    starts = shot_starts(film.vectors, duration_s=film.duration_s, options=options)
    scores = film.scores
    if scores is None:
        scores = moment_scores(film.vectors, starts=starts, contrast=film.contrast)
    edges = at_frames(np.append(film.edges_s[starts], film.duration_s), stamps=film.stamps_s)
    lengths = np.diff(np.append(starts, len(scores)))
    values = np.add.reduceat(scores, starts) / lengths
    shots = np.column_stack([edges[:-1], edges[1:]])
    return Summary(
        film=film,
        scores=scores,
        starts=starts,
        shots=shots,
        values=values,
        chosen=tuple(choose(values, seconds=shots[:, 1] - shots[:, 0], share=options.share)),
        best=np.array([_best(scores[first : first + n]) + first for first, n in zip(starts, lengths, strict=True)]),
    )


def shot_starts(vectors: np.ndarray, *, duration_s: float, options: SummaryOptions) -> np.ndarray:
    """Return the first moment of each shot, int64 [s], of vectors [n,D] of equal parts of a film."""
    shortest = max(1, round(options.shortest_s * len(vectors) / max(duration_s, 1e-9)))
    return np.append(0, change_points(vectors, shortest=shortest, penalty=options.penalty))


def choose(values: np.ndarray, *, seconds: np.ndarray, share: float) -> list[int]:
    """Choose shots within a share of the film's length by the 0/1 knapsack, in order.

    As the field's evaluation does (Zhang et al. 2016), a shot is worth its mean score, whatever its length. Where no
    shot fits, the best of the shortest is chosen: a summary is never empty.

    Args:
      values: float [s], of the shots.
      seconds: float [s], their lengths.
      share: of the film's length.

    >>> choose(np.array([0.5, 0.9, 0.4]), seconds=np.array([1.0, 9.0, 2.0]), share=0.3)
    [0, 2]
    """
    grid = max(_GRID_S, seconds.sum() / 360_000)
    weights = np.maximum(1, np.ceil(seconds / grid - 1e-6)).astype(np.int64)
    chosen = knapsack(values, weights=weights, capacity=int(seconds.sum() * share / grid + 1e-6))
    return chosen or [int(np.lexsort((-values, weights))[0])]


def _best(scores: np.ndarray) -> int:
    """Return the moment of the highest score; of equal ones the middle one."""
    equal = np.flatnonzero(scores >= scores.max() - 1e-9)
    return int(equal[len(equal) // 2])
