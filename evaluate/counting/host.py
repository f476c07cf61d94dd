"""Scores of a small set in float64 on the host: what rounding cannot change is decided, the rest is left open."""

from collections.abc import Sequence

import numpy as np

from .questions import AMONG_CAPTIONS, Count, Pairs, decide, decide_groups


def margin(width: int, *, epsilon: float) -> float:
    """Return how far a score may lie from the exact one, in whatever order its products are added.

    The products of two unit rows of width E add up with an error of at most E epsilon / 2 (Higham, "Accuracy and
    Stability of Numerical Algorithms", 2002, section 3.1, with Cauchy-Schwarz); 64 more allow for rounded rows and for
    products in parts, as matrix units compute them. 2^-40 is for the grid of exact scores.

    Args:
      width: of the rows.
      epsilon: distance from 1 to the next number of the arithmetic.
    """
    return (width + 64) * epsilon / 2 + 2.0**-40


def count_on_host(counts: Sequence[Count], *, pairs: Pairs, block_bytes: int) -> None:
    """Fill the counts in blocks of whole videos' captions by all videos.

    Args:
      counts: of each question.
      pairs: the rows.
      block_bytes: memory for one block of scores.
    """
    near = margin(pairs.text.width, epsilon=float(np.finfo(np.float64).eps))
    video = pairs.video[:]
    rows = max(1, block_bytes // (8 * len(video)))
    stop = 0
    while stop < len(pairs.captioned):
        start, stop = (
            stop,
            max(stop + 1, int(np.searchsorted(pairs.starts, pairs.starts[stop] + rows, side="right")) - 1),
        )
        texts = pairs.order[pairs.starts[start] : pairs.starts[stop]]
        scores = pairs.text[texts] @ video.T
        by_group = np.maximum.reduceat(scores, pairs.starts[start:stop] - pairs.starts[start], axis=0)
        groups = np.arange(start, stop)
        for count in counts:
            if count.by_text:
                above, open_ = _split(scores, best=count.best[texts][:, None], near=near)
                count.add_above(texts, above=np.count_nonzero(above, axis=1))
                queries, candidates = np.nonzero(open_)
                decide([count], pairs=pairs, texts=texts[queries], videos=candidates)
                continue
            single = count.question == AMONG_CAPTIONS
            above, open_ = _split(scores if single else by_group, best=count.best, near=near)
            count.add_above(slice(None), above=np.count_nonzero(above, axis=0))
            candidates, videos = np.nonzero(open_)
            if single:
                decide([count], pairs=pairs, texts=texts[candidates], videos=videos)
            else:
                decide_groups([count], pairs=pairs, groups=groups[candidates], videos=videos)


def _split(scores: np.ndarray, *, best: np.ndarray, near: float) -> tuple[np.ndarray, np.ndarray]:
    """Return which scores are above `best` for certain, and which may be above or equal."""
    above = scores > best + near
    return above, (scores >= best - near) & ~above
