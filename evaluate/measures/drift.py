"""Do new embeddings and texts still look like those of the reference? Distances between samples, and their tests."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from ...base.errors import UserError

PERMUTATIONS = 1000
LEAST_ROWS = 10
"""A sample of fewer rows is not compared."""
_TOGETHER = 256  # permutations that are multiplied at a time
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance (n - 1) of rows in float64, block by block.

    Args:
      rows: float [n,E], may be mapped from a file.

    Returns:
      float64 [E] and [E,E].

    Raises:
      UserError: fewer than `LEAST_ROWS` rows, or a value that is not finite.
    """
    count, width = rows.shape
    if count < LEAST_ROWS:
        raise UserError(
            f"{count} rows are too few for a mean and a covariance; wanted {LEAST_ROWS} or more, and better more than "
            f"the width of the embeddings, {width}"
        )
    blocks = range(0, count, 65_536)
    mean = sum((np.sum(rows[i : i + 65_536], axis=0, dtype=np.float64) for i in blocks), np.zeros(width)) / count
    cov = np.zeros((width, width))
    for i in blocks:
        centred = rows[i : i + 65_536].astype(np.float64) - mean
        cov += centred.T @ centred
    if not np.isfinite(cov).all():
        bad = int(np.flatnonzero(~np.isfinite(np.asarray(rows)).all(axis=1))[0])
        raise UserError(f"row {bad} of the embeddings is not finite; embed the data again")
    return mean, cov / (count - 1)


def mean_shift(mean: np.ndarray, *, reference: np.ndarray, cov: np.ndarray) -> float:
    """Return the distance of two means in units of the reference's spread, the root of its total variance.

    Args:
      mean: float [E], of the new rows.
      reference: float [E], of the reference.
      cov: float [E,E], covariance of the reference.

    >>> mean_shift(np.array([3.0, 4.0]), reference=np.zeros(2), cov=np.diag([9.0, 16.0]))
    1.0
    """
    return float(np.linalg.norm(mean - reference) / max(np.sqrt(np.trace(cov)), 1e-12))


def frechet_distance(
    mean: np.ndarray, *, cov: np.ndarray, other_mean: np.ndarray, other_cov: np.ndarray
) -> dict[str, float]:
    """Return the squared Fréchet distance of two normal distributions (Dowson and Landau 1982).

    It is |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), as in the FID of Heusel et al. (2017). Estimated from few rows
    it is too large.

    Args:
      mean: float [E].
      cov: float [E,E], symmetric.
      other_mean: likewise.
      other_cov: likewise.

    Returns:
      `distance`, and its parts `of_means` and `of_covariances`.

    >>> one = frechet_distance(np.zeros(2), cov=np.eye(2), other_mean=np.array([3.0, 0.0]), other_cov=4 * np.eye(2))
    >>> one["of_means"], round(one["of_covariances"], 9)
    (9.0, 2.0)
    """
    values, vectors = np.linalg.eigh(np.asarray(cov, np.float64))
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ np.asarray(other_cov, np.float64) @ root)
    of_means = float(np.sum((mean - other_mean) ** 2))
    spread = float(np.trace(cov) + np.trace(other_cov) - 2 * np.sqrt(np.maximum(inner, 0)).sum())
    return {"distance": of_means + max(spread, 0.0), "of_means": of_means, "of_covariances": max(spread, 0.0)}


