"""Questions about clips, one example each: which take part, the vocabulary of answers, and their batches."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError, unknown
from .clips import LabelledClips, Row
from .context import TaskContext
from .queries import Batch, divide

KINDS = ("closed", "choice", "generated")
"""How questions are answered: from a closed vocabulary of the train split's answers, by choosing an option, or in words
that are written token by token."""
Encode = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]
"""Texts -> token ids int32 [n,L] and mask bool [n,L]."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Questions:
    """The questions of a split, q in all.

    Attributes:
      split: its name.
      record: int64 [q], the clip of each, ascending.
      texts: the questions; "" of a choice that asks nothing else.
      types: the type of each, that of the manifest or the first word.
      answers: of each, one per annotator; () of a choice.
      options: of each; () of an open question.
      correct: int64 [q], the place of the right option; -1 of an open question.
      size: clips of the split.
    """

    split: str
    record: np.ndarray
    texts: tuple[str, ...]
    types: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]
    options: tuple[tuple[str, ...], ...]
    correct: np.ndarray
    size: int

    def __len__(self) -> int:
        return len(self.record)

    @property
    def clips(self) -> LabelledClips:
        """The clips that take part, without classes of their own."""
        label = np.full(self.size, -1, np.int32)
        label[self.record] = 0
        return LabelledClips(split=self.split, labels=(), label=label)

    @property
    def right(self) -> list[str]:
        """The right answer of each: that of most annotators (of equals the first), or the right option."""
        pairs = zip(self.answers, self.options, self.correct.tolist(), strict=True)
        return [options[place] if options else Counter(given).most_common(1)[0][0] for given, options, place in pairs]

    def only(self, chosen: np.ndarray) -> "Questions":
        """Return the questions of some numbers, int [n], ascending."""
        parts = {
            name: tuple(getattr(self, name)[i] for i in chosen) for name in ("texts", "types", "answers", "options")
        }
        return dataclasses.replace(self, record=self.record[chosen], correct=self.correct[chosen], **parts)

    def asked(self) -> list[str]:
        """Return what the model reads: the question; of a choice the question with each of its options."""
        if not any(self.options):
            return list(self.texts)
        pairs = zip(self.texts, self.options, strict=True)
        return [f"{text} {option}".strip() for text, options in pairs for option in options]

    def targets(self, vocabulary: Sequence[str]) -> np.ndarray:
        """Return float32 [q,K]: how right each answer of the vocabulary is, as VQA counts.

        That is the mean over annotators of min(1, matches among the others / 3), of one or two annotators 1 for what
        one says (Antol et al. 2015).
        """
        place, found = (
            {name: i for i, name in enumerate(vocabulary)},
            np.zeros((len(self), len(vocabulary)), np.float32),
        )
        for row, given in enumerate(self.answers):
            for answer, count in Counter(given).items():
                if answer in place:
                    others = (count * min(1.0, (count - 1) / 3) + (len(given) - count) * min(1.0, count / 3)) / len(
                        given
                    )
                    found[row, place[answer]] = others if len(given) > 2 else 1.0
        return found

    def labels(self, vocabulary: Sequence[str]) -> np.ndarray:
        """Return int32 [q]: the place of the commonest answer that the vocabulary has, -1 if it has none."""
        place = {name: i for i, name in enumerate(vocabulary)}
        return np.array(
            [
                next((place[name] for name, _ in Counter(given).most_common() if name in place), -1)
                for given in self.answers
            ],
            np.int32,
        )

    def attach(
        self,
        batches: Iterator[Batch],
        *,
        encode: Encode,
        vocabulary: Sequence[str],
        soft: bool,
        spell: Encode | None = None,
    ) -> Iterator[Batch]:
        """Yield batches of clips with the question and the answer of each row's example.

        Args:
          batches: with `example` int64 [b], besides the clips.
          encode: reads texts.
          vocabulary: of the answers; () of a choice, or of answers that are written.
          soft: the target is `targets` and not one answer.
          spell: makes token ids of answers that are written; None = they are not.

        Yields:
          The clips with `question int32 [b,L]` and `question_mask`, of a choice [b,O,L] with `options_mask bool [b,O]`;
          and `label int32 [b]`, with `soft` `target float32 [b,K]`, or with `spell` `answer int32 [b,A]` and
          `answer_mask`.
        """
        most = max((len(options) for options in self.options), default=0)
        label = self.labels(vocabulary) if vocabulary else self.correct.astype(np.int32)
        right = self.right if spell else []
        for batch in batches:
            example = batch["example"]
            own = self.only(example)
            ids, mask = encode(own.asked())
            if most:
                counts = np.array([len(options) for options in own.options])
                real = np.arange(most)[None] < counts[:, None]
                ids, mask = (padded_options(part, real=real) for part in (ids, mask))
                batch = batch | {"options_mask": real}
            made = {"target": own.targets(vocabulary)} if soft else {"label": label[example]}
            if spell is not None:
                made = dict(zip(("answer", "answer_mask"), spell([right[i] for i in example]), strict=True))
            yield batch | made | {"question": ids, "question_mask": mask}

    def attach_several(
        self, batches: Iterator[Batch], *, count: int, seed: int, start_step: int, **how: Any
    ) -> Iterator[Batch]:
        """Yield batches of clips with up to `count` questions of each.

        Args:
          batches: with `example` int64 [b], the place of each row's clip among `clips.indices`.
          count: Q; of a clip that has more, Q are drawn by (seed, step, clip).
          seed: of these draws.
          start_step: number of the first batch.
          **how: the other arguments of `attach`; no choices.

        Yields:
          The clips with what `attach` adds, as [b,Q,…], and `asked bool [b,Q]`, where there is a question.
        """
        clips = self.clips.indices
        begins, ends = (np.searchsorted(self.record, clips, side=side).tolist() for side in ("left", "right"))
        for step, batch in enumerate(batches, start=start_step):
            real = np.zeros((len(batch["example"]), count), bool)
            chosen: list[np.ndarray] = []
            for row, clip in enumerate(batch["example"].tolist()):
                own = np.arange(begins[clip], ends[clip])
                if len(own) > count:
                    own = np.sort(np.random.default_rng([seed, step, clip]).choice(own, count, replace=False))
                chosen.append(own)
                real[row, : len(own)] = True
            [made] = self.attach(iter([{"example": np.concatenate(chosen)}]), **how)
            del made["example"]
            yield batch | {key: padded_options(part, real=real) for key, part in made.items()} | {"asked": real}


