"""Figures per group of queries: which groups does a model serve worse, by how much, and could that be chance?"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...base.errors import UserError
from .intervals import SAMPLES, wilson_interval

OTHER = "other"
"""Name of the group that pools rare values."""
QUANTILES, MOST, LEAST = 4, 12, 5
_DRAWN = 1 << 20  # clusters drawn at once
_FEW_VALUES = 6  # numbers with at most so many distinct values get a group for each


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Groups of n items.

    Attributes:
      names: of the G groups.
      members: bool [n,G]; an item may be in several groups (clips with several labels), or in none (no value).
      pooled: how many rare values the group `OTHER` holds, which is the last one; 0: there is no such group.
    """

    names: tuple[str, ...]
    members: np.ndarray
    pooled: int = 0

    @property
    def unknown(self) -> int:
        """How many items are in no group."""
        return int(np.count_nonzero(~self.members.any(axis=1)))

    def of(self, items: np.ndarray) -> "Groups":
        """Return the groups of the items at these places, int [k]."""
        return Groups(names=self.names, members=self.members[items], pooled=self.pooled)


def number_groups(values: Sequence[float] | np.ndarray, *, groups: int = QUANTILES) -> Groups:
    """Group numbers into quantile bins, which are named by the least and the greatest number in them.

    Args:
      values: [n]; NaN where unknown.
      groups: how many bins; equal numbers are never divided, so there may be fewer. Up to six distinct numbers get a
        group for each.

    >>> found = number_groups([3, 3, 4, 5, 6, 8, 9, 20, float("nan")])
    >>> found.names, found.members.sum(axis=0).tolist(), found.unknown
    (('3', '4–5', '6–8', '9–20'), [2, 2, 2, 2], 1)
    """
    numbers = np.asarray(values, np.float64)
    known = np.isfinite(numbers)
    distinct = np.unique(numbers[known])
    ends = distinct
    if len(distinct) > _FEW_VALUES:
        ends = np.unique(np.quantile(numbers[known], np.arange(1, groups + 1) / groups, method="inverted_cdf"))
    place = np.searchsorted(ends, numbers)  # NaN lies behind all ends
    members = place[:, None] == np.arange(len(ends))
    bounds = [(float(numbers[column].min()), float(numbers[column].max())) for column in members.T]
    return Groups(names=tuple(_bin_names(bounds)), members=members)


def category_groups(values: Sequence[Sequence[str]], *, most: int = MOST, least: int = LEAST) -> Groups:
    """Group items by their values, the most frequent first; rare values are pooled into "other".

    Args:
      values: of each of n items; none where unknown, several where an item belongs to several groups.
      most: groups at most, without "other".
      least: items of a group at least.

    >>> found = category_groups([["indoors"], ["outdoors"], ["indoors"], ["at sea"], ["in space"], []], least=2)
    >>> found.names, found.members.sum(axis=0).tolist(), found.pooled, found.unknown
    (('indoors', 'other'), [2, 3], 3, 1)
    """
    counts = Counter(value for item in values for value in set(item))
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    kept = [value for value in ordered if counts[value] >= least and value != OTHER][:most]
    pooled = len(counts) - len(kept)
    place = {value: number for number, value in enumerate(kept)}
    members = np.zeros((len(values), len(kept) + (pooled > 0)), bool)
    for row, item in zip(members, values, strict=True):
        row[[place.get(value, len(kept)) for value in item]] = True
    return Groups(names=(*kept, *([OTHER] if pooled else [])), members=members, pooled=pooled)


