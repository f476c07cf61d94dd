"""How sure is a figure? Bootstrap intervals over queries, paired tests of two models, spread over seeds.

Captions of one video are no independent queries: give `clusters`, and whole videos are drawn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...base.errors import UserError
from .checks import check_vector

SAMPLES = 1000
_Z = 1.959963984540054  # standard normal quantile of 0.975


def bootstrap(
    values: np.ndarray,
    *,
    figure: Callable[[np.ndarray], float] = np.mean,
    clusters: Sequence[Any] | np.ndarray | None = None,
    level: float = 0.95,
    samples: int = SAMPLES,
    seed: int = 0,
) -> dict[str, float]:
    """Return a figure with its percentile bootstrap interval (Efron 1979).

    Args:
      values: float [n], one per query, such as its hit in expectation or its rank.
      figure: from values [n] to a number: `np.mean`, `np.median` …
      clusters: [n], equal for queries that are drawn together, such as captions of one video; None: each alone.
      level: of the interval.
      samples: how many times the queries are drawn with replacement.
      seed: of the draws.

    Returns:
      `value`, `low`, `high`, and `n`, the number of clusters.

    Raises:
      UserError: a value that is not finite, fewer than two clusters, or a level or a number of samples out of range.

    >>> found = bootstrap(np.array([0.0, 1.0] * 50))
    >>> found["value"], 0.38 <= found["low"] <= 0.42, 0.58 <= found["high"] <= 0.62
    (0.5, True, True)
    """
    values = check_vector(values, name="values")
    members = _Clusters.of(clusters, n=len(values))
    _check_draws(level, samples=samples)
    rng = np.random.default_rng(seed)
    if figure is np.mean:  # of clusters drawn whole: their sums and sizes are enough
        sums = np.add.reduceat(values[members.rows], members.starts)
        chosen = (members.choose(rng) for _ in range(samples))
        drawn = np.array([sums[these].sum() / members.sizes[these].sum() for these in chosen])
    else:
        drawn = np.array([figure(values[members.draw(rng)]) for _ in range(samples)])
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return {"value": float(figure(values)), "low": float(low), "high": float(high), "n": len(members.sizes)}


def paired_test(
    first: np.ndarray,
    *,
    second: np.ndarray,
    clusters: Sequence[Any] | np.ndarray | None = None,
    level: float = 0.95,
    samples: int = SAMPLES,
    seed: int = 0,
) -> dict[str, float]:
    """Compare two models on the same queries: the mean difference, its bootstrap interval and a permutation test.

    The test exchanges the two models' values, query by query or cluster by cluster, at random (sign flips of the
    differences); `p` is the share of exchanges, the observed one included, with a difference as large, of either sign.

    Args:
      first: float [n], a value per query.
      second: float [n], the other model's, in the same order.
      clusters: as in `bootstrap`.
      level: of the interval.
      samples: of the bootstrap and of the test.
      seed: of the draws.

    Returns:
      `difference` (first − second), `low`, `high`, `p`, and `n`, the number of clusters.

    >>> one = np.array([1.0] * 30 + [0.0] * 10)
    >>> paired_test(one, second=np.zeros(40))["p"] < 0.01, paired_test(one, second=one)["p"]
    (True, 1.0)
    """
    first = check_vector(first, name="first")
    second = check_vector(second, name="second", length=len(first), of="first")
    difference = first - second
    found = bootstrap(difference, clusters=clusters, level=level, samples=samples, seed=seed)
    members = _Clusters.of(clusters, n=len(first))
    sums = np.add.reduceat(difference[members.rows], members.starts)
    rng = np.random.default_rng((seed, 1))
    exchanged = np.array([sums @ rng.choice((-1.0, 1.0), size=len(sums)) for _ in range(samples)])
    as_large = np.abs(exchanged) >= np.abs(sums.sum()) * (1 - 1e-12)
    return {
        "difference": found["value"],
        "low": found["low"],
        "high": found["high"],
        "p": float((1 + np.count_nonzero(as_large)) / (1 + samples)),
        "n": found["n"],
    }


def over_seeds(values: Sequence[float]) -> dict[str, float | None]:
    """Return the mean of several runs' figures with their standard deviation (n − 1) and range.

    >>> over_seeds([1.0, 2.0, 3.0])
    {'mean': 2.0, 'std': 1.0, 'lowest': 1.0, 'highest': 3.0, 'n': 3}
    >>> over_seeds([1.0])["std"] is None  # one run has no spread
    True
    """
    runs = check_vector(values, name="values of the seeds")
    spread = float(runs.std(ddof=1)) if len(runs) > 1 else None
    return {
        "mean": float(runs.mean()), "std": spread, "lowest": float(runs.min()), "highest": float(runs.max()),
        "n": len(runs),
    }  # fmt: skip


def wilson_interval(share: float, *, n: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share that `n` independent trials gave (Wilson 1927).

    >>> [round(bound, 3) for bound in wilson_interval(0.5, n=100)]
    [0.404, 0.596]
    >>> [round(bound, 3) for bound in wilson_interval(1.0, n=10)]
    [0.722, 1.0]
    """
    spread = _Z**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = (spread * (share * (1 - share) + spread / 4)) ** 0.5 / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class _Clusters:
    """Rows in the order of their clusters, and where each cluster starts and how many rows it has."""

    rows: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, clusters: Sequence[Any] | np.ndarray | None, *, n: int) -> "_Clusters":
        if clusters is not None and len(clusters) != n:
            raise UserError(f"'clusters' has {len(clusters)} entries and the values {n}; wanted one for each")
        number = np.arange(n) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
        sizes = np.bincount(number)
        if len(sizes) < 2:
            raise UserError(f"{len(sizes)} independent query has no spread; an interval needs at least two")
        return cls(np.argsort(number, kind="stable"), np.cumsum(sizes) - sizes, sizes)

    def choose(self, rng: np.random.Generator) -> np.ndarray:
        """Draw as many clusters as there are, with replacement."""
        return rng.integers(0, len(self.sizes), len(self.sizes))

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Draw as many clusters as there are, with replacement; return their rows."""
        chosen = self.choose(rng)
        sizes = self.sizes[chosen]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return self.rows[np.repeat(self.starts[chosen], sizes) + within]


def _check_draws(level: float, *, samples: int) -> None:
    if not 0 < level < 1 or samples < 1:
        raise UserError(f"level is {level} and samples is {samples}; wanted 0 < level < 1 and at least one sample")
