"""Multiple choice: a question with options, one of them right (MSR-VTT-MC, Something-Something-MC …)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from .checks import check_index, check_same_length, check_vector


def multiple_choice(
    scores: Sequence[Any] | np.ndarray, *, answers: Sequence[int] | np.ndarray, ids: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return the accuracy of choosing the option with the highest score.

    Args:
      scores: for each of n questions the scores of its options; a matrix [n, options], or lists of unequal lengths.
      answers: int [n], the right option of each question.
      ids: the id of each question, for messages; None: its index.

    Returns:
      `accuracy` in percent, in expectation over ties; `first_wins`, where the first of equal options is chosen, as
      argmax does; `optimistic` and `pessimistic`; `chance`; `tied`, the questions whose right option ties with another
      at the top; and `n`.

    Raises:
      UserError: no question, a score that is not finite, or an answer that is not among the options.

    The right option of the second question shares the top with one other:

    >>> found = multiple_choice([[0.1, 0.9], [0.5, 0.5]], answers=[1, 1])
    >>> found["accuracy"], found["first_wins"], found["optimistic"], found["tied"]
    (75.0, 50.0, 100.0, 1)
    """
    n = check_same_length(scores=scores, answers=answers)
    names = [str(i) for i in range(n)] if ids is None else ids
    check_same_length(scores=scores, ids=names)
    expected, first, best, worst, chance = (np.zeros(n) for _ in range(5))
    for row, (name, options, answer) in enumerate(zip(names, scores, np.asarray(answers).tolist(), strict=True)):
        options = check_vector(options, name=f"scores of question {name!r}")
        if not isinstance(answer, int) or not 0 <= answer < len(options):
            raise UserError(
                f"the answer of question {name!r} is {answer!r}; wanted the index of one of its options, "
                f"0 to {len(options) - 1}"
            )
        top = options == options.max()
        expected[row] = top[answer] / top.sum()
        first[row] = options.argmax() == answer
        best[row], worst[row] = top[answer], top[answer] and top.sum() == 1
        chance[row] = 1 / len(options)
    return {
        "accuracy": 100 * float(expected.mean()),
        "first_wins": 100 * float(first.mean()),
        "optimistic": 100 * float(best.mean()),
        "pessimistic": 100 * float(worst.mean()),
        "chance": 100 * float(chance.mean()),
        "tied": int((best - worst).sum()),
        "n": n,
    }


def per_type(scores: Sequence[Any], *, answers: Sequence[int], types: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return `multiple_choice` for each type of question, in alphabetical order.

    >>> {k: v["accuracy"] for k, v in per_type([[1, 0], [1, 0]], answers=[0, 1], types=["how", "why"]).items()}
    {'how': 100.0, 'why': 0.0}
    """
    check_same_length(scores=scores, answers=answers, types=types)
    answers = check_index(np.asarray(answers), name="answers", length=len(types), limit=np.iinfo(np.int64).max).tolist()
    found = {}
    for kind in sorted(set(types)):
        rows = [i for i, one in enumerate(types) if one == kind]
        found[kind] = multiple_choice(
            [scores[i] for i in rows], answers=[answers[i] for i in rows], ids=[str(i) for i in rows]
        )
    return found