def group_figures(
    values: np.ndarray,
    *,
    groups: Groups,
    clusters: np.ndarray | None = None,
    least: int = LEAST,
    samples: int = SAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Return the mean of each group with its 95 % interval, and the gap between the best and the worst group.

    Intervals are percentile bootstraps over the clusters of a group (Efron 1979). Where all queries of a group have
    the same value at an end of the scale, no draw can differ, and the interval is Wilson's over clusters (1927).

    The interval of the gap combines those of the two groups (square-and-add: Newcombe 1998). Among many small groups
    the best and the worst always differ: `p` is the share of random assignments, the real one included, that give a
    gap as large. They exchange the groups of whole clusters. Where a cluster is in several groups (captions of one clip
    that differ in length) they exchange clusters of the same size, and the queries within each.

    Args:
      values: float [n], 0 to 100, such as the hits of queries in percent.
      groups: of the n queries.
      clusters: [n], equal for queries that belong together, such as captions of one video; None: each alone.
      least: clusters at least of a group that counts for the gap; "other" never does.
      samples: draws of the bootstrap and of the test.
      seed: of the draws.

    Returns:
      `groups`: name -> `value`, `low`, `high` (both None for a single cluster), `n` queries, `clusters`; without groups
      that are empty. `gap`: `best` and `worst` (names), `difference`, `low`, `high`, `p`; {} if fewer than two groups
      count.

    >>> two = category_groups([["a"]] * 30 + [["b"]] * 30)
    >>> found = group_figures(np.repeat([100.0, 0.0, 100.0, 0.0], [24, 6, 6, 24]), groups=two)
    >>> [(name, one["value"], one["n"]) for name, one in found["groups"].items()]
    [('a', 80.0, 30), ('b', 20.0, 30)]
    >>> found["gap"]["best"], found["gap"]["difference"], found["gap"]["p"] < 0.01
    ('a', 60.0, True)
    """
    values = np.asarray(values, np.float64)
    if groups.members.shape != (len(values), len(groups.names)):
        shape = groups.members.shape
        raise UserError(f"'groups' has members of shape {shape}; wanted {(len(values), len(groups.names))}")
    number = np.arange(len(values)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    made = {}
    for place, name in enumerate(groups.names):
        rows = np.flatnonzero(groups.members[:, place])
        if len(rows):
            rng = np.random.default_rng((seed, place))
            made[name] = _figure(values[rows], clusters=number[rows], samples=samples, rng=rng)
    counted = [name for name, one in made.items() if one["clusters"] >= max(2, least) and name != OTHER]
    gap: dict[str, Any] = {}
    if len(counted) > 1:
        gap = _gap({name: made[name] for name in counted})
        members = groups.members[:, [groups.names.index(name) for name in counted]]
        gap["p"] = _p_of_spread(values, members=members, clusters=number, samples=samples, seed=seed)
    return {"groups": made, "gap": gap}


def _figure(
    values: np.ndarray, *, clusters: np.ndarray, samples: int, rng: np.random.Generator
) -> dict[str, float | None]:
    _, number, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    sums, value = np.bincount(number, weights=values), float(values.mean())
    found: dict[str, float | None] = {"value": value, "low": None, "high": None}
    found |= {"n": len(values), "clusters": len(sizes)}
    if len(sizes) == 1:
        return found
    if (values == values[0]).all() and value in (0.0, 100.0):
        low, high = (100 * bound for bound in wilson_interval(value / 100, n=len(sizes)))
        return found | {"low": low, "high": high}
    drawn, at_once = np.empty(samples), max(1, _DRAWN // len(sizes))
    for start in range(0, samples, at_once):
        chosen = rng.integers(0, len(sizes), (min(at_once, samples - start), len(sizes)))
        drawn[start : start + at_once] = sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return found | {"low": float(low), "high": float(high)}


def _gap(groups: dict[str, dict[str, Any]]) -> dict[str, Any]:
    best = max(groups, key=lambda name: groups[name]["value"])
    worst = min(groups, key=lambda name: groups[name]["value"])
    one, other = groups[best], groups[worst]
    difference = one["value"] - other["value"]
    down = np.hypot(one["value"] - one["low"], other["high"] - other["value"])
    up = np.hypot(one["high"] - one["value"], other["value"] - other["low"])
    bounds = {"low": float(difference - down), "high": float(difference + up)}
    return {"best": best, "worst": worst, "difference": difference, **bounds}


def _p_of_spread(values: np.ndarray, *, members: np.ndarray, clusters: np.ndarray, samples: int, seed: int) -> float:
    """Return the share of random assignments of groups whose means spread as far as the real ones."""
    known = members.any(axis=1)
    values, members = values[known], members[known]
    _, first, number, sizes = np.unique(clusters[known], return_index=True, return_inverse=True, return_counts=True)
    rng = np.random.default_rng((seed, len(members)))
    if (members == members[first][number]).all():  # each cluster lies in one and the same groups
        assigned = members[first].astype(np.float64)  # [clusters,G]
        sums = np.stack([np.bincount(number, weights=values), sizes], axis=1)

        def spread(order: np.ndarray | slice = slice(None)) -> float:
            total = assigned[order].T @ sums  # [G,2]
            return float(np.ptp(total[:, 0] / total[:, 1]))

        drawn = [spread(rng.permutation(len(sizes))) for _ in range(samples)]
    else:
        assigned, counts = members.astype(np.float64), members.sum(axis=0)
        by_cluster = np.argsort(number, kind="stable")
        ends = np.cumsum(sizes)
        blocks = [by_cluster[(ends - size)[sizes == size][:, None] + np.arange(size)] for size in np.unique(sizes)]

        def spread(order: np.ndarray | slice = slice(None)) -> float:
            return float(np.ptp(values[order] @ assigned / counts))

        drawn = [spread(_exchanged(blocks, rng=rng, n=len(values))) for _ in range(samples)]
    as_large = np.count_nonzero(np.array(drawn) >= spread() * (1 - 1e-12))
    return float((1 + as_large) / (1 + samples))


def _exchanged(blocks: list[np.ndarray], *, rng: np.random.Generator, n: int) -> np.ndarray:
    """Exchange whole clusters of the same size, and the rows within each, at random.

    Args:
      blocks: for each size the rows of its clusters, int [clusters, size].
      rng: of the draw.
      n: rows in all.

    Returns:
      The row whose value each row takes, int [n].
    """
    source = np.empty(n, np.int64)
    for rows in blocks:
        source[rows] = rng.permuted(rows[rng.permutation(len(rows))], axis=1)
    return source


def _bin_names(bounds: list[tuple[float, float]]) -> list[str]:
    """Name bins by their least and greatest number, with as many digits as tell them apart."""
    for digits in range(3, 18):
        names = [_number(low, digits) if low == high else f"{_number(low, digits)}–{_number(high, digits)}"
                 for low, high in bounds]  # fmt: skip
        if len(set(names)) == len(names):
            return names
    return [f"{low!r}–{high!r}" for low, high in bounds]


def _number(value: float, digits: int) -> str:
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.{digits}g}"
