"""Weighted k-NN against a loop over pairs in float64, scikit-learn, and FAISS where it is installed."""

import math

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.neighbours import has_faiss, one_hot, weighted_knn


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(4, 6))
    labels = rng.integers(0, 4, 60)
    return {
        "bank": centres[labels] + rng.normal(size=(60, 6)),
        "labels": labels,
        "queries": rng.normal(size=(15, 6)),
    }


def votes_by_loop(query, *, bank, labels, k, temperature, classes):
    """The votes of one query without ties, pair by pair."""
    cosines = []
    for row, label in zip(bank.tolist(), labels.tolist(), strict=True):
        dot = sum(a * b for a, b in zip(query.tolist(), row, strict=True))
        cosines.append((dot / math.hypot(*query) / math.hypot(*row), label))
    votes = [0.0] * classes
    for cosine, label in sorted(cosines, reverse=True)[:k]:
        votes[label] += math.exp(cosine / temperature)
    return [vote / sum(votes) for vote in votes]


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (7, 0.07), (20, 0.5), (60, 1.0)])
def test_votes_are_those_of_a_loop(rows, k, temperature):
    targets = one_hot(rows["labels"], classes=5)  # class 4 never occurs
    found = weighted_knn(rows["queries"], bank=rows["bank"], targets=targets, k=k, temperature=temperature)
    same = {"bank": rows["bank"], "labels": rows["labels"], "k": k, "temperature": temperature, "classes": 5}
    np.testing.assert_allclose(found, [votes_by_loop(query, **same) for query in rows["queries"]], atol=1e-12)


def test_probabilities_are_those_of_scikit_learn(rows):
    unit = rows["bank"] / np.linalg.norm(rows["bank"], axis=1, keepdims=True)
    query = rows["queries"] / np.linalg.norm(rows["queries"], axis=1, keepdims=True)
    model = KNeighborsClassifier(
        n_neighbors=9, weights=lambda d: np.exp((1 - d) / 0.07), metric="cosine", algorithm="brute"
    )
    want = model.fit(unit, rows["labels"]).predict_proba(query)
    found = weighted_knn(query, bank=unit, targets=one_hot(rows["labels"], classes=4), k=9)
    np.testing.assert_allclose(found, want, atol=1e-9)


def test_neighbours_tied_for_the_last_place_share_it():
    bank = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    targets = np.eye(3, dtype=bool)
    found = weighted_knn(np.array([[1.0, 0.0]]), bank=bank, targets=targets, k=2, temperature=1.0)[0]
    assert found[1] == found[2] == pytest.approx(0.5 / (1 + math.e))
    again = weighted_knn(np.array([[1.0, 0.0]]), bank=bank[::-1], targets=targets[::-1], k=2, temperature=1.0)[0]
    np.testing.assert_array_equal(found, again)


def test_neighbours_of_several_classes_vote_for_each():
    targets = np.array([[True, True, False], [False, True, False]])
    found = weighted_knn(np.array([[1.0, 1.0]]), bank=np.eye(2), targets=targets, k=2)
    np.testing.assert_allclose(found, [[0.5, 1.0, 0.0]])


class FakeFaiss:
    """Does what is used of FAISS, in float32, and gives equal scores in an order of its own."""

    class IndexFlatIP:
        def __init__(self, width):
            self.width = width

        def add(self, rows):
            assert rows.dtype == np.float32 and rows.shape[1] == self.width
            self.rows = rows

        def search(self, queries, count):
            scores = queries @ self.rows.T
            order = np.argsort(-scores[:, ::-1], axis=1, kind="stable")[:, :count]
            found = self.rows.shape[0] - 1 - order
            return np.take_along_axis(scores, found, axis=1), found


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("copies", [1, 30])
def test_faiss_changes_nothing(rows, copies, real, monkeypatch):
    """With 30 copies of each row, more neighbours tie than FAISS is asked for."""
    if real and not has_faiss():
        pytest.skip("FAISS is not installed (extra `search`)")
    if not real:
        monkeypatch.setitem(__import__("sys").modules, "faiss", FakeFaiss)
    bank, labels = np.repeat(rows["bank"], copies, axis=0), np.repeat(rows["labels"], copies)
    same = {"bank": bank, "targets": one_hot(labels, classes=4), "k": 5}
    want = weighted_knn(rows["queries"], **same)
    np.testing.assert_allclose(weighted_knn(rows["queries"], **same, faiss=True), want, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k is 0; wanted 1 to 2"),
        ({"k": 3}, "k is 3; wanted 1 to 2"),
        ({"temperature": 0.0}, "temperature of k-NN is 0.0"),
        ({"bank": np.zeros((2, 2))}, "row 0 of 'bank' is all zero"),
        ({"bank": np.ones((2, 3))}, r"'bank' \(2, 3\)"),
        ({"targets": np.eye(2)}, "of float64; wanted"),
    ],
)
def test_what_cannot_vote_is_refused(change, message):
    given = {"bank": np.eye(2), "targets": np.eye(2, dtype=bool), "k": 1} | change
    with pytest.raises(UserError, match=message):
        weighted_knn(np.ones((1, 2)), **given)
