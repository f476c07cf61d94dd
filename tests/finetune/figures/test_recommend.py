"""Figures of what comes next against a loop, and against the measures that equal other libraries' (evaluate)."""

import numpy as np
import pytest

from twinreel.evaluate.measures.recommendation import recommendation
from twinreel.finetune.figures import recommend
from twinreel.finetune.figures.recommend import equal_scores, mean_scores, popularity, recommendation_figures

SESSIONS = [np.array(items) for items in ([0, 1, 2], [3, 4, 3], [5, 0], [2, 1, 6], [6, 5, 4, 3])]


def scores(histories):
    return np.stack([np.random.default_rng(items.tolist()).normal(size=7) for items in histories])


def test_figures_of_each_session_by_a_loop(monkeypatch):
    monkeypatch.setattr(recommend, "CHUNK", 2)
    known = np.array([True, True, True, False, True, True, False])
    found = recommendation_figures(scores, sessions=SESSIONS, known=known, k=3, exclude_seen=True)
    ranks = []
    for items in SESSIONS:
        own = scores([items[:-1]])[0]
        better = [i for i in range(7) if own[i] > own[items[-1]] and i not in items[:-1]]
        ranks.append(len(better) + 1)
    assert found["MRR"] == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert found["nDCG@3"] == pytest.approx(np.mean([1 / np.log2(1 + rank) if rank <= 3 else 0 for rank in ranks]))
    cold = [rank for rank, items in zip(ranks, SESSIONS, strict=True) if not known[items[-1]]]
    assert found["cold"]["users"] == 3 and found["warm"]["users"] == 2
    assert found["cold"]["MRR"] == pytest.approx(np.mean([1 / rank for rank in cold]))


def test_with_what_was_seen_they_are_those_of_the_measures():
    found = recommendation_figures(scores, sessions=SESSIONS, known=np.ones(7, bool), k=2, exclude_seen=False)
    relevance = np.eye(7)[[items[-1] for items in SESSIONS]]
    wanted = recommendation(scores([items[:-1] for items in SESSIONS]), relevance=relevance, k=2)
    assert found.pop("cold") is None
    assert found.pop("warm") == found
    assert {key: value for key, value in found.items() if key not in ("optimistic", "pessimistic")} == pytest.approx(
        {key: value for key, value in wanted.items() if key not in ("optimistic", "pessimistic")}
    )


def test_baselines():
    assert popularity(SESSIONS, items=8).tolist() == [2, 2, 2, 3, 2, 2, 2, 0]
    random = recommendation_figures(equal_scores(7), sessions=SESSIONS, known=np.ones(7, bool), k=7, exclude_seen=False)
    assert random["MRR"] == pytest.approx(np.mean([1 / rank for rank in range(1, 8)]))
    vectors = np.random.default_rng(0).normal(size=(7, 3))
    found, centred = mean_scores(vectors)([np.array([1]), np.array([2, 4])]), vectors - vectors.mean(axis=0)
    cosine = centred[1] @ centred[5] / np.linalg.norm(centred[1]) / np.linalg.norm(centred[5])
    assert found.shape == (2, 7) and found[0, 5] == pytest.approx(cosine)
