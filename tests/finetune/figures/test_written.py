"""Figures of written answers, by hand."""

import numpy as np
import pytest

from twinreel.finetune.examples.questions import Questions
from twinreel.finetune.figures.written import most_frequent_texts, written_figures

TRAIN = (("two",), ("three",), ("two",), ("red",), ("blue",), ("blue",))


def questions(answers, types):
    n = len(answers)
    return Questions(
        split="test",
        record=np.arange(n) // 2,
        texts=("?",) * n,
        types=types,
        answers=answers,
        options=((),) * n,
        correct=np.full(n, -1),
        size=n,
    )


def test_exact_match_is_that_of_normalised_answers():
    answers = (("2",), ("The dog",), ("cat", "cat", "dog"), ("red",))
    asked = questions(answers, ("count", "what", "what", "colour"))
    found = written_figures(["two", "dog", "dog", ""], questions=asked, similarity=lambda a, b: 0.95 * (a == "dog"))
    assert found["n"] == 4 and found["accuracy"] == 50.0
    assert found["wups@0.9"] == found["wups@0"] == pytest.approx(100 * (1 + 1 + 0.95 + 0) / 4)
    assert found["vqa_n"] == 1 and found["vqa_accuracy"] == pytest.approx(100 * np.mean([1 / 3, 1 / 3, 0]))
    what = found["per_type"]["what"]
    assert what == {"n": 2, "accuracy": 50.0, "wups@0.9": pytest.approx(97.5), "wups@0": pytest.approx(97.5)}
    assert "wups@0" not in written_figures(["two", "dog", "dog", ""], questions=asked)


def test_the_most_frequent_answer_of_a_type():
    train = questions(TRAIN, ("count", "count", "count", "colour", "colour", "colour"))
    found = most_frequent_texts(train, questions=questions((("a",),) * 3, ("colour", "count", "sound")))
    assert [one.answer for one in found] == ["blue", "two", "two"]
    assert [one.score for one in found] == pytest.approx([2 / 3, 2 / 3, 1 / 3])
