"""Dense captions against the protocols written as loops, and matching against all matchings in the order of time."""

import itertools

import numpy as np
import pytest
from java import stand_in_java

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.captions import bleu, cider_d, rouge_l
from twinreel.evaluate.measures.dense_captions import THRESHOLDS, dense_caption_scores, matched_in_order
from twinreel.evaluate.measures.meteor import Meteor

WORDS = ["a", "red", "blue", "square", "circle", "falls", "rises", "then", "left"]


def drawn(seed):
    """Films of 0 to 4 predicted and 1 to 4 reference events; events overlap, and captions share words."""
    rng = np.random.default_rng(seed)

    def events(count):
        starts = rng.uniform(0, 6, size=count)
        texts = [" ".join(rng.choice(WORDS, size=rng.integers(4, 8))) for _ in range(count)]
        return [
            {"start_s": float(a), "end_s": float(a + rng.uniform(1, 5)), "caption": text}
            for a, text in zip(starts, texts, strict=True)
        ]

    truth = [events(n) for n in (3, 1, 4, 2)]
    found = [events(n) for n in (2, 0, 4, 3)]
    found[2][1] = truth[2][0] | {"end_s": truth[2][0]["end_s"] + 0.1}  # nearly right
    found[3][0] = dict(truth[3][1])
    return found, truth


def tiou(one, other):
    """As `densevid_eval` writes it."""
    inside = max(0, min(one["end_s"], other["end_s"]) - max(one["start_s"], other["start_s"]))
    lengths = one["end_s"] - one["start_s"] + other["end_s"] - other["start_s"]
    whole = max(one["end_s"], other["end_s"]) - min(one["start_s"], other["start_s"])
    return inside / (min(whole, lengths) + 1e-8)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_figures_are_those_of_the_protocol_written_as_loops(seed):
    found, truth = drawn(seed)
    wanted = {name: [] for name in ("BLEU-4", "ROUGE-L", "CIDEr-D", "precision", "recall")}
    for limit in THRESHOLDS:
        rows = []
        for mine, theirs in zip(found, truth, strict=True):
            pairs, right, covered = [], set(), set()
            for i, one in enumerate(mine):
                near = [j for j, other in enumerate(theirs) if tiou(one, other) >= limit]
                pairs += [(one["caption"], theirs[j]["caption"]) for j in near] or [(one["caption"], "#")]
                right |= {i} if near else set()
                covered |= set(near)
            figures = [0.0, 0.0, 0.0]
            if pairs:
                texts, given = [text for text, _ in pairs], [[text] for _, text in pairs]
                figures = [bleu(texts, references=given)["corpus"][3]]
                figures += [float(measure(texts, references=given).mean()) for measure in (rouge_l, cider_d)]
            rows.append([*figures, len(right) / len(mine) if mine else 0.0, len(covered) / len(theirs)])
        for name, value in zip(wanted, np.mean(rows, axis=0), strict=True):
            wanted[name].append(value)
    got = dense_caption_scores(found, references=truth)
    for name, values in wanted.items():
        assert [got["at"][f"{limit:g}"][name] for limit in THRESHOLDS] == pytest.approx(values, abs=1e-12)
        assert got[name] == pytest.approx(np.mean(values), abs=1e-12)
    assert got["recall"] > 0 and (got["films"], got["predicted"], got["references"]) == (4, 9, 10)


def best_of_all(values):
    """The largest sum of all matchings that rise in both, one by one."""
    n, m = values.shape
    best = 0.0
    for size in range(min(n, m) + 1):
        for rows in itertools.combinations(range(n), size):
            for columns in itertools.combinations(range(m), size):
                best = max(best, sum(values[i, j] for i, j in zip(rows, columns, strict=True)))
    return best


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 3), (5, 5)])
def test_the_matching_in_order_is_the_best_of_all(shape):
    values = np.random.default_rng(sum(shape)).uniform(size=shape)
    values[values < 0.3] = 0.0
    pairs = matched_in_order(values)
    assert sum(values[pair] for pair in pairs) == pytest.approx(best_of_all(values), abs=1e-12)
    assert all(a < c and b < d for (a, b), (c, d) in itertools.pairwise(pairs))
    assert all(values[pair] > 0 for pair in pairs)


