"""Multiple choice against InternVideo2's figure and the mean over all orders of the tied."""

import numpy as np
import pytest
from evaluate_golden import arrays, figures

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.choices import multiple_choice, per_type


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_first_wins_is_internvideo2_s_and_expectation_stands_beside():
    found, want = arrays("qa"), figures("qa")["multiple_choice"]
    scores = np.einsum("ne,noe->no", *(unit(found[key]) for key in ("mc_video", "mc_options")))
    assert scores.argmax(axis=1).tolist() == want["predicted (InternVideo2, first option wins a tie)"]
    got = multiple_choice(scores, answers=found["mc_answers"])
    assert got["first_wins"] == pytest.approx(want["acc"], abs=5.1e-3)
    assert got["accuracy"] == pytest.approx(want["acc in expectation over ties (computed here)"])
    assert got["pessimistic"] <= got["accuracy"] <= got["optimistic"]
    assert (got["chance"], got["n"]) == (pytest.approx(20), 30)


def test_questions_may_have_unequal_numbers_of_options():
    got = multiple_choice([[0.1, 0.2], [0.3, 0.3, 0.3]], answers=[1, 2])
    assert got["accuracy"] == pytest.approx(100 * (1 + 1 / 3) / 2)
    assert got["chance"] == pytest.approx(100 * (1 / 2 + 1 / 3) / 2)
    kinds = per_type([[0.1, 0.2], [0.3, 0.3, 0.3]], answers=[1, 2], types=["what", "how"])
    assert {kind: block["n"] for kind, block in kinds.items()} == {"how": 1, "what": 1}


@pytest.mark.parametrize(
    ("scores", "answers", "message"),
    [
        ([], [], "'scores' has 0 entries; wanted at least 1"),
        ([[1, 2]], [0, 1], "'scores' has 1 entries and 'answers' has 2"),
        ([[1, 2], [1]], [0, 1], "the answer of question '1' is 1"),
        ([[1, 2], []], [0, 0], "'scores of question '1''"),
        ([[1, np.nan]], [0], "of 1 is nan"),
        ([[1, 2]], [0.5], "is 0.5"),
    ],
)
def test_bad_input_is_refused(scores, answers, message):
    with pytest.raises(UserError) as caught:
        multiple_choice(scores, answers=answers)
    assert message in str(caught.value).replace('"', "'")
