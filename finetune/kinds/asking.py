"""What a task that asks questions about clips consists of, but for its loss and its figures."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from rich.console import Console
from rich.progress import track

from ...base.errors import UserError
from ...base.section import section
from ...data.text.clean import text_cleaner
from ...encode.devices.rows import Rows
from ...encode.predict.answers import SEEN, AnswerPredictor, padded_length
from ...engine.sharding.mesh import check_batch_size
from ...zoo.spec import ModelSpec
from ..examples.clips import LabelledClips
from ..examples.context import TaskContext
from ..examples.questions import QuestionOptions, Questions, choose_questions
from ..inputs.feed import Batch, Feed
from .objective import HeadObjective
from .task import TowerOptions
from .timeline import checked_graph


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskingOptions(QuestionOptions, TowerOptions):
    """`config.task` of tasks that ask questions; the fields of both bases belong to it.

    Attributes:
      name: of the task.
      sound_tower: a new sound tower, trained with the head, for a checkpoint that has none: `{"family": "cnn", ...}`,
        the arguments of its class in `zoo.build.TOWERS`; {} = none. Needs `config.data.audio_seconds`.
      width: D of the head, even.
      depth: blocks.
      heads: attention heads; divides `width`.
      dropout: rate in the head.
      decoder_depth: of answers that are written (`kind="generated"`): blocks of the decoder.
    """

    name: str = ""
    sound_tower: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    width: int = 256
    depth: int = 2
    heads: int = 4
    dropout: float = 0.1
    decoder_depth: int = 1

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.dropout < 1:
            raise UserError(f"config.task.dropout must be at least 0 and below 1, got {self.dropout}")
        if self.sound_tower and "family" not in self.sound_tower:
            raise UserError(
                f"config.task.sound_tower={dict(self.sound_tower)!r} names no family; write it such as "
                "dict(family='cnn', channels=(16, 32, 64))"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipTokens:
    """The tokens of n clips.

    Attributes:
      record: int64 [n], the clips, ascending.
      arrays: keys of `encode.predict.answers.SEEN` -> one row per clip.
    """

    record: np.ndarray
    arrays: Rows

    def swapped(self, *names: str, seed: int) -> "ClipTokens":
        """Return the clips with some of their tokens (names of `SEEN`) exchanged: each gets those of another clip."""
        order = np.random.default_rng(seed).permutation(len(self.record))
        source = np.empty_like(order)
        source[order] = np.roll(order, 1)
        changed = {name: self.arrays[name][source] for name in names}
        return dataclasses.replace(self, arrays=self.arrays | changed)


class AskingTask:
    """The part of a task of questions that does not depend on its loss; see `task.Task`.

    A subclass sets `options_class`, and gives the head's own fields of the spec, objective, metric and report.
    """

    targets = None
    options_class: type[AskingOptions] = AskingOptions
    objective: HeadObjective

    def __init__(self, context: TaskContext):
        """Choose questions and vocabulary; reads `clips.jsonl` but no record."""
        self._context = context
        self.options = options = section(self.options_class, context.config["task"], name="task")
        check_batch_size(context.data.feed.batch_size, mesh=context.mesh)
        checked_graph(context)
        self._clean = text_cleaner(context.data.input.text)
        spec = self._tower_spec()
        self.feed = Feed(context, sound="audio" in spec.towers)
        self.splits = choose_questions(context, options=options)
        head = {name: getattr(options, name) for name in ("kind", "width", "depth", "heads", "dropout")}
        head |= {"labels": list(self.splits.vocabulary)}
        self.answer_length = self._answer_length() if options.kind == "generated" else 0
        head |= {"decoder_depth": options.decoder_depth} if options.kind == "generated" else {}
        self.objective = self.make_objective(spec.replace(heads={options.name: head | self.head_fields()}))
        longest = int(self._lengths(self.splits.train).max())
        self._length = padded_length(self.objective.spec, longest=longest)
        for questions in (self.splits.train, self.splits.report):
            if cut := self._cut(questions):
                context.say(
                    f"warning: {cut} of {len(questions.asked())} texts of split {questions.split!r} have more than "
                    f"config.data.context_length={context.data.input.context_length} tokens; their ends are not read"
                )

    def head_fields(self) -> dict[str, Any]:
        """Return the further fields of the head for the spec."""
        raise NotImplementedError

    def make_objective(self, spec: ModelSpec) -> HeadObjective:
        """Build the objective."""
        raise NotImplementedError

    @property
    def parts(self) -> tuple[str, ...]:
        """The towers come from the checkpoint, but for a new sound tower."""
        return tuple(f"{side}/.*" for side in self.objective.spec.towers if side in self._context.spec.towers)

    @property
    def validated_on(self) -> str:
        """Describes the validation questions."""
        return self.splits.validated_on

    def trained_on(self) -> LabelledClips:
        """Return the clips that are trained on."""
        return self.splits.train.clips

    def evaluated_on(self) -> list[LabelledClips]:
        """Return the clips of the validation questions, if any, and those of the report."""
        sets = [self.splits.validation, self.splits.report]
        return [questions.clips for questions in sets if questions is not None]

    def settled(self) -> dict[str, Any]:
        """Return `config.task` as it was used; the vocabulary is in the spec of the checkpoint."""
        return dataclasses.asdict(self.options)

    def asked(self, *, start_step: int, soft: bool) -> Iterator[Batch]:
        """Return this process's rows of the train batches; see `Questions.attach` and `attach_several`."""
        train, count = self.splits.train, self.options.questions_per_clip
        how: dict[str, Any] = {"encode": self._encode, "vocabulary": self.splits.vocabulary, "soft": soft}
        how["spell"] = self._spell if self.answer_length else None
        record = train.clips.indices if count else train.record
        batches = self.feed.examples(train.clips, record=record, start_step=start_step)
        if not count:
            return train.attach(batches, **how)
        given = {"count": count, "seed": self._context.config["seed"], "start_step": start_step}
        return train.attach_several(batches, **given, **how)

    def predictor(self, model: nnx.Module) -> AnswerPredictor:
        """Return the model as an answerer."""
        return AnswerPredictor(spec=self.objective.spec, model=model, mesh=self._context.mesh)

    def seen(
        self, predictor: AnswerPredictor, *, questions: Questions, shuffle: int | None = None, progress: bool = False
    ) -> tuple[Questions, ClipTokens, int]:
        """Return the questions whose clips can be read, the tokens of these clips, and how many others there are.

        Args:
          predictor: the model.
          questions: which ones.
          shuffle: seed by which the frames of each clip are put in another order; None = as they are.
          progress: draw a progress bar on standard error, on the first process.

        Raises:
          UserError: none of the clips can be read.
        """
        batches: Any = self.feed.evaluation(questions.clips, cached=shuffle is None)
        if progress and jax.process_index() == 0:
            batches = track(batches, "look at the clips", total=None, console=Console(stderr=True), transient=True)
        parts: list[Rows] = []
        for batch in batches:
            kept = {"video", "tokens", "clip_index", "valid", *(("audio", "audio_samples") * predictor.hears)}
            rows = {key: value for key, value in batch.items() if key in kept}
            if shuffle is not None:
                rows["video"] = shuffled_frames(rows["video"], clips=rows["clip_index"], seed=shuffle)
            made = predictor.see(rows)
            real = made["valid"] & (made["clip_index"] >= 0)
            parts.append({key: made[key][real] for key in (*SEEN, "clip_index") if key in made})
        arrays = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        record = arrays.pop("clip_index").astype(np.int64)
        own = np.flatnonzero(np.isin(questions.record, record))
        if not len(own):
            raise UserError(f"none of the clips of split {questions.split!r} can be read; prepare them again")
        kept = questions if len(own) == len(questions) else questions.only(own)
        return kept, ClipTokens(record=record, arrays=arrays), len(questions) - len(own)

    def scores(
        self, predictor: AnswerPredictor, *, questions: Questions, tokens: ClipTokens, baseline: bool = True
    ) -> tuple[list[Any], list[Any]]:
        """Return the probabilities of the answers to all questions, or the written ones; see `AnswerPredictor`."""
        counts = [max(len(options), 1) for options in questions.options]
        texts, joint, alone = questions.asked(), [], []
        size, begins = 4 * self._context.data.feed.batch_size, np.cumsum([0, *counts])
        for begin in range(0, len(questions), size):
            part = slice(begin, begin + size)
            place = np.searchsorted(tokens.record, questions.record[part])
            own = {key: value[place] for key, value in tokens.arrays.items()}
            read = texts[begins[begin] : begins[min(begin + size, len(questions))]]
            how: dict[str, Any] = {"texts": read, "batch_size": size, "baseline": baseline}
            written = predictor.kind == "generated"
            found = predictor.write(own, **how) if written else predictor.scores(own, counts=counts[part], **how)
            joint += found[0]
            alone += found[1]
        return joint, alone

    def protocol(self, *, questions: Questions, unread: int) -> dict[str, Any]:
        """Return how questions are chosen and shown, for a report on them."""
        shown = {key: value for key, value in self._context.protocol(questions.clips).items() if key != "classes"}
        del shown["clips_without_a_listed_label"]
        splits, vocabulary = self.splits, self.splits.vocabulary
        shown |= {"kind": self.options.kind, "questions": len(questions), "damaged": unread}
        shown |= {"questions_left_out": splits.unused, "texts_cut": self._cut(questions)}
        shown |= {"vocabulary": len(vocabulary), "untrained_questions": splits.untrained} if vocabulary else {}
        return shown | {"trained": list(self.objective.trainable), "towers": list(self.objective.spec.towers)}

    def _tower_spec(self) -> ModelSpec:
        """Return the towers that take part: with sound, where batches have it and there is a tower for it."""
        context, new = self._context, dict(self.options.sound_tower)
        has, sound = "audio" in context.spec.towers, context.data.input.audio_seconds > 0
        if new and (has or not sound):
            fault = (
                "the checkpoint has a sound tower already; set it to {}"
                if has
                else ("there is no sound to hear; set config.data.audio_seconds, such as 3.0")
            )
            raise UserError(f"config.task.sound_tower={new!r}: {fault}")
        if sound and not (has or new):
            raise UserError(
                f"config.data.audio_seconds={context.data.input.audio_seconds:g}, but the checkpoint has no sound "
                "tower; set it to 0, or give config.task.sound_tower=dict(family='cnn')"
            )
        spec = context.tower_spec("video", "text", *(["audio"] if has and sound else []))
        return spec.replace(towers={**spec.towers, "audio": new}) if new else spec

    def _lengths(self, questions: Questions) -> np.ndarray:
        return np.asarray(self._context.tokenizer.lengths([self._clean(text) for text in questions.asked()]))

    def _cut(self, questions: Questions) -> int:
        return int((self._lengths(questions) > self._context.data.input.context_length).sum())

    def _answer_length(self) -> int:
        """Return the most tokens of an answer: that of the longest one trained on, at most the context.

        Raises:
          UserError: a tokenizer without an end token.
        """
        context, whole = self._context, self._context.data.input.context_length
        if context.tokenizer.eos_id < 0:
            raise UserError(
                "config.task.kind='generated': the checkpoint's tokenizer has no end token, so an answer would not "
                "end; use kind='closed'"
            )
        lengths = np.asarray(context.tokenizer.lengths([self._clean(text) for text in self.splits.train.right]))
        if cut := int((lengths > whole).sum()):
            context.say(
                f"warning: {cut} answers of split {self.splits.train.split!r} have more than "
                f"config.data.context_length={whole} tokens; their ends are not learned"
            )
        return int(min(lengths.max(), whole))

    def _spell(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        cleaned = [self._clean(text) for text in texts]
        ids, mask, _ = self._context.tokenizer.encode(cleaned, context_length=self.answer_length)
        return ids, mask

    def _encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        cleaned = [self._clean(text) for text in texts]
        ids, mask, _ = self._context.tokenizer.encode(cleaned, context_length=self._length)
        return ids, mask


def shuffled_frames(video: np.ndarray, *, clips: np.ndarray, seed: int) -> np.ndarray:
    """Return clips uint8 [b,T,H,W,3] with the frames of each in an order drawn by (seed, clip)."""
    orders = [np.random.default_rng([seed, max(int(clip), 0)]).permutation(video.shape[1]) for clip in clips]
    return np.stack([frames[order] for frames, order in zip(video, orders, strict=True)])