def mmd_test(
    first: np.ndarray,
    *,
    second: np.ndarray,
    bandwidth: float = 0.0,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> dict[str, float]:
    """Compare two samples by the maximum mean discrepancy with a Gaussian kernel (Gretton et al. 2012).

    The unbiased estimate of MMD^2 (their equation 3) with k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2)). The p-value is
    the share of random exchanges of rows between the samples, the observed one included, with an estimate as large.

    Args:
      first: float [n,E].
      second: float [m,E].
      bandwidth: of the kernel; 0 = the median distance of two rows of both samples together.
      permutations: exchanges of rows.
      seed: of the exchanges.

    Returns:
      `mmd2` (may be negative), `p`, `bandwidth`, `n` and `m`.

    Raises:
      UserError: another width, a negative bandwidth, fewer than two rows, or no permutation.

    >>> rng = np.random.default_rng(0)
    >>> one, two = rng.normal(size=(40, 3)), rng.normal(size=(30, 3))
    >>> mmd_test(one, second=two)["p"] > 0.05, mmd_test(one, second=two + 2)["p"] < 0.01
    (True, True)
    """
    check_width(first, second)
    n, m = len(first), len(second)
    if min(n, m) < 2 or permutations < 1 or not bandwidth >= 0:
        raise UserError(
            f"MMD of {n} and {m} rows with {permutations} permutations and bandwidth {bandwidth:g}; wanted two rows or "
            "more on each side, a permutation or more, and a bandwidth of at least 0"
        )
    rows = np.concatenate([np.asarray(first, np.float64), np.asarray(second, np.float64)])
    squares = np.einsum("ij,ij->i", rows, rows)
    distance2 = np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0)
    width = bandwidth or float(np.median(np.sqrt(distance2[np.triu_indices(n + m, 1)])))
    kernel = np.exp(-distance2 / (2 * max(width, 1e-12) ** 2))
    np.fill_diagonal(kernel, 0)  # pairs of different rows only: the estimate is unbiased
    rng = np.random.default_rng(seed)
    member = np.zeros((n + m, 1))
    member[:n] = 1
    observed = float(_mmd2(kernel, member=member)[0])
    found: list[np.ndarray] = []
    for begin in range(0, permutations, _TOGETHER):
        tried = np.repeat(member, min(_TOGETHER, permutations - begin), axis=1)
        found.append(_mmd2(kernel, member=rng.permuted(tried, axis=0)))
    as_large = int(np.count_nonzero(np.concatenate(found) >= observed - 1e-12))
    return {"mmd2": observed, "p": (1 + as_large) / (1 + permutations), "bandwidth": width, "n": n, "m": m}


def _mmd2(kernel: np.ndarray, *, member: np.ndarray) -> np.ndarray:
    """Return the estimates [B] for B ways to split rows, of which `member` [N,B] is 1 in the first sample."""
    n = int(member[:, 0].sum())
    m = len(member) - n
    to_first = kernel @ member
    total = kernel.sum()
    within = np.einsum("ij,ij->j", member, to_first)
    across = to_first.sum(axis=0) - within
    return within / (n * (n - 1)) + (total - within - 2 * across) / (m * (m - 1)) - 2 * across / (n * m)


def check_width(first: np.ndarray, second: np.ndarray) -> None:
    """Raise UserError unless two samples [n,E] have rows of one width."""
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise UserError(
            f"the reference has embeddings of shape {list(first.shape)} and the new data {list(second.shape)}; wanted "
            "the width of one model: record the reference again with the model that embeds the new data"
        )


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case.

    >>> words_of("A dog's ball, 2 cats_")
    ['a', "dog's", 'ball', '2', 'cats']
    """
    return _WORD.findall(text.lower())


def new_word_share(texts: Iterable[str], *, known: Iterable[str]) -> float:
    """Return the share of all words of some texts that are not among the known ones; 0 without words.

    >>> new_word_share(["a red dog", "a cat"], known=["a", "red", "cat"])
    0.2
    """
    known = known if isinstance(known, (set, frozenset)) else set(known)
    words = [word for text in texts for word in words_of(text)]
    return sum(word not in known for word in words) / max(len(words), 1)


def length_shift(lengths: Sequence[int] | np.ndarray, *, reference: Sequence[int] | np.ndarray) -> dict[str, Any]:
    """Compare two samples of lengths by the two-sample test of Kolmogorov and Smirnov (`scipy.stats.ks_2samp`).

    Args:
      lengths: int [n], words of each new text.
      reference: int [m].

    Returns:
      `statistic` (the largest difference of the distribution functions, 0..1), `p`, `mean` and `reference_mean`.
    """
    found: Any = stats.ks_2samp(np.asarray(lengths), np.asarray(reference), method="asymp")
    return {
        "statistic": float(found.statistic), "p": float(found.pvalue), "mean": float(np.mean(lengths)),
        "reference_mean": float(np.mean(reference)),
    }  # fmt: skip
