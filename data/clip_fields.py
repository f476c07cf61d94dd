"""JSON values to a `Clip`: every field is checked, and a fault is reported with its place, field and value."""

import json
import re
import sys
from pathlib import PurePosixPath
from typing import Any, NoReturn

from ..base.errors import UserError
from .clip import REFUSED, Clip, Question, Sentence, Span, Word
from .timecode import FORMS, to_seconds

_LONGEST_S = 1e9  # thirty years: no file is longer
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_OF_QUESTIONS = {"question", "answers", "options", "correct", "type"}


class _Problem(Exception):
    """A faulty field: (field, value, what is wanted)."""


def make_clip(fields: dict[str, Any], *, where: str) -> Clip:
    """Check the fields of one clip and make it.

    A window that no file can have (empty, backwards, negative, not a number) is the fault of one clip: it is
    made without a window, and `meta["refused"]` has the reason, so that `prepare` rejects it and counts it under
    `--max_bad_fraction`.

    Args:
      fields: JSON values by field name of `Clip`; None or absent = unknown. Times may be seconds, or texts such as
        `00:01:02.5`.
      where: names the place of the fields in error messages (`file.csv, line 3`).

    Raises:
      UserError: a field of the wrong kind; names place, field, value and what is wanted.
    """
    try:
        return _checked(fields, where=where)
    except _Problem as problem:
        field, value, wanted = problem.args
        raise UserError(f"{where}: field {field!r} is {short(value)}, wanted {wanted}") from None


