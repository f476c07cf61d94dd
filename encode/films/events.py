"""Events of films: stretches between the change points of the model's own embeddings, for captions with times."""

import dataclasses

import numpy as np
from jaxtyping import Float64

from ...base.errors import UserError
from ..embed.film import Film
from .shots import at_frames, change_points

MOST_MOMENTS = 2048
"""Moments that change points are looked for in; of longer films neighbours are averaged, so that memory and time are
bounded."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventOptions:
    """How films are cut into events.

    Attributes:
      seconds: length of the moments that are embedded; events begin and end with them, moved to the nearest frame.
      shortest_s: length of an event at least, in seconds; a shorter film is one event.
      longest_s: length of an event at most, at least twice `shortest_s`; None = no limit.
      most: events of a film at most; None = no limit.
      penalty: of a change point; the higher, the fewer events, see `shots.change_points`.
    """

    seconds: float = 0.5
    shortest_s: float = 1.0
    longest_s: float | None = None
    most: int | None = None
    penalty: float = 2.0

    def __post_init__(self):
        for name in ("seconds", "shortest_s"):
            if not 0 < getattr(self, name) < np.inf:
                raise UserError(f"{name}={getattr(self, name):g} of events; wanted seconds, above 0")
        if self.longest_s is not None and not 2 * self.shortest_s <= self.longest_s < np.inf:
            raise UserError(
                f"longest_s={self.longest_s:g} of events with shortest_s={self.shortest_s:g}; wanted at least twice as "
                "much, so that every film can be cut"
            )
        if self.longest_s is not None and self.longest_s < self.seconds:
            raise UserError(
                f"longest_s={self.longest_s:g} of events is less than a moment, seconds={self.seconds:g}; lower seconds"
            )
        if self.most is not None and self.most < 1:
            raise UserError(f"most={self.most} events; wanted at least 1")
        if not 0 <= self.penalty < np.inf:
            raise UserError(f"penalty={self.penalty:g} of events; wanted at least 0, such as 2")


def event_spans(film: Film, *, options: EventOptions) -> Float64[np.ndarray, "e 2"]:
    """Cut a film whose moments are embedded into events, by kernel temporal segmentation (`shots.change_points`).

    Returns:
      Start and end in seconds from the first picture, without gaps from 0 to the film's end, at times of frames where
      any are near.

    Raises:
      UserError: the film is longer than `most` events of `longest_s`.
    """
    vectors, begins = _coarser(film)
    moment = film.duration_s / len(vectors)
    shortest = min(max(1, round(options.shortest_s / moment)), len(vectors))
    longest = None
    if options.longest_s is not None:
        longest = max(2 * shortest - 1, int(options.longest_s / moment + 1e-6))
    if longest and options.most and options.most * longest < len(vectors):
        raise UserError(
            f"{film.path} lasts {film.duration_s:.1f} s, more than {options.most} events (most, --most) of "
            f"{options.longest_s:g} s (longest_s, --longest); allow more of them, or longer ones"
        )
    cuts = change_points(vectors, shortest=shortest, longest=longest, most=options.most, penalty=options.penalty)
    edges = at_frames(np.concatenate([[0.0], begins[cuts], [film.duration_s]]), stamps=film.stamps_s)
    return np.column_stack([edges[:-1], edges[1:]])


def _coarser(film: Film) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors [n,D] of at most `MOST_MOMENTS` moments, means of neighbours in longer films, and their starts."""
    starts = np.arange(0, len(film.vectors), -(-len(film.vectors) // MOST_MOMENTS))
    sums = np.add.reduceat(film.vectors.astype(np.float64), starts, axis=0)
    return sums / np.diff(np.append(starts, len(film.vectors)))[:, None], film.edges_s[starts]
