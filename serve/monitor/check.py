"""New data against reference statistics: figures, and which of them count as drift."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from ...evaluate.embedding.statistics import SAMPLE, Canary, SideStatistics, Statistics, enough, usable
from ...evaluate.measures.drift import (
    PERMUTATIONS,
    check_width,
    frechet_distance,
    length_shift,
    mean_shift,
    mmd_test,
    moments,
    new_word_share,
    words_of,
)
from ...evaluate.measures.intervals import bootstrap, paired_test
from ...evaluate.measures.ranks import RECALL_AT, hits
from .rows import Data


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What counts as drift.

    Attributes:
      alpha: significance level of the tests; that of MMD is divided by the number of sides that are tested.
      min_mmd: MMD^2 up to which a significant difference is tolerated.
      max_mean_shift: of the means, in units of the reference's spread; None = not judged.
      max_frechet: Fréchet distance; None = not judged.
      max_new_words: rise of the share of words that the reference does not have, 0..1.
      max_unknown: rise of the share of tokens that the vocabulary does not have, 0..1.
      max_length_shift: Kolmogorov-Smirnov statistic of the lengths up to which a significant difference is tolerated.
      max_recall_drop: percentage points that a recall on the canary set may fall.
    """

    alpha: float = 0.01
    min_mmd: float = 0.0
    max_mean_shift: float | None = None
    max_frechet: float | None = None
    max_new_words: float = 0.1
    max_unknown: float = 0.02
    max_length_shift: float = 0.1
    max_recall_drop: float = 2.0

    def __post_init__(self):
        if not 0 < self.alpha < 1:
            raise UserError(f"--alpha is {self.alpha:g}; wanted a level between 0 and 1, such as 0.01")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and not value >= 0:
                raise UserError(f"--{field.name} is {value:g}; wanted a number of at least 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TestOptions:
    """How the samples are compared.

    Attributes:
      bandwidth: of the kernel of MMD; 0 = the median distance.
      permutations: of its test.
      sample: rows of the new data in that test, at most.
      seed: of draws and permutations.
    """

    __test__ = False  # no test of pytest's

    bandwidth: float = 0.0
    permutations: int = PERMUTATIONS
    sample: int = SAMPLE
    seed: int = 0

    def __post_init__(self):
        if self.permutations < 1 or self.sample < 2 or not self.bandwidth >= 0:
            raise UserError(
                f"--permutations is {self.permutations}, --sample {self.sample} and --bandwidth {self.bandwidth:g}; "
                "wanted at least 1, 2 and 0"
            )


def compare_sides(
    reference: Statistics, *, data: Data, thresholds: Thresholds, options: TestOptions
) -> dict[str, dict[str, Any]]:
    """Compare the embeddings of each side that both have.

    Returns:
      side -> `count`, `reference_count`, `mean_shift`, `frechet` (`distance` and its parts), `reference_halves`, `mmd`
      (see `drift.mmd_test`), `notes`, and `drift`: what exceeds a threshold.

    Raises:
      UserError: no side in common, another width, or too few rows.
    """
    shared = {name: rows for name, rows in data.sides.items() if name in reference.sides}
    if not shared:
        raise UserError(
            f"the reference has embeddings of {', '.join(reference.sides)} and the new data of "
            f"{', '.join(data.sides) or 'nothing'}: nothing to compare; record the reference from data of the same kind"
        )
    for name, rows in shared.items():
        check_width(reference.sides[name].sample, rows)
    names, _ = enough(shared)
    alpha = thresholds.alpha / len(names)
    return {
        name: _compare_side(reference.sides[name], rows=data.sides[name], name=name, options=options) | {"alpha": alpha}
        for name in names
    }


def _compare_side(reference: SideStatistics, *, rows: np.ndarray, name: str, options: TestOptions) -> dict[str, Any]:
    rows = usable(rows, name=name)
    mean, cov = moments(rows)
    rng = np.random.default_rng(options.seed)
    chosen = np.sort(rng.permutation(len(rows))[: options.sample])
    width = rows.shape[1]
    few = [
        f"{whose} has {count} rows for embeddings of width {width}: its covariance is singular, which makes the "
        "Fréchet distance too large; judge by MMD"
        for whose, count in (("the reference", reference.count), ("the new data", len(rows)))
        if count <= width
    ]
    distance = frechet_distance(mean, cov=cov, other_mean=reference.mean, other_cov=reference.cov)
    test = {"bandwidth": options.bandwidth, "permutations": options.permutations, "seed": options.seed}
    return {
        "count": len(rows),
        "reference_count": reference.count,
        "mean_shift": mean_shift(mean, reference=reference.mean, cov=reference.cov),
        "frechet": distance,
        "reference_halves": reference.halves,
        "mmd": mmd_test(reference.sample, second=rows[chosen], **test),
        "notes": few,
    }


def compare_texts(
    reference: Statistics, *, texts: Sequence[str], unknown: float | None, truncated: int | None
) -> dict[str, Any]:
    """Compare queries with the reference's texts.

    Args:
      reference: its `texts` are there.
      texts: the queries.
      unknown: share of their tokens that the vocabulary does not have; None = no tokenizer at hand.
      truncated: queries longer than the context; None = no tokenizer at hand.
    """
    own = reference.texts
    if own is None:
        raise UserError(
            "the reference has no texts to compare queries with; record it with --queries, or from data with captions"
        )
    return {
        "count": len(texts),
        "reference_count": own.count,
        "new_words": new_word_share(texts, known=own.words),
        "reference_new_words": own.new_words,
        "examples": _new_words(texts, known=set(own.words)),
        "unknown": unknown,
        "reference_unknown": own.unknown,
        "truncated": truncated,
        "length": length_shift([len(words_of(text)) for text in texts], reference=own.lengths),
    }


def _new_words(texts: Sequence[str], *, known: set[str]) -> list[str]:
    """Return the most frequent words that are new, at most 20."""
    counts: dict[str, int] = {}
    for word in (word for text in texts for word in words_of(text)):
        if word not in known:
            counts[word] = counts.get(word, 0) + 1
    return sorted(counts, key=lambda word: (-counts[word], word))[:20]


def compare_canary(reference: Canary, *, now: Canary) -> dict[str, Any]:
    """Compare text-to-video recalls on the canary set, caption by caption.

    Returns:
      "R@1" ... -> `value`, `low`, `high` (bootstrap over clips), `reference`, and of the paired difference
      `difference`, `difference_low`, `difference_high` and `p`; all but `p` in percent.

    Raises:
      UserError: another set.
    """
    if reference.identity != now.identity:
        raise UserError(
            f"the canary set has other captions or clips than the recorded one ({len(now.above)} captions, recorded "
            f"{len(reference.above)}); give the recorded one, or record again"
        )
    found = {}
    for k in RECALL_AT:
        new, old = hits(now.ranks, k=k), hits(reference.ranks, k=k)
        one = bootstrap(new, clusters=now.clips)
        pair = paired_test(new, second=old, clusters=now.clips)
        values = {key: 100 * one[key] for key in ("value", "low", "high")} | {"reference": 100 * float(old.mean())}
        values |= {"difference": 100 * pair["difference"]}
        values |= {f"difference_{key}": 100 * pair[key] for key in ("low", "high")}
        found[f"R@{k}"] = values | {"p": pair["p"]}
    return found


def findings(results: dict[str, Any], *, thresholds: Thresholds) -> list[str]:
    """Return a sentence for each figure that counts as drift.

    Args:
      results: `sides`, `texts` and `canary` of the functions above, as far as they were measured.
      thresholds: what counts.
    """
    found = [line for name, side in results.get("sides", {}).items() for line in _of_side(name, side, thresholds)]
    if "texts" in results:
        found += _of_texts(results["texts"], thresholds)
    for name, one in results.get("canary", {}).items():
        if one["difference"] < -thresholds.max_recall_drop and one["difference_high"] < 0:
            found.append(
                f"canary: {name} fell from {one['reference']:.1f} to {one['value']:.1f} % (difference "
                f"{one['difference']:.1f}, 95 % interval {one['difference_low']:.1f} to {one['difference_high']:.1f})"
            )
    return found


def _of_side(name: str, side: dict[str, Any], thresholds: Thresholds) -> list[str]:
    found, mmd, distance = [], side["mmd"], side["frechet"]["distance"]
    if mmd["p"] <= side["alpha"] and mmd["mmd2"] > thresholds.min_mmd:
        found.append(f"{name}: the embeddings differ from the reference (MMD^2 {mmd['mmd2']:.4g}, p = {mmd['p']:.2g})")
    if thresholds.max_mean_shift is not None and side["mean_shift"] > thresholds.max_mean_shift:
        found.append(f"{name}: mean shift {side['mean_shift']:.3g} exceeds {thresholds.max_mean_shift:g}")
    if thresholds.max_frechet is not None and distance > thresholds.max_frechet:
        found.append(f"{name}: Fréchet distance {distance:.4g} exceeds {thresholds.max_frechet:g}")
    return found


def _of_texts(texts: dict[str, Any], thresholds: Thresholds) -> list[str]:
    found, length = [], texts["length"]
    if texts["new_words"] - texts["reference_new_words"] > thresholds.max_new_words:
        found.append(
            f"queries: {100 * texts['new_words']:.1f} % of the words are new; within the reference "
            f"{100 * texts['reference_new_words']:.1f} %"
        )
    if texts["unknown"] is not None and texts["unknown"] - (texts["reference_unknown"] or 0.0) > thresholds.max_unknown:
        before = texts["reference_unknown"]
        told = "" if before is None else f"; in the reference {100 * before:.1f} %"
        found.append(f"queries: the vocabulary does not have {100 * texts['unknown']:.1f} % of the tokens{told}")
    if length["p"] <= thresholds.alpha and length["statistic"] > thresholds.max_length_shift:
        found.append(
            f"queries: {length['mean']:.1f} words on average, in the reference {length['reference_mean']:.1f} "
            f"(Kolmogorov-Smirnov {length['statistic']:.2f}, p = {length['p']:.2g})"
        )
    return found
