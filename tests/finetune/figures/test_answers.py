"""Figures of answers against the outputs of other codes (tests/golden/evaluate/qa.json) and by hand."""

import numpy as np
import pytest
from evaluate_golden import arrays, figures

from twinreel.finetune.examples.questions import Questions, answer_vocabulary, questions_of
from twinreel.finetune.figures.answers import answer_figures, most_frequent


def questions(answers, *, types=None, options=None, correct=None):
    n = len(answers or options)
    return Questions(
        split="test",
        record=np.arange(n) // 2,
        texts=("what?",) * n,
        types=tuple(types or ["what"] * n),
        answers=tuple(tuple(one) for one in answers or [()] * n),
        options=tuple(tuple(one) for one in options or [()] * n),
        correct=np.array(correct or [-1] * n),
        size=n,
    )


def test_vqa_accuracy_by_type_is_the_official_code_s():
    want = figures("qa")["vqa_accuracy"]
    asked = want["questions"]
    names = sorted({one["predicted"] for one in asked})
    scores = [np.array([name == one["predicted"] for name in names], float) for one in asked]
    for key, kinds in (
        ("per answer type (question i has type other, number, yes/no by i % 3)", ("other", "number", "yes/no")),
        ("per question type (how for even i, what for odd)", ("how", "what")),
    ):
        types = [kinds[i % len(kinds)] for i in range(len(asked))]
        of = questions([one["answers"] for one in asked], types=types)
        found = answer_figures(scores, questions=of, vocabulary=names)
        assert found["vqa_accuracy"] == pytest.approx(want["overall"]) and found["vqa_n"] == len(asked)
        for kind, value in want[key].items():
            assert found["per_type"][kind]["vqa_accuracy"] == pytest.approx(value, abs=5.1e-3)


def test_both_readings_of_answers_outside_the_vocabulary():
    want, logits = figures("qa")["closed_vocabulary"], arrays("qa")["closed_vocabulary_logits"]
    for size, one in want["by_size"].items():
        vocabulary = want["vocabulary_in_order_of_most_common"][: int(size)]
        of = questions([[answer] for answer in want["test_answers"]])
        found = answer_figures(list(logits[:, : int(size)]), questions=of, vocabulary=vocabulary)
        assert found["accuracy"] == pytest.approx(one["acc"])
        assert found["answerable"] == pytest.approx(one["answerable"])
        assert found["answerable_only"]["top1"] == pytest.approx(one["accuracy over the answerable only"])
        assert "vqa_accuracy" not in found


def test_choices_tie_in_expectation():
    of = questions(None, options=[("a", "b"), ("a", "b", "c")], correct=[1, 0])
    found = answer_figures([np.array([0.5, 0.5]), np.array([0.2, 0.3, 0.5])], questions=of, vocabulary=())
    assert (found["accuracy"], found["first_wins"], found["tied"]) == (25.0, 0.0, 1)
    assert found["chance"] == pytest.approx(100 * (1 / 2 + 1 / 3) / 2)


def test_the_most_frequent_answer_is_that_of_the_type():
    train = questions([["red"], ["red"], ["two"], ["blue"]], types=["colour", "colour", "count", "colour"])
    test = questions([["blue"], ["two"], ["red"]], types=["colour", "count", "new"])
    vocabulary = answer_vocabulary(train, size=2, min_count=1)
    assert vocabulary == ("red", "two")
    scores = most_frequent(train, questions=test, vocabulary=vocabulary)
    assert [vocabulary[int(one.argmax())] for one in scores] == ["red", "two", "red"]


def test_targets_count_annotators_as_vqa_does():
    given = [["a"] * 3 + ["b"] * 7, ["a"], ["c", "a", "a"]]
    found = questions(given).targets(["a", "b", "d"])
    wanted = [[0.9, 1.0, 0.0], [1.0, 0.0, 0.0], [(2 / 3 + 2 * 1 / 3) / 3, 0.0, 0.0]]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert questions(given).labels(["a", "d"]).tolist() == [0, 0, 0]
    assert questions(given).right == ["b", "a", "a"]


def test_questions_that_cannot_be_used_are_counted():
    rows = [
        {"questions": [{"question": "Who runs?", "answers": [" dog ", ""]}, {"question": "why?", "answers": []}]},
        {"questions": [{"question": "", "answers": [], "options": ["a", "b"], "correct": 1}]},
        {"questions": [{"question": "which?", "answers": [], "options": ["a", "b"], "correct": None, "type": "kind"}]},
    ]
    closed, left = questions_of(rows, split="test", kind="closed")
    assert (closed.texts, closed.answers, closed.types, left) == (("Who runs?",), (("dog",),), ("who",), 3)
    choice, left = questions_of(rows, split="test", kind="choice")
    assert (choice.asked(), choice.correct.tolist(), choice.record.tolist(), left) == (["a", "b"], [1], [1], 3)