@pytest.mark.parametrize("seed", [0, 1])
def test_soda_is_that_of_all_matchings(seed):
    found, truth = drawn(seed)
    rows = []
    for mine, theirs in zip(found, truth, strict=True):
        mine, theirs = (sorted(every, key=lambda one: (one["start_s"], one["end_s"])) for every in (mine, theirs))
        if not mine:
            rows.append((0.0, 0.0, 0.0))
            continue
        values = np.array(
            [[tiou(a, b) * rouge_l([a["caption"]], references=[[b["caption"]]])[0] for b in theirs] for a in mine]
        )
        total = best_of_all(values)
        p, r = total / len(mine), total / len(theirs)
        rows.append((p, r, 2 * p * r / (p + r) if total else 0.0))
    got = dense_caption_scores(found, references=truth)
    assert list(got["SODA"]["ROUGE-L"].values()) == pytest.approx(np.mean(rows, axis=0).tolist(), abs=1e-12)
    assert got["per_film"] == pytest.approx([f1 for _, _, f1 in rows], abs=1e-12)


def test_events_count_in_the_order_of_time_whatever_their_order_in_the_lists():
    found, truth = drawn(0)
    again = dense_caption_scores([one[::-1] for one in found], references=[one[::-1] for one in truth])
    assert again["SODA"] == dense_caption_scores(found, references=truth)["SODA"]


def test_a_perfect_prediction_and_one_in_the_wrong_order():
    a, b = (
        {"start_s": 2.0 * i, "end_s": 2.0 * i + 2, "caption": text} for i, text in enumerate(("a b c d", "e f g h"))
    )
    right = dense_caption_scores([[a, b]], references=[[a, b]])
    assert right["BLEU-4"] == pytest.approx(1.0) and right["SODA"]["ROUGE-L"]["F1"] == pytest.approx(1.0)
    swapped = [a | {"caption": b["caption"]}, b | {"caption": a["caption"]}]
    wrong = dense_caption_scores([swapped], references=[[a, b]])
    assert wrong["SODA"]["ROUGE-L"]["F1"] == 0.0 and wrong["ROUGE-L"] == 0.0 and wrong["recall"] == 1.0


def test_meteor_scores_pairs_and_matchings(tmp_path):
    """The stand-in counts the words of a candidate that are in its reference."""
    found, truth = drawn(1)
    with Meteor(**stand_in_java(tmp_path)) as program:
        got = dense_caption_scores(found, references=truth, meteor=program)
    at, rows = [], []
    for mine, theirs in zip(found, truth, strict=True):
        pairs = [(a, b) for a in mine for b in theirs if tiou(a, b) >= 0.3]
        lost = [a for a in mine if not any(a is one for one, _ in pairs)]
        right = sum(word in b["caption"].split() for a, b in pairs for word in a["caption"].split())
        words = sum(len(a["caption"].split()) for a in [*(a for a, _ in pairs), *lost])
        at.append(right / words if words else 0.0)
    assert got["at"]["0.3"]["METEOR"] == pytest.approx(np.mean(at))
    for mine, theirs in zip(found, truth, strict=True):
        mine, theirs = (sorted(every, key=lambda one: one["start_s"]) for every in (mine, theirs))
        share = [
            [tiou(a, b) * np.mean([word in b["caption"].split() for word in a["caption"].split()]) for b in theirs]
            for a in mine
        ]
        total = best_of_all(np.array(share).reshape(len(mine), len(theirs)))
        rows.append(2 * total / (len(mine) + len(theirs)))
    assert got["SODA"]["METEOR"]["F1"] == pytest.approx(np.mean(rows))


def test_mistakes_are_named():
    event = {"start_s": 0.0, "end_s": 1.0, "caption": "a"}
    for found, truth, limits, message in (
        ([[event]], [[]], (0.5,), "'references' of film 0 has no event"),
        ([[event]], [], (0.5,), "wanted one for each"),
        ([[event | {"end_s": -1.0}]], [[event]], (0.5,), "'predicted' of film 0: entry 0"),
        ([[event]], [[event]], (0.0,), "wanted numbers above 0"),
    ):
        with pytest.raises(UserError, match=message):
            dense_caption_scores(found, references=truth, thresholds=limits)
