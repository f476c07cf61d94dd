"""Scores of a text with a clip that come from both together, and ranks where they re-order the first candidates.

The heads of `models.heads.joint` compare one text with one clip at a time. They score the first k candidates of each
query, by the plain cosine, or all pairs; the other candidates keep their places below these.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from ...base.errors import UserError

KINDS = {"x_pool": "text_pooling", "cross_encoder": "matching"}
"""Name of `--rerank` -> name of the head in `config.model.heads` that gives its scores."""

DEFAULT_K = {"x_pool": 0, "cross_encoder": 50}
"""Name of `--rerank` -> candidates k of each query that are scored, unless another number is given; 0 = all."""

SIDES = ("videos", "texts")
"""Whose candidates: the videos of each text, the texts of each video."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidates:
    """The scored candidates of each query of one direction.

    Attributes:
      index: int32 [q,k], the first k candidates by the plain cosine, the nearest first; of equal ones the lower index.
      scores: float32 [q,k], the head's scores of these; any range, a higher one is a better match.
    """

    index: np.ndarray
    scores: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointScores:
    """What a head gave: the scores of all pairs, or of the first candidates in both directions.

    Attributes:
      pairs: float32 [n,m], of all texts with all videos, or None.
      candidates: "videos" (of each text) and "texts" (of each video) -> those that were scored; {} with `pairs`.
    """

    pairs: np.ndarray | None = None
    candidates: Mapping[str, Candidates] = dataclasses.field(default_factory=dict)

    def to_arrays(self, kind: str) -> dict[str, np.ndarray]:
        """Return the arrays of an `embeddings.npz`."""
        made = {} if self.pairs is None else {_array(kind, "pairs"): self.pairs}
        for side, one in self.candidates.items():
            made |= {_array(kind, side): one.index, _array(kind, f"{side}_scores"): one.scores}
        return made

    def first(self, side: str, *, plain: np.ndarray, k: int) -> Candidates:
        """Return the first k candidates of each query with their scores.

        Args:
          side: of `SIDES`.
          plain: float [q,c], the cosines of the queries with all candidates.
          k: how many; 0 = all.

        Raises:
          UserError: fewer were scored.
        """
        wanted = min(k, plain.shape[1]) if k else plain.shape[1]
        if self.pairs is not None:
            index = first_candidates(plain, k=wanted)
            pairs = self.pairs if side == "videos" else self.pairs.T
            return Candidates(index=index, scores=np.take_along_axis(pairs, index, axis=1))
        one = self.candidates[side]
        if wanted > one.index.shape[1]:
            raise UserError(
                f"k={k or 'all'} asks for {wanted} {side} of each query, and {one.index.shape[1]} were scored; measure "
                "the MODEL again with this k, or take a smaller one"
            )
        return Candidates(index=one.index[:, :wanted], scores=one.scores[:, :wanted])


def _array(kind: str, what: str) -> str:
    return f"joint_{kind}_{what}"


def joint_of(arrays: Mapping[str, np.ndarray], *, texts: int, videos: int) -> dict[str, JointScores]:
    """Read the scores of all heads from the arrays of a file.

    Args:
      arrays: of an `embeddings.npz`.
      texts: n.
      videos: m.

    Raises:
      UserError: arrays that are missing or do not fit.
    """
    found = {}
    for kind in KINDS:
        pairs = arrays.get(_array(kind, "pairs"))
        if pairs is not None:
            _check_scores(pairs, name=_array(kind, "pairs"), shape=(texts, videos))
            found[kind] = JointScores(pairs=pairs)
            continue
        sizes = {"videos": (texts, videos), "texts": (videos, texts)}
        there = {side: arrays.get(_array(kind, side)) for side in SIDES}
        if all(index is None for index in there.values()):
            continue
        found[kind] = JointScores(
            candidates={side: _candidates(arrays, kind, side, sizes=size) for side, size in sizes.items()}
        )
    return found


def _candidates(arrays: Mapping[str, np.ndarray], kind: str, side: str, *, sizes: tuple[int, int]) -> Candidates:
    names = _array(kind, side), _array(kind, f"{side}_scores")
    for name in names:
        if name not in arrays:
            raise UserError(f"{name!r} is missing; embed the split again with --rerank {kind}")
    (index, scores), (queries, limit) = (arrays[name] for name in names), sizes
    if index.dtype.kind not in "iu" or index.ndim != 2 or len(index) != queries:
        raise UserError(f"{names[0]!r} is {index.dtype} {index.shape}; wanted int [{queries},k]")
    if index.size and not 0 <= index.min() <= index.max() < limit:
        raise UserError(f"{names[0]!r} has the index {index.max()}; wanted 0 to {limit - 1}")
    _check_scores(scores, name=names[1], shape=index.shape)
    return Candidates(index=index, scores=scores)


def _check_scores(scores: np.ndarray, *, name: str, shape: tuple[int, ...]) -> None:
    if scores.dtype.kind != "f" or scores.shape != shape:
        raise UserError(f"{name!r} is {scores.dtype} {scores.shape}; wanted float {list(shape)}")
    if not np.isfinite(scores).all():
        raise UserError(f"{name!r} has a score that is not finite")


def first_candidates(scores: np.ndarray, *, k: int) -> np.ndarray:
    """Return the k highest candidates of each query, the highest first, of equal ones the lower index; int32 [q,k].

    >>> first_candidates(np.array([[0.1, 0.9, 0.9, 0.3]]), k=3).tolist()
    [[1, 2, 3]]
    """
    if k < scores.shape[1]:  # the k-th score splits the row, so that only its upper part is sorted
        last = -np.partition(-scores, k - 1, axis=1)[:, k - 1 : k]
        scores = np.where(scores >= last, scores, -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int32)


def reordered(plain: np.ndarray, *, candidates: Candidates, cosine: float = 0.0) -> np.ndarray:
    """Return scores float64 [q,c] by which the candidates of each query stand above all others, in their new order.

    Args:
      plain: float [q,c], the plain scores, which order the others.
      candidates: of each query.
      cosine: factor on the plain score, which is added to the head's.

    Of three candidates the first two are exchanged:

    >>> first = Candidates(index=np.array([[0, 1]], np.int32), scores=np.array([[-3.0, 5.0]]))
    >>> reordered(np.array([[0.9, 0.8, 0.7]]), candidates=first).argsort()[0, ::-1].tolist()
    [1, 0, 2]
    """
    scores = candidates.scores.astype(np.float64)
    scores = scores + cosine * np.take_along_axis(plain, candidates.index, axis=1)
    lifted = scores - scores.min(axis=1, keepdims=True) + plain.max() + 1.0
    found = plain.astype(np.float64)
    np.put_along_axis(found, candidates.index, lifted, axis=1)
    return found
