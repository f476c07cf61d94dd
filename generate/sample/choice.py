"""The best of several generated clips, as a dual tower sees them (Ramesh et al. 2021, arXiv:2102.12092)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from ...base.errors import UserError
from ...encode.embed.encoder import Encoder
from ..flow.solve import SolverOptions
from .painter import Clips, Painter
from .towers import embedded


class Best(NamedTuple):
    """What was chosen for n texts.

    Attributes:
      video: uint8 RGB [n,T,H,W,3].
      candidate: int32 [n], which of the candidates it is, from 0.
      score: float32 [n], its cosine with the text, by the tower that ranks.
    """

    video: Clips
    candidate: Int32[np.ndarray, "n"]
    score: Float32[np.ndarray, "n"]


def paint_best(
    painter: Painter,
    texts: Sequence[str],
    *,
    ranker: Encoder,
    candidates: int,
    solver: SolverOptions | None = None,
    seed: int = 0,
    first: Clips | None = None,
    batch_size: int = 16,
) -> Best:
    """Generate several clips for each text and keep the one that a tower finds nearest to it.

    Candidate k of a text is the clip that `painter.paint(texts, seed=seed + k)` makes. One candidate of each text is
    held beside the best so far.

    Args:
      painter: the generator.
      texts: n texts.
      ranker: the tower, of `towers.load_tower`.
      candidates: clips of each text.
      solver: how they are drawn; None = its defaults.
      seed: of the first candidate.
      first: the first candidates where they are there already; None = they are generated.
      batch_size: clips at a time.

    Raises:
      UserError: no candidate, or seeds beyond their range; see also `Painter.paint`.
    """
    if candidates < 1:
        raise UserError(f"--best_of must be at least 1, got {candidates}")
    words = ranker.encode_text(list(texts))
    best: Best | None = None
    for k in range(candidates):
        ready = first if k == 0 else None
        video = painter.paint(texts, solver=solver, seed=seed + k, batch_size=batch_size) if ready is None else ready
        score = np.sum(embedded(ranker, video) * words, axis=1)
        if best is None:
            best = Best(video.copy(), np.zeros(len(score), np.int32), score)
            continue
        better = score > best.score
        best.video[better], best.candidate[better], best.score[better] = video[better], k, score[better]
    assert best is not None
    return best
