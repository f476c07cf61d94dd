"""mAP and nDCG: against scikit-learn, mteb, and the mean over all orders of the tied."""

import itertools

import numpy as np
import pytest
from evaluate_golden import figures, retrieval_case
from sklearn.metrics import average_precision_score, ndcg_score

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.relevance import average_precision, ndcg, relevance_summary, right_counts


def over_all_orders(scores, relevant, k):
    """AP (all places), AP at k and nDCG at k of one query for each order of its equal scores."""
    found = []
    for order in set(itertools.permutations(range(len(scores)))):
        if list(order) != sorted(order, key=lambda i: -scores[i]) and any(
            scores[a] < scores[b] for a, b in itertools.pairwise(order)
        ):
            continue
        right = np.array([relevant[i] for i in order])
        precision = np.cumsum(right) / np.arange(1, len(right) + 1)
        discount = 1 / np.log2(2 + np.arange(len(right)))
        ideal = discount[: min(k, right.sum())].sum()
        ap = [(precision * right)[:m].sum() / min(m, right.sum()) for m in (len(right), k)]
        found.append((*ap, (discount * right)[:k].sum() / ideal))
    return np.array(found)


@pytest.mark.parametrize("seed", range(6))
def test_ties_are_the_mean_the_best_and_the_worst_over_all_orders(seed):
    rng = np.random.default_rng(seed)
    scores, relevant = rng.integers(0, 3, 7) / 2, np.zeros(7, bool)
    relevant[rng.permutation(7)[: 1 + seed % 4]] = True
    counts, every = right_counts(scores[None], relevant=relevant[None]), over_all_orders(scores, relevant, 3)
    for order, want in (("expected", every.mean(0)), ("optimistic", every.max(0)), ("pessimistic", every.min(0))):
        got = [average_precision(counts, order=order), average_precision(counts, k=3, order=order)]
        assert np.concatenate([*got, ndcg(counts, k=3, order=order)]) == pytest.approx(want)


def test_untied_figures_are_scikit_learn_s():
    rng = np.random.default_rng(9)
    scores, relevant = rng.normal(size=(30, 40)), rng.random((30, 40)) < 0.15
    relevant[:, 0] = True
    block = relevance_summary(right_counts(scores, relevant=relevant))
    wanted = [average_precision_score(r, s) for r, s in zip(relevant, scores, strict=True)]
    assert block["mAP"] == pytest.approx(100 * np.mean(wanted))
    assert block["nDCG@10"] == pytest.approx(100 * ndcg_score(relevant, scores, k=10))
    assert block["optimistic"]["mAP"] == block["pessimistic"]["mAP"] == pytest.approx(block["mAP"])


@pytest.mark.parametrize("case", ["sq500", "mc60x20", "mcvar"])
def test_ndcg_is_mteb_s_and_map_is_mmeb_s(case):
    scores, owner = retrieval_case(case)
    relevant = owner[:, None] == np.arange(scores.shape[1])
    for direction, counts in (
        ("t2v", right_counts(scores, relevant=relevant)),
        ("v2t", right_counts(scores.T, relevant=relevant.T)),
    ):
        want = figures("retrieval")[case]
        assert ndcg(counts, k=10).mean() == pytest.approx(want["mteb"][direction]["NDCG@10"], abs=1e-5)
        assert average_precision(counts, k=10).mean() == pytest.approx(want["vlm2vec_mmeb_v2"][direction]["map@10"])


def test_bad_relevance_is_refused():
    with pytest.raises(UserError, match="'relevant' of query 'q1' has no right candidate"):
        right_counts(np.ones((2, 2)), relevant=np.array([[True, False], [False, False]]), queries=["q0", "q1"])
    with pytest.raises(UserError, match="'relevant' is int64 of shape"):
        right_counts(np.ones((2, 2)), relevant=np.ones((2, 2), int))
    with pytest.raises(UserError, match="unknown order 'best'"):
        ndcg(right_counts(np.ones((1, 2)), relevant=np.array([[True, False]])), order="best")