def short(value: object) -> str:
    """Return the value as Python writes it, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _checked(fields: dict[str, Any], *, where: str) -> Clip:
    meta = _meta(fields)
    start, end, impossible = _window(fields)
    if impossible:
        meta = {REFUSED: f"impossible window: {impossible} ({_place(where)})"} | meta
    features = _features(fields)
    return Clip(
        clip_id=_string(fields, "clip_id", required="a unique name of the clip"),
        path=_string(fields, "path", required="" if features else "the media file, relative to the manifest"),
        captions=_strings(fields, "captions"),
        split=_split(fields),
        start_s=start,
        end_s=end,
        labels=_strings(fields, "labels"),
        spans=_spans(fields),
        questions=_questions(fields),
        transcript=_string(fields, "transcript"),
        sentences=_sentences(fields),
        features=features,
        meta=meta,
    )


def _problem(field: str, value: object, wanted: str) -> NoReturn:
    raise _Problem(field, value, wanted)


def _place(where: str) -> str:
    """The place without the folder of its file: a source that is moved stays the same source."""
    file, comma, rest = where.partition(", ")
    return PurePosixPath(file).name + comma + rest


# --- window and split ---


def _window(fields: dict[str, Any]) -> tuple[float | None, float | None, str]:
    """Start and end, and what is impossible about them; both are None where something is."""
    start, end = _time(fields, "start_s"), _time(fields, "end_s")
    for name, value in (("start_s", start), ("end_s", end)):
        if value is not None and not 0 <= value <= _LONGEST_S:  # nor NaN
            return None, None, f"{name}={value:g}, wanted seconds from the start of the file, 0 or more"
    if end is not None and end <= (start or 0.0):
        return None, None, f"end_s={end:g} is not after start_s={start or 0.0:g}"
    return start, end, ""


def _time(fields: dict[str, Any], name: str, *, path: str = "") -> float | None:
    """A time as it is given, of any size; `path` names the field in messages."""
    value = fields.get(name)
    if value is None:
        return None
    try:
        return to_seconds(value)
    except ValueError as error:
        _problem(path or name, value, str(error))


def _split(fields: dict[str, Any]) -> str:
    split = _string(fields, "split")
    if split and (not _NAME.fullmatch(split) or split == "all"):
        plain = split.strip().lower()
        hint = f" ({plain!r}?)" if plain != split and _NAME.fullmatch(plain) and plain != "all" else ""
        _problem("split", split, f"a name such as train, val or test{hint}: lower case letters, digits, _, not 'all'")
    return split


# --- stretches of time ---


def _stretches(fields: dict[str, Any], name: str, *, known: set[str], form: str) -> list[tuple[str, dict[str, Any]]]:
    """The items of a list of stretches of time, each with its name for messages; their times are checked."""
    value = fields.get(name)
    if value is None:
        return []
    wanted = f'a list of objects, as "{name}": [{form}]'
    if not isinstance(value, list):
        _problem(name, value, wanted)
    made = []
    for index, item in enumerate(value):
        here = f"{name}[{index}]"
        if not isinstance(item, dict) or not {"start_s", "end_s"} <= set(item) <= known:
            _problem(here, item, wanted)
        start, end = (_time(item, key, path=f"{here}.{key}") for key in ("start_s", "end_s"))
        for key, time in (("start_s", start), ("end_s", end)):
            if time is None or not 0 <= time <= _LONGEST_S:  # nor NaN
                _problem(f"{here}.{key}", item[key], f"{FORMS} from the start of the file, 0 or more")
        assert start is not None and end is not None
        if end <= start:
            _problem(here, item, "a start_s, and an end_s after it")
        made.append((here, {**item, "start_s": start, "end_s": end}))
    return sorted(made, key=lambda pair: pair[1]["start_s"])


def _sentences(fields: dict[str, Any]) -> tuple[Sentence, ...]:
    form = '{"start_s": 0.5, "end_s": 2.0, "text": "..."}'
    made = []
    for here, item in _stretches(fields, "sentences", known={"start_s", "end_s", "text", "words"}, form=form):
        text = _string(item, "text", required="what is said", path=f"{here}.text")
        words = _words(item, path=f"{here}.words")
        made.append(Sentence(start_s=item["start_s"], end_s=item["end_s"], text=text, words=words))
    return tuple(made)


def _words(item: dict[str, Any], *, path: str) -> tuple[Word, ...]:
    value = item.get("words")
    if value is None:
        return ()
    wanted = 'a list of words with their times, as "words": [[0.5, 0.9, "hello"]], each end after its start'
    if not isinstance(value, list):
        _problem(path, value, wanted)
    made = []
    for index, word in enumerate(value):
        here = f"{path}[{index}]"
        if not isinstance(word, list) or len(word) != 3 or not isinstance(word[2], str) or not word[2].strip():
            _problem(here, word, wanted)
        start, end = (_time({"time": time}, "time", path=here) for time in word[:2])
        if start is None or end is None or not 0 <= start < end <= _LONGEST_S:
            _problem(here, word, wanted)
        made.append(Word(start_s=start, end_s=end, text=_encodable(here, word[2])))
    return tuple(sorted(made, key=lambda word: word.start_s))


def _spans(fields: dict[str, Any]) -> tuple[Span, ...]:
    form = '{"start_s": 0.5, "end_s": 2.0, "label" or "text": "...", "score": 0.9}'
    known = {"start_s", "end_s", "label", "text", "score"}
    made = []
    for here, item in _stretches(fields, "spans", known=known, form=form):
        label, text = (_string(item, key, path=f"{here}.{key}") for key in ("label", "text"))
        if not label.strip() and not text.strip():
            _problem(here, item, "a label or a text")
        score = _score(item, path=f"{here}.score")
        made.append(Span(start_s=item["start_s"], end_s=item["end_s"], label=label, text=text, score=score))
    return tuple(made)


def _score(item: dict[str, Any], *, path: str) -> float | None:
    score = item.get("score")
    if score is None:
        return None
    if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) <= sys.float_info.max:  # nor NaN
        _problem(path, score, "a finite number")
    return float(score)


def _questions(fields: dict[str, Any]) -> tuple[Question, ...]:
    value = fields.get("questions")
    if value is None:
        return ()
    wanted = (
        'a list of objects, as "questions": [{"question": "...?", "answers": ["..."]}] or '
        '[{"options": ["...", "..."], "correct": 0}]'
    )
    if not isinstance(value, list):
        _problem("questions", value, wanted)
    made = []
    for index, item in enumerate(value):
        here = f"questions[{index}]"
        if not isinstance(item, dict) or not set(item) <= _OF_QUESTIONS:
            _problem(here, item, wanted)
        if not {"question", "options"} & set(item):
            _problem(here, item, wanted)
        question = _string(item, "question", path=f"{here}.question")
        options = _strings(item, "options", path=f"{here}.options")
        if not question.strip() and not options:
            _problem(f"{here}.question", question, "a question, or options to choose among")
        if len(options) == 1 or not all(option.strip() for option in options):
            _problem(f"{here}.options", item["options"], "two texts or more, none of them blank")
        answers = _strings(item, "answers", path=f"{here}.answers")
        correct = _correct(item, count=len(options), path=f"{here}.correct")
        kind = _string(item, "type", path=f"{here}.type")
        made.append(Question(question=question, answers=answers, options=options, correct=correct, type=kind))
    return tuple(made)


def _correct(item: dict[str, Any], *, count: int, path: str) -> int | None:
    correct = item.get("correct")
    if correct is None:
        return None
    if isinstance(correct, bool) or not isinstance(correct, int) or not 0 <= correct < count:
        wanted = f"the place of one of the {count} options, 0 to {count - 1}" if count else "nothing, without options"
        _problem(path, correct, wanted)
    return correct


# --- the other fields ---


def _meta(fields: dict[str, Any]) -> dict[str, Any]:
    meta = {} if fields.get("meta") is None else fields["meta"]
    if not isinstance(meta, dict):
        _problem("meta", meta, "a JSON object")
    try:
        json.dumps(meta, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        _problem("meta", meta, "values that JSON and UTF-8 hold: no NaN, no half of a surrogate pair")
    if not isinstance(meta.get("group") or "", str):
        _problem("meta.group", meta["group"], "a string: the name of the group of clips")
    foils = meta.get("foils") or {}
    if not isinstance(foils, dict) or not all(isinstance(text, str) and text.strip() for text in foils.values()):
        _problem(
            "meta.foils", foils, 'an object from what is changed to the caption, as {"colour": "a red disc falls"}'
        )
    if foils and not fields.get("captions"):
        _problem("meta.foils", foils, "a clip with captions: a foil is the first caption with one thing changed")
    return meta


def _features(fields: dict[str, Any]) -> dict[str, str]:
    value = {} if fields.get("features") is None else fields["features"]
    if not isinstance(value, dict):
        _problem("features", value, 'an object from modality to .npy file, as "features": {"rgb": "a.npy"}')
    for name, path in value.items():
        if not _NAME.fullmatch(name) or not isinstance(path, str) or not path:
            _problem("features", value, "a name of lower case letters, digits and _ and a path for each modality")
    return {name: _encodable("features", path) for name, path in value.items()}


def _string(fields: dict[str, Any], name: str, *, required: str = "", path: str = "") -> str:
    value = fields.get(name)
    if required and not value:
        _problem(path or name, "missing" if name not in fields else value, required)
    if value is None:
        return ""
    if not isinstance(value, str):
        _problem(path or name, value, required or "a string")
    return _encodable(path or name, value)


def _strings(fields: dict[str, Any], name: str, *, path: str = "") -> tuple[str, ...]:
    value = fields.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        _problem(path or name, value, f'a list of strings, as "{name}": ["..."]')
    return tuple(_encodable(path or name, item) for item in value)


def _encodable(name: str, value: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # JSON may spell half of a surrogate pair, which no UTF-8 text holds
        _problem(name, value, "text that UTF-8 can hold (it has half of a surrogate pair)")
    return value
