"""How much each shot of a film is worth showing, without training: representative of the film, and unlike the others.

Shots are chosen one after another, each the one that adds most to how well the film's moments are represented
(facility location; Lin & Bilmes 2011, Gygli et al. 2015). What a shot adds is its score: it is high where many moments
are like the shot, and low where a shot chosen before is like it. Black and plain frames show nothing: they need no
representation, and are worth nothing.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int64

MOST = 2000
"""Moments by which representation is measured; of longer films so many, evenly spread."""

_NOTHING = 1e-9  # a gain that is rounding
PLAIN = 8.0
"""Grey levels: pictures of a lower contrast are plain (black, fades)."""


def shot_gains(
    vectors: np.ndarray, *, starts: Int64[np.ndarray, "s"], shown: Bool[np.ndarray, "n"] | None = None
) -> Float64[np.ndarray, "s"]:
    """Return what each shot adds, 0..1, the best shot of the film 1.

    A moment is represented by the largest cosine of its vector with the mean vector of a chosen shot, but no less than
    by the mean cosine of two moments of the film, as if one were chosen at random.

    Args:
      vectors: float [n,D], one for each moment.
      starts: the first moment of each shot, the first one 0.
      shown: moments that count; None = all, which is also meant where none does.
    """
    if shown is None or not shown.any():
        shown = np.ones(len(vectors), bool)
    rows = _unit(np.asarray(vectors, np.float64))
    lengths = np.diff(np.append(starts, len(rows)))
    centres = _unit(np.add.reduceat(rows, starts, axis=0) / lengths[:, None])
    seen = rows[shown]
    seen = seen[np.unique(np.linspace(0, len(seen) - 1, min(len(seen), MOST)).round().astype(int))]
    likeness = centres @ seen.T  # [s,r]
    represented = np.full(len(seen), np.sum(seen.mean(axis=0) ** 2))
    gains, left = np.zeros(len(starts)), np.logical_or.reduceat(shown, starts)
    for _ in range(int(left.sum())):
        adds = np.where(left, np.maximum(likeness - represented, 0.0).mean(axis=1), -1.0)
        best = int(adds.argmax())
        gains[best], left[best] = adds[best], False
        represented = np.maximum(represented, likeness[best])
    return gains / gains.max() if gains.max() > _NOTHING else np.logical_or.reduceat(shown, starts).astype(np.float64)


def moment_scores(
    vectors: np.ndarray, *, starts: Int64[np.ndarray, "s"], contrast: np.ndarray | None = None
) -> Float64[np.ndarray, "n"]:
    """Return a score of each moment, 0..1: that of its shot times its cosine with the shot's mean, where above 0.

    Args:
      vectors: see `shot_gains`.
      starts: see `shot_gains`.
      contrast: float [n], of the moments' pictures in grey levels; those below `PLAIN` score 0, unless all are.
    """
    shown = np.ones(len(vectors), bool) if contrast is None else np.asarray(contrast) >= PLAIN
    shown = shown if shown.any() else ~shown
    rows, lengths = _unit(np.asarray(vectors, np.float64)), np.diff(np.append(starts, len(vectors)))
    centres = _unit(np.add.reduceat(rows, starts, axis=0) / lengths[:, None])
    typical = np.einsum("nd,nd->n", rows, np.repeat(centres, lengths, axis=0))
    return np.repeat(shot_gains(vectors, starts=starts, shown=shown), lengths) * np.clip(typical, 0.0, 1.0) * shown


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
