"""Open questions: VQA accuracy with its normalisation, closed vocabularies in both readings, iVQA."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from .checks import check_same_length, check_scores
from .ranks import ranks, recall_at

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGITS: dict[str, str] = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
_DIGITS |= {"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
_CONTRACTIONS = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd "
    "he'd've he's how'd how'll how's i'd've i'm i've isn't it'd it'd've it'll let's ma'am mightn't mightn't've "
    "might've mustn't must've needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've "
    "somebody'd somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd "
    "something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've "
    "'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've "
    "who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd "
    "you'd've you'll you're you've "
)
_WITHOUT_MARK = {word.replace("'", ""): word for word in _CONTRACTIONS.split()}


def normalise_answer(text: str) -> str:
    """Return an answer as the evaluation code of VQA normalises it: punctuation, case, digits, articles, contractions.

    >>> normalise_answer("The two T-shirts, dont ask!")
    "2 t shirts don't ask"
    """
    found = text
    for mark in _PUNCTUATION:
        beside_blank = f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if beside_blank or re.search(r"\d,\d", text) else " ")
    found = re.sub(r"\.(?!\d)", "", found)
    words = [_DIGITS.get(word, word) for word in found.lower().split()]
    return " ".join(_WITHOUT_MARK.get(word, word) for word in words if word not in ("a", "an", "the"))


def vqa_accuracy(
    predicted: Sequence[str], *, answers: Sequence[Sequence[str]], ids: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return the accuracy of VQA (Antol et al. 2015): the mean over annotators of min(1, matches among the others / 3).

    Answers are normalised only where the annotators are not all alike, as the official code does: "Yes" against ten
    times "yes" counts 0.

    Args:
      predicted: one answer per question.
      answers: of each question, one per annotator, at least two.
      ids: the id of each question, for messages; None: its index.

    Returns:
      `accuracy` in percent, `per_question` (percent, a list) and `n`.

    >>> vqa_accuracy(["dog"], answers=[["dog"] * 2 + ["cat"] * 8])["accuracy"]
    60.0
    """
    n = check_same_length(predicted=predicted, answers=answers)
    names = [str(i) for i in range(n)] if ids is None else ids
    check_same_length(predicted=predicted, ids=names)
    found = []
    for name, guess, given in zip(names, predicted, answers, strict=True):
        if isinstance(given, str) or len(given) < 2:
            raise UserError(f"'answers' of question {name!r} is {given!r}; wanted a list of at least two answers")
        guess, given = _flat(guess), [_flat(answer) for answer in given]
        if len(set(given)) > 1:
            guess, given = normalise_answer(guess), [normalise_answer(answer) for answer in given]
        matches = given.count(guess)
        others = [matches - (answer == guess) for answer in given]
        found.append(100 * float(np.mean(np.minimum(1, np.array(others) / 3))))
    return {"accuracy": float(np.mean(found)), "per_question": found, "n": n}


def _flat(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def closed_vocabulary(
    scores: np.ndarray, *, answers: Sequence[str], vocabulary: Sequence[str], k: Sequence[int] = (1, 10)
) -> dict[str, Any]:
    """Return the accuracy of choosing from a vocabulary, in both readings of an answer outside it.

    Args:
      scores: float [n,v], of each answer in the vocabulary.
      answers: str [n], the right answers.
      vocabulary: str [v], usually the most common answers of the training set.
      k: each k of `topK`; one larger than the vocabulary is left out.

    Returns:
      `top1` …, in percent, where an answer outside the vocabulary is wrong (just-ask); the same under
      `answerable_only`, where its question is left out (InternVideo1); `answerable` in percent; `vocabulary`; `n`. Ties
      are in expectation.

    >>> found = closed_vocabulary(np.array([[0.9, 0.1], [0.9, 0.1]]), answers=["a", "z"], vocabulary=["a", "b"])
    >>> found["top1"], found["answerable_only"]["top1"], found["answerable"]
    (50.0, 100.0, 50.0)
    """
    scores = check_scores(scores)
    check_same_length(scores=scores, answers=answers)
    place = _places(vocabulary, columns=scores.shape[1])
    labels = np.array([place.get(answer, -1) for answer in answers])
    known = labels >= 0
    if not known.any():
        raise UserError("no answer is in the vocabulary; check that both come from one data set and one normalisation")
    found = ranks(scores[known], positives=labels[known])
    only = {f"top{one}": recall_at(found, k=one) for one in k if one <= scores.shape[1]}
    share = float(known.mean())
    return {
        **{name: value * share for name, value in only.items()},
        "answerable_only": only,
        "answerable": 100 * share,
        "vocabulary": len(vocabulary),
        "n": len(scores),
    }


def ivqa(scores: np.ndarray, *, answers: Sequence[Sequence[str]], vocabulary: Sequence[str]) -> dict[str, Any]:
    """Return iVQA's accuracy (Yang et al. 2021): min(1, annotators who gave the chosen answer / 2).

    Args:
      scores: float [n,v].
      answers: the annotators' answers (five in iVQA) of each question; one outside the vocabulary counts for nothing.
      vocabulary: str [v].

    Returns:
      `accuracy` in percent, in expectation over ties; `top10`, with the best of the first ten (lower index first among
      equals; left out for fewer than ten answers); `n`.

    >>> ivqa(np.array([[0.9, 0.1]]), answers=[["a", "b", "b"]], vocabulary=["a", "b"])["accuracy"]
    50.0
    """
    scores = check_scores(scores)
    check_same_length(scores=scores, answers=answers)
    place = _places(vocabulary, columns=scores.shape[1])
    credit = np.zeros(scores.shape)
    for row, given in enumerate(answers):
        for answer in given:
            if answer in place:
                credit[row, place[answer]] += 0.5
    credit = np.minimum(credit, 1)
    top = scores == scores.max(axis=1, keepdims=True)
    found = {"accuracy": 100 * float(((credit * top).sum(axis=1) / top.sum(axis=1)).mean())}
    if scores.shape[1] >= 10:
        first = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        found["top10"] = 100 * float(np.take_along_axis(credit, first, axis=1).max(axis=1).mean())
    return found | {"n": len(scores)}


def _places(vocabulary: Sequence[str], *, columns: int) -> dict[str, int]:
    place = {answer: number for number, answer in enumerate(vocabulary)}
    if len(vocabulary) != columns or len(place) != columns:
        raise UserError(
            f"the vocabulary has {len(vocabulary)} answers, {len(place)} of them distinct, and the scores {columns} "
            "columns; wanted one distinct answer per column"
        )
    return place
