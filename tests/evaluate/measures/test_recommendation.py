"""Recommendation against ranx, trec_eval, torchmetrics, recommenders and scikit-learn (recommend.json)."""

import itertools

import numpy as np
import pytest
from evaluate_golden import arrays, figures

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.recommendation import graded_ndcg, recommendation

KEYS = {
    "ndcg@10": "nDCG@10",
    "ndcg_cut_10": "nDCG@10",
    "ndcg@10 graded": "nDCG@10",
    "ndcg@10 raw": "nDCG@10",
    "ndcg@10 raw log2": "nDCG@10",
    "ndcg_burges@10": "nDCG_exponential@10",
    "ndcg@10 exp": "nDCG_exponential@10",
    "ndcg@10 binary": "nDCG_binary@10",
    "ndcg_linear@10": "nDCG_binary@10",
    "map": "MAP",
    "map@10": "MAP@10",
    "map_cut_10": "MAP@10",
    "mrr": "MRR",
    "recip_rank": "MRR",
    "recall@10": "recall@10",
    "recall_10": "recall@10",
    "precision@10": "precision@10",
    "hit@10": "hit@10",
    "r-precision": "R-precision",
}


def compared(block, source):
    """The figures of a source that this measure has; torchmetrics' map leaves out relevant items with a score <= 0."""
    for key, value in block.items():
        if key in KEYS and not (source.startswith("torchmetrics") and key == "map"):
            yield KEYS[key], value


@pytest.mark.parametrize("case", ["no ties", "ties (scores rounded to 0.5)"])
def test_figures_of_other_packages(case):
    found = arrays("recommend")
    scores = found["scores" if case == "no ties" else "scores_tied"]
    by_rule = {rule: recommendation(scores, relevance=found["relevance"], empty=rule) for rule in ("skip", "zero")}
    assert (by_rule["skip"]["users"], by_rule["zero"]["users"], by_rule["skip"]["empty"]) == (39, 40, 1)
    seen = 0
    for source, block in figures("recommend")[case].items():
        got = by_rule["zero" if source.endswith("=neg") else "skip"]
        for name, want in compared(block if isinstance(block, dict) else {"ndcg@10": block}, source):
            low, high = got["pessimistic"][name], got["optimistic"][name]
            assert low - 1e-6 <= want <= high + 1e-6, (source, name)
            seen += 1
    assert seen >= 20


def test_ties_of_graded_gains_are_averaged_as_scikit_learn_does():
    found, want = arrays("recommend"), figures("recommend")["ties (scores rounded to 0.5)"]
    got = np.nanmean(graded_ndcg(found["scores_tied"], relevance=found["relevance"]))
    assert got == pytest.approx(want["sklearn ndcg_score k=10 (users with something relevant)"])


@pytest.mark.parametrize("seed", range(4))
def test_all_figures_are_means_and_bounds_over_all_orders(seed):
    rng = np.random.default_rng(seed)
    scores, relevance = rng.integers(0, 2, 6).astype(float), rng.integers(0, 2, 6) * rng.integers(1, 4, 6)
    relevance[0] = 2
    every = []
    for order in itertools.permutations(range(6)):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
            every.append(recommendation(-np.arange(6.0)[None], relevance=relevance[list(order)][None], k=3))
    got = recommendation(scores[None], relevance=relevance[None], k=3)
    for name in got["optimistic"]:
        values = [one[name] for one in every]
        assert got[name] == pytest.approx(np.mean(values)), name
        assert got["optimistic"][name] == pytest.approx(max(values)), name
        assert got["pessimistic"][name] == pytest.approx(min(values)), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relevance": np.zeros((2, 3))}, "is 0 for every user"),
        ({"relevance": -np.ones((2, 3))}, "wanted numbers >= 0"),
        ({"relevance": np.ones((2, 2))}, "'relevance' has shape (2, 2)"),
        ({"relevance": np.ones((2, 3)), "k": 0}, "k is 0"),
        ({"relevance": np.ones((2, 3)), "empty": "neg"}, "'neg'"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(UserError) as caught:
        recommendation(np.ones((2, 3)), **options)
    assert message in str(caught.value)