def padded_options(rows: np.ndarray, *, real: np.ndarray) -> np.ndarray:
    """Return the rows of all options, one question's after another's, as [b,O,…], zeros where `real` [b,O] is False."""
    found = np.zeros((*real.shape, *rows.shape[1:]), rows.dtype)
    found[real] = rows
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionOptions:
    """The fields of `config.task` that choose questions and answers.

    Attributes:
      kind: one of `KINDS`.
      vocabulary: K, at most so many answers, the commonest of the train split.
      min_count: train questions that an answer of the vocabulary needs at least.
      questions_per_clip: Q; a row of a train batch is a clip with up to so many of its questions: clip and sound are
        encoded once for all of them. 0 = a row is one question.
      val_split: split to validate on during training; "" = none.
      holdout: share of the train split to validate on, by source file, where there is no validation split; 0 = do not
        validate.
      test_split: split that is reported on; "" for the validation clips.
    """

    kind: str = "closed"
    vocabulary: int = 1000
    min_count: int = 1
    questions_per_clip: int = 0
    val_split: str = "val"
    holdout: float = 0.15
    test_split: str = "test"

    def __post_init__(self):
        if self.kind not in KINDS:
            raise unknown("config.task.kind:", self.kind, KINDS)
        if not 0 <= self.holdout < 1:
            raise UserError(f"config.task.holdout must be at least 0 and below 1, got {self.holdout}")
        if self.questions_per_clip < 0 or (self.questions_per_clip and self.kind == "choice"):
            raise UserError(
                f"config.task.questions_per_clip={self.questions_per_clip} must be 0, or a number of questions where "
                f"they come without options, got kind={self.kind!r}"
            )
        if self.vocabulary < 2 or self.min_count < 1:
            raise UserError(
                f"config.task.vocabulary={self.vocabulary} must be at least 2, and config.task.min_count="
                f"{self.min_count} at least 1"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionSplits:
    """Three sets of questions; for the attributes see `splits.Splits`.

    Attributes:
      vocabulary: the answers, the commonest first; () of a choice.
      untrained: train questions whose answers the vocabulary lacks, which are not trained on.
      unused: questions of the reported split that cannot be used, as they have no answer (options).
    """

    train: Questions
    validation: Questions | None
    report: Questions
    validated_on: str
    vocabulary: tuple[str, ...]
    untrained: int
    unused: int


def questions_of(rows: Sequence[Row], *, split: str, kind: str) -> tuple[Questions, int]:
    """Read the questions of a split, and count those that cannot be used.

    Args:
      rows: lines of `clips.jsonl`.
      split: their split.
      kind: one of `KINDS`: "choice" takes questions with options of which one is right, the others those with answers.
    """
    found, left = [], 0
    for number, row in enumerate(rows):
        for one in row.get("questions") or ():
            answers = tuple(answer.strip() for answer in one.get("answers") or () if answer.strip())
            options, place = tuple(one.get("options") or ()), one.get("correct")
            chosen = kind == "choice"
            fits = options and place is not None if chosen else answers and one["question"].strip()
            if not fits:
                left += 1
                continue
            text = one["question"].strip()
            type_of = one.get("type") or (text.lower().split() or [""])[0]
            found.append((number, text, type_of, () if chosen else answers, options if chosen else (), place))
    questions = Questions(
        split=split,
        record=np.array([number for number, *_ in found], np.int64),
        texts=tuple(one[1] for one in found),
        types=tuple(one[2] for one in found),
        answers=tuple(one[3] for one in found),
        options=tuple(one[4] for one in found),
        correct=np.array([one[5] if kind == "choice" else -1 for one in found], np.int64),
        size=len(rows),
    )
    return questions, left


def answer_vocabulary(questions: Questions, *, size: int, min_count: int) -> tuple[str, ...]:
    """Return the `size` commonest right answers that at least `min_count` questions have; of equals the first met.

    Raises:
      UserError: fewer than two.
    """
    counts = Counter(questions.right)
    found = tuple(name for name, count in counts.most_common(size) if count >= min_count)
    if len(found) < 2:
        shown = ", ".join(f"{name} ({count})" for name, count in counts.most_common(10))
        raise UserError(
            f"the vocabulary has {len(found)} answers with at least config.task.min_count={min_count} train questions, "
            f"wanted two or more; the answers: {shown}"
        )
    return found


def choose_questions(context: TaskContext, *, options: QuestionOptions) -> QuestionSplits:
    """Choose questions and vocabulary, and print what was chosen; reads `clips.jsonl` only.

    Raises:
      UserError: a split that does not exist, no question to train or to report on, or too few answers.
    """
    split, records = context.data.feed.train_split, context.records
    for name, field in ((split, "config.data.train_split"), (options.test_split, "config.task.test_split")):
        if name and name not in records.splits:
            raise unknown(f"split in {field}:", name, records.splits)

    def read(name: str) -> Questions:
        return questions_of(records.rows(name), split=name, kind=options.kind)[0]

    whole, rows = _usable(context, split, kind=options.kind), records.rows(split)
    train, validation, validated_on = divide(
        whole, rows=rows, read=read, context=context, options=options, noun="questions"
    )
    taken = context.in_share(split)
    train = train if taken is None else train.only(np.flatnonzero(taken[train.record]))
    report = read(options.test_split) if options.test_split else validation
    if report is None or not len(report):
        raise UserError(
            f"there is nothing to report on: config.task.test_split={options.test_split!r} has no question "
            f"{_WANTED[options.kind]}; set it to a split that has some (splits: "
            f"{', '.join(sorted(records.splits))}), or to '' for the validation clips"
        )
    vocabulary, untrained = (), 0
    if options.kind == "closed":
        vocabulary = answer_vocabulary(train, size=options.vocabulary, min_count=options.min_count)
        known = train.labels(vocabulary) >= 0
        untrained, train = int((~known).sum()), train.only(np.flatnonzero(known))
        context.say(
            f"vocabulary: {len(vocabulary)} answers ({', '.join(vocabulary[:8])}, …); {untrained} train questions "
            "have an answer outside it and are not trained on"
        )
        outside = [answer for answer in report.right if answer not in set(vocabulary)]
        if len(outside) == len(report):
            raise UserError(
                f"none of the {len(report)} answers of split {report.split!r} is in the vocabulary of the train split "
                f"(such as {outside[0]!r}); raise config.task.vocabulary={options.vocabulary}, or check both splits"
            )
    for questions in (train, *([validation] if validation else []), report):
        clips = len(np.unique(questions.record))
        context.say(f"  split {questions.split!r}: {len(questions)} questions on {clips} clips")
    return QuestionSplits(
        train=train,
        validation=validation,
        report=report,
        validated_on=validated_on,
        vocabulary=vocabulary,
        untrained=untrained,
        unused=questions_of(records.rows(report.split), split=report.split, kind=options.kind)[1],
    )


_WANTED = {
    "closed": "with an answer (`answers`)",
    "generated": "with an answer (`answers`)",
    "choice": "with options to choose among of which one is right (`options`, `correct`)",
}


def _usable(context: TaskContext, split: str, *, kind: str) -> Questions:
    """Return the questions of the train split; raise UserError if none can be used."""
    rows = context.records.rows(split)
    found, left = questions_of(rows, split=split, kind=kind)
    if not len(found) and not left:
        raise UserError(
            f"no clip of split {split!r} has a question; fill in the field `questions` of the manifest (docs/data.md)"
        )
    if not len(found):
        other = "closed" if kind == "choice" else "choice"
        can = len(questions_of(rows, split=split, kind=other)[0])
        hint = f"; {can} of them suit config.task.kind={other!r}" if can else ""
        raise UserError(
            f"none of the {left} questions of split {split!r} comes {_WANTED[kind]}, which config.task.kind={kind!r} "
            f"needs{hint}"
        )
    if left:
        context.say(f"warning: {left} questions of split {split!r} do not come {_WANTED[kind]} and are left out")
    return found
