"""Figures of answers that were written: exact match, VQA accuracy, WUPS; and the most frequent answer as a baseline."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...encode.predict.answers import Written
from ...evaluate.measures.answers import normalise_answer, vqa_accuracy
from ...evaluate.measures.intervals import bootstrap
from ...evaluate.measures.wups import THRESHOLDS, Similarity, wups
from ..examples.questions import Questions

WUPS = tuple(f"wups@{threshold:g}" for threshold in THRESHOLDS)
"""Names of the figures of WUPS."""


def written_figures(
    answers: Sequence[str], *, questions: Questions, similarity: Similarity | None = None
) -> dict[str, Any]:
    """Return how many answers are right, in percent.

    Args:
      answers: to each question.
      questions: the questions.
      similarity: of words, for WUPS; None = it is not computed.

    Returns:
      `accuracy`: exact match with the right answer (that of most annotators), both normalised as VQA does it;
      `vqa_accuracy` over the questions with two annotators or more, `vqa_n` of them; with `similarity` the names of
      `WUPS`, against the right answer. `interval`: the 95 % bootstrap interval of `accuracy` over clips; `per_type`:
      type -> `n`, `accuracy` and, if there is one, WUPS; `n`.
    """
    right = questions.right
    hits = np.array(
        [normalise_answer(one) == normalise_answer(wanted) for one, wanted in zip(answers, right, strict=True)]
    )
    found: dict[str, Any] = {"n": len(questions), "accuracy": 100 * float(hits.mean())}
    near: dict[str, np.ndarray] = {}
    if similarity is not None:
        for name, threshold in zip(WUPS, THRESHOLDS, strict=True):
            scored = wups(answers, answers=right, similarity=similarity, threshold=threshold)
            near[name], found[name] = np.array(scored["per_question"]), scored["wups"]
    several = [i for i, given in enumerate(questions.answers) if len(given) > 1]
    if several:
        given = [questions.answers[i] for i in several]
        found["vqa_accuracy"] = vqa_accuracy([answers[i] for i in several], answers=given)["accuracy"]
        found["vqa_n"] = len(several)
    if len(np.unique(questions.record)) > 1:
        spread = bootstrap(100.0 * hits, clusters=questions.record)
        found["interval"] = [spread["low"], spread["high"]]
    types, found["per_type"] = np.array(questions.types), {}
    for kind, count in Counter(questions.types).most_common():
        own = types == kind
        found["per_type"][kind] = {"n": count, "accuracy": 100 * float(hits[own].mean())}
        found["per_type"][kind] |= {name: float(values[own].mean()) for name, values in near.items()}
    return found


def most_frequent_texts(train: Questions, *, questions: Questions) -> list[Written]:
    """Return the answers of a model that gives each type of question its most frequent answer in the train split.

    A type that the train split lacks gets the most frequent answer of all; of equals the first met counts.
    """
    of_type: dict[str, Counter[str]] = {}
    for kind, answer in zip(train.types, train.right, strict=True):
        of_type.setdefault(kind, Counter())[answer] += 1
    of_all = sum(of_type.values(), Counter())
    found = []
    for kind in questions.types:
        counts = of_type.get(kind, of_all)
        answer, count = counts.most_common(1)[0]
        found.append(Written(answer, count / counts.total()))
    return found
