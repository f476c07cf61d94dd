"""Pairs of clips: all of them, a choice, folds that share no identity, and those of a file."""

import itertools
import json

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.finetune.examples.pairs import all_pairs, fold_pairs, read_pairs

IDENTITY = np.repeat(np.arange(12), [4, 3, 5, 4, 4, 3, 3, 4, 4, 4, 1, 3])


def test_all_pairs_stand_once():
    found = all_pairs(IDENTITY, most=10_000)
    wanted = list(itertools.combinations(range(len(IDENTITY)), 2))
    assert sorted(zip(found.first.tolist(), found.second.tolist(), strict=True)) == wanted
    assert found.same.tolist() == [IDENTITY[i] == IDENTITY[j] for i, j in zip(found.first, found.second, strict=True)]


@pytest.mark.parametrize("most", [40, 200])
def test_a_choice_of_pairs_has_both_kinds_and_is_the_same_each_time(most):
    found, again = (all_pairs(IDENTITY, most=most) for _ in range(2))
    every = sum(n * (n - 1) // 2 for n in np.bincount(IDENTITY))
    assert most // 2 < len(found) <= most and found.same.sum() == min(every, most // 2)
    np.testing.assert_array_equal(found.same, IDENTITY[found.first] == IDENTITY[found.second])
    np.testing.assert_array_equal(found.first, again.first)
    assert (found.first != found.second).all()


def test_folds_are_balanced_and_share_no_identity():
    found, folds = fold_pairs(IDENTITY, folds=4, pairs=10)
    assert folds == 4 and len(found) % folds == 0
    seen: set[int] = set()
    for part in np.array_split(np.arange(len(found)), folds):
        own = set(IDENTITY[np.concatenate([found.first[part], found.second[part]])].tolist())
        assert not seen & own
        seen |= own
        assert found.same[part].mean() == 0.5
    np.testing.assert_array_equal(found.same, IDENTITY[found.first] == IDENTITY[found.second])
    assert fold_pairs(np.array([0, 0, 1, 1, 2]))[1] == 0


def test_pairs_of_a_file(tmp_path):
    path, places = tmp_path / "pairs.jsonl", {"a": 0, "b": 1, "c": 2}
    good = [{"first": "a", "second": "c", "same": True}, {"first": "b", "second": "a", "same": False}]
    path.write_text("\n".join(map(json.dumps, good)) + "\n\n")
    found = read_pairs(path, places=places)
    assert (found.first.tolist(), found.second.tolist(), found.same.tolist()) == ([0, 1], [2, 0], [True, False])
    for line, wanted in (
        ('{"first": "a", "second": "d", "same": true}', "clip in line 1 of .*'d'"),
        ('{"first": "a"}', "line 1 of .*wanted a JSON object"),
        ("a b 1", "line 1 of .*wanted a JSON object"),
        ('{"first": "a", "second": "b", "same": 1}', "'same' is 1; wanted true or false"),
        (json.dumps(good[0]), "1 pairs, all of one kind"),
    ):
        path.write_text(line + "\n")
        with pytest.raises(UserError, match=wanted):
            read_pairs(path, places=places)
    with pytest.raises(UserError, match=r"config\.task\.pairs='.*none' does not exist"):
        read_pairs(tmp_path / "none", places=places)
