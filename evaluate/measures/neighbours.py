"""Weighted k-nearest-neighbour classification of embeddings, with NumPy or FAISS."""

import importlib.util
from typing import Any

import numpy as np

from ...base.errors import UserError
from .checks import check_index
from .rows import unit_rows

_BLOCK = 1 << 24  # cosines that are held at a time
_GRID = 2.0**40
_SPARE, _FLOAT32 = 64, 1e-5  # neighbours asked of FAISS beyond k, and how far its cosines may be off


def has_faiss() -> bool:
    """Return whether FAISS is installed (the extra `search`)."""
    return importlib.util.find_spec("faiss") is not None


def weighted_knn(
    queries: np.ndarray,
    *,
    bank: np.ndarray,
    targets: np.ndarray,
    k: int = 20,
    temperature: float = 0.07,
    faiss: bool = False,
) -> np.ndarray:
    """Score queries by the votes of their k nearest neighbours in a bank.

    A neighbour votes for its classes with the weight exp(cosine / temperature): the weighted k-NN of DINO (Caron et al.
    2021, arXiv:2104.14294, section 4.2; from Wu et al. 2018, arXiv:1805.01978, section 3.4). Neighbours that are tied
    for the last of the k places share them.

    Args:
      queries: float [n,E], normalised here.
      bank: float [m,E], normalised here.
      targets: bool [m,c], the classes of each row of the bank.
      k: how many neighbours vote; at most m.
      temperature: above 0.
      faiss: let FAISS look for candidates; the scores are the same.

    Returns:
      float64 [n,c], the share of the votes for each class, in [0, 1]; rows add up to 1 where each row of the bank has
      one class.

    Raises:
      UserError: arrays that do not fit together, a row that is zero or not finite, `k` or `temperature` out of range.

    The two nearest of three vote; the farther one has less weight:

    >>> bank = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> weighted_knn(bank[:1], bank=bank, targets=np.eye(3, dtype=bool), k=2, temperature=0.2).round(3).tolist()
    [[0.731, 0.269, 0.0]]
    """
    queries, bank = unit_rows(queries, name="queries"), unit_rows(bank, name="bank")
    targets = np.asarray(targets)
    if queries.shape[1] != bank.shape[1] or targets.dtype != bool or targets.shape[:1] != bank.shape[:1]:
        raise UserError(
            f"'queries' has shape {queries.shape}, 'bank' {bank.shape} and 'targets' {targets.shape} of "
            f"{targets.dtype}; wanted [n,E], [m,E] and bool [m,c]"
        )
    if not 1 <= k <= len(bank):
        raise UserError(f"k is {k}; wanted 1 to {len(bank)}, the rows of the bank (--k)")
    if not (np.isfinite(temperature) and temperature > 0):
        raise UserError(f"the temperature of k-NN is {temperature}; wanted a number above 0 (--temperature)")
    votes = np.zeros((len(queries), targets.shape[1]))
    todo = np.arange(len(queries))
    if faiss:
        todo = _by_faiss(queries, bank=bank, targets=targets, k=k, temperature=temperature, into=votes)
    size = max(1, _BLOCK // len(bank))
    for begin in range(0, len(todo), size):
        rows = todo[begin : begin + size]
        scores = np.rint(queries[rows] @ bank.T * _GRID) / _GRID
        kth = np.partition(scores, len(bank) - k, axis=1)[:, len(bank) - k]
        place, column = np.nonzero(scores >= kth[:, None])
        near = {"row": place, "score": scores[place, column], "column": column}
        votes[rows] = _votes(near, kth=kth, targets=targets, k=k, temperature=temperature)
    return votes


def one_hot(labels: np.ndarray, *, classes: int) -> np.ndarray:
    """Return bool [n,classes] of int labels [n].

    >>> one_hot(np.array([1, 0]), classes=2).tolist()
    [[False, True], [True, False]]
    """
    labels = check_index(labels, name="labels", length=len(labels), limit=classes)
    return labels[:, None] == np.arange(classes)[None]


def _votes(
    near: dict[str, np.ndarray], *, kth: np.ndarray, targets: np.ndarray, k: int, temperature: float
) -> np.ndarray:
    """Return the shares of the votes, float64 [b,c].

    Args:
      near: the neighbours with at least the k-th score: `row` of the query, `score`, and `column` in the bank.
      kth: float64 [b], the k-th largest score of each query.
      targets: bool [m,c].
      k: how many vote.
      temperature: of the weights.
    """
    row, score = near["row"], near["score"]
    last = score == kth[row]
    above = np.bincount(row[~last], minlength=len(kth))
    tied = np.bincount(row[last], minlength=len(kth))
    share = np.where(last, ((k - above) / np.maximum(tied, 1))[row], 1.0)
    highest = np.full(len(kth), -np.inf)
    np.maximum.at(highest, row, score)
    weight = share * np.exp((score - highest[row]) / temperature)
    found = np.zeros((len(kth), targets.shape[1]))
    entry, label = np.nonzero(targets[near["column"]])
    np.add.at(found, (row[entry], label), weight[entry])
    return found / np.bincount(row, weights=weight, minlength=len(kth))[:, None]


def _by_faiss(
    queries: np.ndarray, *, bank: np.ndarray, targets: np.ndarray, k: int, temperature: float, into: np.ndarray
) -> np.ndarray:
    """Fill in the rows whose neighbours FAISS finds for certain; return the others, int64 [n].

    FAISS computes in float32. Its candidates are scored again in float64, and a row counts as certain only where the
    k-th is so much nearer than the last candidate that none can be missing.
    """
    import faiss  # pyright: ignore[reportMissingImports]

    index: Any = faiss.IndexFlatIP(bank.shape[1])
    index.add(np.ascontiguousarray(bank, np.float32))
    wide = min(len(bank), k + _SPARE)
    left = []
    size = max(1, _BLOCK // (wide * bank.shape[1]))
    for begin in range(0, len(queries), size):
        rows = np.arange(begin, min(begin + size, len(queries)))
        found = index.search(np.ascontiguousarray(queries[rows], np.float32), wide)[1]
        scores = np.rint(np.einsum("be,bwe->bw", queries[rows], bank[found]) * _GRID) / _GRID
        kth = np.partition(scores, wide - k, axis=1)[:, wide - k]
        certain = (kth - scores.min(axis=1) > _FLOAT32) | (wide == len(bank))
        left.append(rows[~certain])
        place, column = np.nonzero(scores[certain] >= kth[certain][:, None])
        near = {"row": place, "score": scores[certain][place, column], "column": found[certain][place, column]}
        into[rows[certain]] = _votes(near, kth=kth[certain], targets=targets, k=k, temperature=temperature)
    return np.concatenate(left) if left else np.zeros(0, np.int64)
