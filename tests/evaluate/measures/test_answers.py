"""Open questions against the official VQA code, just-ask and InternVideo1 (tests/golden/evaluate/qa.json)."""

import numpy as np
import pytest
from evaluate_golden import arrays, figures

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.answers import closed_vocabulary, ivqa, normalise_answer, vqa_accuracy


def test_vqa_accuracy_is_the_official_one():
    want = figures("qa")["vqa_accuracy"]
    questions = want["questions"]
    found = vqa_accuracy([q["predicted"] for q in questions], answers=[q["answers"] for q in questions])
    assert found["per_question"] == pytest.approx(want["per_question"])
    assert found["accuracy"] == pytest.approx(want["overall"])
    for number, kind in enumerate(("other", "number", "yes/no")):
        of_kind = np.mean(found["per_question"][number::3])
        assert of_kind == pytest.approx(
            want["per answer type (question i has type other, number, yes/no by i % 3)"][kind], abs=5.1e-3
        )


@pytest.mark.parametrize("size", ["50", "100", "157"])
def test_both_readings_of_answers_outside_the_vocabulary(size):
    want = figures("qa")["closed_vocabulary"]
    vocabulary = want["vocabulary_in_order_of_most_common"][: int(size)]
    logits = arrays("qa")["closed_vocabulary_logits"][:, : int(size)]
    found, want = closed_vocabulary(logits, answers=want["test_answers"], vocabulary=vocabulary), want["by_size"][size]
    assert found["top1"] == pytest.approx(want["acc"])
    assert found["top10"] == pytest.approx(want["acc10"])
    assert found["answerable"] == pytest.approx(want["answerable"])
    assert found["answerable_only"]["top1"] == pytest.approx(want["accuracy over the answerable only"])
    both = want["InternVideo1 Accuracy"]
    assert found["answerable_only"]["top1"] == pytest.approx(both["unfilterd=False"], abs=1e-4)
    assert found["top1"] == pytest.approx(both["unfilterd=True"], abs=1e-4)


def test_ivqa_is_just_ask_s():
    want = figures("qa")["ivqa"]
    scores = np.array(want["logits"])
    names = [str(i) for i in range(scores.shape[1])]
    found = ivqa(scores, answers=[[str(a) for a in row] for row in want["annotators"]], vocabulary=names)
    assert (found["accuracy"], found["top10"]) == pytest.approx((want["acc"], want["acc10"]))


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("An apple", "apple"),
        ("ten,000", "10 000"),
        ("1,000", "1000"),
        ("wont", "won't"),
        ("3.5 m.", "3.5 m"),
        ("Nine", "9"),
    ],
)
def test_normalisation(text, want):
    assert normalise_answer(text) == want


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vqa_accuracy([], answers=[]), "'predicted' has 0 entries"),
        (lambda: vqa_accuracy(["a"], answers=[["a"]], ids=["q7"]), "'answers' of question 'q7'"),
        (lambda: vqa_accuracy(["a"], answers=["a"]), "wanted a list of at least two"),
        (lambda: closed_vocabulary(np.ones((1, 2)), answers=["a"], vocabulary=["a", "a"]), "1 of them distinct"),
        (lambda: closed_vocabulary(np.ones((1, 2)), answers=["z"], vocabulary=["a", "b"]), "no answer is in the"),
        (lambda: closed_vocabulary(np.ones((2, 2)), answers=["a"], vocabulary=["a", "b"]), "'answers' has 1"),
        (lambda: ivqa(np.full((1, 2), np.nan), answers=[["a"]], vocabulary=["a", "b"]), "row 0 and column 0 is nan"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value)
