"""Figures of answered questions: both readings of a closed vocabulary, VQA accuracy, types of questions, a baseline."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...evaluate.measures.answers import closed_vocabulary, vqa_accuracy
from ...evaluate.measures.choices import multiple_choice
from ...evaluate.measures.intervals import bootstrap
from ..examples.questions import Questions


def answer_figures(scores: Sequence[np.ndarray], *, questions: Questions, vocabulary: Sequence[str]) -> dict[str, Any]:
    """Return how many answers are right, in percent.

    Args:
      scores: of each question float [K], of the answers of the vocabulary; of a choice those of its options.
      questions: the questions.
      vocabulary: the answers; () of a choice.

    Returns:
      `accuracy`, in expectation over ties: of the right answer (that of most annotators), one outside the vocabulary
      counting as wrong; `answerable_only`, where these questions are left out, and `answerable`, the share of the
      others; `top10`; `vqa_accuracy` over the questions with two annotators or more, `vqa_n` of them; of a choice
      `accuracy` and `chance`. `interval`: the 95 % bootstrap interval of `accuracy` over clips, or None; `per_type`:
      type -> `accuracy`, `n` and `vqa_accuracy`; `n`.
    """
    hits = right_share(scores, questions=questions, vocabulary=vocabulary)
    found: dict[str, Any] = {"n": len(questions), "accuracy": 100 * float(hits.mean())}
    vqa = np.full(len(questions), np.nan)
    if vocabulary:
        table = np.stack(scores).astype(np.float64)
        read = closed_vocabulary(table, answers=questions.right, vocabulary=vocabulary)
        found |= {key: read[key] for key in ("top10", "answerable", "answerable_only", "vocabulary") if key in read}
        several = [i for i, given in enumerate(questions.answers) if len(given) > 1]
        if several:
            said = [vocabulary[int(table[i].argmax())] for i in several]
            counted = vqa_accuracy(said, answers=[questions.answers[i] for i in several])
            vqa[several] = counted["per_question"]
            found |= {"vqa_accuracy": counted["accuracy"], "vqa_n": len(several)}
    else:
        read = multiple_choice(list(scores), answers=questions.correct)
        found |= {key: read[key] for key in ("first_wins", "chance", "tied")}
    if len(np.unique(questions.record)) > 1:
        spread = bootstrap(100 * hits, clusters=questions.record)
        found["interval"] = [spread["low"], spread["high"]]
    types = np.array(questions.types)
    found["per_type"] = {}
    for kind, count in Counter(questions.types).most_common():
        own = types == kind
        one = {"n": count, "accuracy": 100 * float(hits[own].mean())}
        judged = vqa[own & ~np.isnan(vqa)]
        found["per_type"][kind] = one | ({"vqa_accuracy": float(judged.mean())} if len(judged) else {})
    return found


def right_share(scores: Sequence[np.ndarray], *, questions: Questions, vocabulary: Sequence[str]) -> np.ndarray:
    """Return float64 [q]: whether the right answer has the highest score, shared among those that tie with it."""
    place = {name: i for i, name in enumerate(vocabulary)}
    wanted = [place.get(name, -1) for name in questions.right] if vocabulary else questions.correct.tolist()
    hits = np.zeros(len(questions))
    for row, (one, label) in enumerate(zip(scores, wanted, strict=True)):
        top = one == one.max()
        hits[row] = top[label] / top.sum() if label >= 0 else 0.0
    return hits


def most_frequent(train: Questions, *, questions: Questions, vocabulary: Sequence[str]) -> list[np.ndarray]:
    """Return the scores of a model that gives each type of question its most frequent answer in the train split.

    Of a choice that is the most frequent place. A type that the train split lacks gets the most frequent answer of all.
    """
    place = {name: i for i, name in enumerate(vocabulary)}
    labels = [place[name] for name in train.right if name in place] if vocabulary else train.correct.tolist()
    kinds = [kind for kind, name in zip(train.types, train.right, strict=True) if not vocabulary or name in place]
    of_all, of_type = Counter(labels), {kind: Counter() for kind in kinds}
    for kind, label in zip(kinds, labels, strict=True):
        of_type[kind][label] += 1
    found = []
    for kind, options in zip(questions.types, questions.options, strict=True):
        scores = np.zeros(len(vocabulary) or len(options))
        for label, count in of_type.get(kind, of_all).items():
            if label < len(scores):
                scores[label] = count
        found.append(scores)
    return found
