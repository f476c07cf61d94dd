"""Multiple choice: of several texts for a clip, does the right one score highest (MSR-VTT-MC and the like)?"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...base.errors import UserError
from ..measures.checks import check_numbers, check_same_length
from ..measures.choices import multiple_choice, per_type
from ..measures.rows import SCORE, check_pair, paired_cosine, unit_rows
from ..npz import read_npz
from .marks import marked
from .minimal_pairs import Foils
from .zero_shot import interval_95

EMBEDDED = {"options": "float [n,o,E]", "video": "float [n,E]"}
SCORED = {"scores": "float [n,o] (questions by options)"}
ANSWERS = {"answers": "int [n], the right option of each question"}
_TIES = (
    "expectation over a uniformly random choice among the highest; first_wins: the first of them, as argmax does; "
    "optimistic and pessimistic: every tie is won or lost"
)


def choice_report(path: Path, *, scores: bool) -> dict[str, Any]:
    """Measure multiple choice on a file.

    Args:
      path: an `.npz` with `options`, `video` and `answers`, or with `scores` and `answers`; optional are `ids` and
        `types`, strings [n].
      scores: it holds scores.

    Returns:
      JSON values: `protocol`, `multiple_choice` as `choices.multiple_choice`, and `per_type` where there are types.

    Raises:
      UserError: no such file, a missing array, arrays that do not fit together, a row that is zero or not finite, a
        score that is not finite, or an answer that is not among the options.
    """
    arrays = read_npz(path, wanted=(SCORED if scores else EMBEDDED) | ANSWERS)
    try:
        found = check_numbers(arrays["scores"], name="scores", dimensions=2) if scores else _cosines(arrays)
        answers = np.asarray(arrays["answers"])
        if answers.ndim != 1 or answers.dtype.kind not in "iu":
            raise UserError(f"'answers' is {answers.dtype} of shape {answers.shape}; wanted integers ({len(found)},)")
        named = {key: [str(one) for one in arrays[key].reshape(-1)] for key in ("ids", "types") if key in arrays}
        lists: dict[str, Any] = {"scores" if scores else "video": found, "answers": answers} | named
        check_same_length(**lists)
        block = {"multiple_choice": multiple_choice(found, answers=answers, ids=named.get("ids"))}
        if "types" in named:
            block["per_type"] = per_type(list(found), answers=answers.tolist(), types=named["types"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    protocol = {
        "task": "multiple choice",
        "score": "as given" if scores else SCORE,
        "options": found.shape[1],
        "ties": _TIES,
        "twinreel": __version__,
    }
    return {"protocol": protocol, **block}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Questions:
    """The questions of a split that have options and a right one.

    Attributes:
      clips: int64 [q], the row of each one's clip.
      ids: of the questions: that of the clip, with #2 … for further ones.
      options: [q] lists of places among `texts`.
      answers: int64 [q], the right option of each.
      texts: the distinct texts of all options.
      unanswered: questions with options of which none is known to be right; they are not measured.
      without: clips without a question that is measured.
    """

    clips: np.ndarray
    ids: list[str]
    options: list[np.ndarray]
    answers: np.ndarray
    texts: list[str]
    unanswered: int
    without: int

    def notes(self) -> list[str]:
        """Return what the reader of the figures must know."""
        found = [f"{self.unanswered} questions have no right option and are not measured"] if self.unanswered else []
        return found + ([f"{self.without} clips have no question that is measured"] if self.without else [])


def questions_of_rows(rows: Sequence[Mapping[str, Any]]) -> Questions:
    """Collect the questions of clips.

    Args:
      rows: lines of `clips.jsonl`; their `questions` have `options` and `correct`.

    Raises:
      UserError: no question has options of which one is right.

    >>> asked = {"clip_id": "a", "questions": [{"options": ["x", "y"], "correct": 1}, {"question": "why?"}]}
    >>> found = questions_of_rows([asked, {"clip_id": "b", "questions": []}])
    >>> found.ids, found.texts, found.answers.tolist(), found.without
    (['a'], ['x', 'y'], [1], 1)
    """
    place: dict[str, int] = {}
    clips: list[int] = []
    ids, options, answers, unanswered = [], [], [], 0
    for number, row in enumerate(rows):
        own = [asked for asked in row.get("questions") or [] if asked.get("options")]
        known = [asked for asked in own if asked.get("correct") is not None]
        unanswered += len(own) - len(known)
        for count, asked in enumerate(known, start=1):
            clips.append(number)
            ids.append(f"{row['clip_id']}#{count}" if count > 1 else str(row["clip_id"]))
            options.append(np.array([place.setdefault(text, len(place)) for text in asked["options"]]))
            answers.append(asked["correct"])
    if not clips:
        raise UserError(
            f"none of the {len(rows)} clips has a question with options of which one is right; give `questions` with "
            "`options` and `correct` in the manifest, and prepare again"
        )
    return Questions(
        clips=np.array(clips, np.int64),
        ids=ids,
        options=options,
        answers=np.array(answers, np.int64),
        texts=list(place),
        unanswered=unanswered,
        without=len(rows) - len(set(clips)),
    )


def question_report(
    questions: Questions,
    *,
    video: np.ndarray,
    text: np.ndarray,
    protocol: Mapping[str, Any],
    coverage: dict[str, Any],
) -> dict[str, Any]:
    """Measure the choice among the options of each question by their cosine with its clip.

    Args:
      questions: q of them.
      video: float [q,E], the clip of each; normalised here.
      text: float [t,E], of `questions.texts`; normalised here.
      protocol: how the embeddings were made.
      coverage: of the split.

    Returns:
      JSON values: `protocol`; `multiple_choice` as `choices.multiple_choice`, with `interval_95`; `questions`, a list
      of `question`, `correct` and `chosen` (texts; the first of equal ones) and `tied`; `coverage`.

    Raises:
      UserError: a row that is zero or not finite.
    """
    video, text = unit_rows(video, name="video"), unit_rows(text, name="options")
    scores = [
        paired_cosine(text[own], second=np.broadcast_to(clip, (len(own), len(clip))))
        for own, clip in zip(questions.options, video, strict=True)
    ]
    answers = questions.answers.tolist()
    block = multiple_choice(scores, answers=answers, ids=questions.ids)
    best = [one == one.max() for one in scores]
    hits = np.array([top[right] / top.sum() for top, right in zip(best, answers, strict=True)])
    block["interval_95"] = interval_95(hits)
    named = [[questions.texts[place] for place in own] for own in questions.options]
    zipped = zip(questions.ids, named, answers, scores, best, strict=True)
    asked = [
        {"question": name, "correct": texts[right], "chosen": texts[one.argmax()], "tied": int(top.sum()) - 1}
        for name, texts, right, one, top in zipped
    ]
    counts = sorted({len(own) for own in questions.options})
    about = dict(protocol) | {
        "task": "multiple choice",
        "score": SCORE,
        "options": counts[0] if len(counts) == 1 else counts,
        "questions": len(asked),
        "ties": _TIES,
        "warnings": [*(protocol.get("warnings") or []), *questions.notes()],
        "twinreel": __version__,
    }
    return marked({"protocol": about, "multiple_choice": block, "questions": asked, "coverage": coverage})


def foil_choices(*, text: np.ndarray, video: np.ndarray, video_of_text: np.ndarray, foils: Foils) -> dict[str, Any]:
    """Measure multiple choice among a clip's caption and all its foils.

    Args:
      text: float [n,E], one row per caption; normalised here.
      video: float [m,E], one row per video; normalised here.
      video_of_text: int [n], each caption's video.
      foils: wrong options; each belongs to a caption, the right option.

    Returns:
      As `choices.multiple_choice`, without `first_wins`: the right option has no place among the others.

    Raises:
      UserError: rows that are zero or not finite, or arrays that do not fit together.

    >>> video = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> foils = Foils(embedding=video[[1, 1, 1]], of_text=np.array([0, 0, 1]), names=np.array(["1", "2", "1"]))
    >>> found = foil_choices(text=video, video=video, video_of_text=np.array([0, 1]), foils=foils)
    >>> found["accuracy"], found["tied"], round(found["chance"], 2), found["n"]
    (75.0, 1, 41.67, 2)
    """
    text, video, index = check_pair(text, video=video, video_of_text=video_of_text)
    wrong = unit_rows(foils.embedding, name="foil")
    if wrong.shape[1] != text.shape[1]:
        raise UserError(f"'foil' has width {wrong.shape[1]} and 'text' {text.shape[1]}; wanted those of one model")
    right = paired_cosine(text, second=video[index])
    scores = paired_cosine(wrong, second=video[index[foils.of_text]])
    order = np.argsort(foils.of_text, kind="stable")
    asked, starts = np.unique(foils.of_text[order], return_index=True)
    parts = np.split(scores[order], starts[1:])
    lists = [np.append(right[one], part) for one, part in zip(asked, parts, strict=True)]
    found = multiple_choice(lists, answers=np.zeros(len(asked), np.int64))
    del found["first_wins"]
    return found


def _cosines(arrays: dict[str, np.ndarray]) -> np.ndarray:
    options = check_numbers(arrays["options"], name="options", dimensions=3)
    video = unit_rows(arrays["video"], name="video")
    questions, choices, width = options.shape
    if (questions, width) != video.shape:
        raise UserError(f"'options' has shape {options.shape} and 'video' {video.shape}; wanted [n,o,E] and [n,E]")
    unit = unit_rows(options.reshape(-1, width), name="options")
    return paired_cosine(unit, second=np.repeat(video, choices, axis=0)).reshape(questions, choices)
