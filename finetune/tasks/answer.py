"""Video question answering: an answer of a closed vocabulary, one of a question's options, or one that is written."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ...base.errors import UserError, unknown
from ...evaluate.measures.wups import wordnet_similarity
from ...losses.classification import multilabel_cross_entropy, softmax_cross_entropy
from ...models.heads.answers import AnswerModel, AnswerWriter
from ...models.layers.draws import fold_each
from ...models.shapes import Scalar
from ...zoo.spec import ModelSpec
from ..examples.context import TaskContext
from ..examples.questions import Questions
from ..figures.answers import answer_figures, most_frequent
from ..figures.written import WUPS, most_frequent_texts, written_figures
from ..inputs.feed import Batch
from ..kinds.asking import AskingOptions, AskingTask
from ..kinds.objective import HeadObjective, split_keys
from ..kinds.task import VALIDATION
from ..kinds.writing import writing_loss
from ..reports.answers import print_figures, write_answers

LOSSES = ("softmax", "soft")
"""One right answer of the vocabulary; or all that annotators gave, each as right as VQA counts it, by a sigmoid each
(Anderson et al. 2018)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerOptions(AskingOptions):
    """`config.task` for answers; the fields of the bases belong to it.

    Attributes:
      loss: one of `LOSSES`, for a closed vocabulary.
      wordnet: of answers that are written: a local folder with WordNet's files, for WUPS (`pip install
        'twinreel[wups]'`); "" = WUPS is not computed.
    """

    name: str = "answer"
    loss: str = "softmax"
    wordnet: str = ""

    def __post_init__(self):
        super().__post_init__()
        if self.loss not in LOSSES:
            raise unknown("config.task.loss:", self.loss, LOSSES)
        if self.loss == "soft" and self.kind != "closed":
            raise UserError(
                f"config.task.loss='soft' is for a vocabulary (kind='closed'), got kind={self.kind!r}; set it to "
                "'softmax'"
            )
        if self.wordnet and self.kind != "generated":
            raise UserError(
                f"config.task.wordnet={self.wordnet!r} is for answers that are written (kind='generated'), got "
                f"kind={self.kind!r}; leave it out"
            )


class AnswerObjective(HeadObjective):
    """Cross-entropy of the answers, from question and clip, and the same from the question alone for the baseline."""

    def __init__(self, *, spec: ModelSpec, options: AnswerOptions, context: TaskContext):
        """Describe the model and the loss; a new sound tower is trained with the head."""
        new = "audio" in spec.towers and "audio" not in context.spec.towers and not options.train_towers
        opened = (*options.trainable, *(("^audio/",) if new else ()))
        super().__init__(spec=spec, options=dataclasses.replace(options, trainable=opened), context=context)
        self._loss = options.loss
        self.frozen = "video" not in self.trained_sides  # its features can be computed once, whatever else is trained

    def loss(
        self, model: AnswerModel, batch: dict[str, jax.Array], *, rngs: nnx.Rngs | None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the sum of both losses, and of each its value (nats) and its accuracy (0..1)."""
        _, keys = split_keys(rngs, rows=batch["valid"].shape[0])
        given = {key: batch.get(key) for key in ("video", "tokens", "audio", "audio_samples")}
        how: dict[str, Any] = {"keys": keys, "frozen": frozenset(self.spec.towers) - self.trained_sides}
        seen, asked = model.see(**given, **how), {"text": batch["question"], "mask": batch["question_mask"]}
        if isinstance(model.head, AnswerWriter):
            own = fold_each(keys, batch["asked"].shape[1]) if "asked" in batch else keys
            return writing_loss(model.head, model.read(seen, **asked, **how), batch=_by_question(batch), keys=own)
        found = model.answer(seen, **asked, **how)
        total, metrics = jnp.float32(0), {}
        for name, logits in found._asdict().items():
            value, right = self._of_scores(logits, batch=_by_question(batch))
            total = total + value
            metrics |= {f"loss_{name}": value} | ({} if right is None else {f"accuracy_{name}": right})
        return total, metrics

    def _of_scores(self, logits: jax.Array, *, batch: dict[str, jax.Array]) -> tuple[Scalar, Scalar | None]:
        if "options_mask" in batch:
            logits = jnp.where(batch["options_mask"], logits[..., 0], jnp.float32(-1e9))
        logits = logits.reshape(-1, logits.shape[-1])
        if self._loss == "soft":  # summed over the answers, as its authors do
            mean = multilabel_cross_entropy(logits=logits, target=batch["target"], valid=batch["valid"])
            return logits.shape[1] * mean, None
        value, metrics = softmax_cross_entropy(logits=logits, label=batch["label"], valid=batch["valid"])
        return value, metrics["accuracy"]


def _by_question(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Return what is known of the questions of a batch with several of each clip, one row for each."""
    if "asked" not in batch:
        return batch
    kept = {key: batch[key] for key in ("label", "target", "answer", "answer_mask") if key in batch}
    valid = batch["asked"] & batch["valid"][:, None]
    return {key: value.reshape(valid.size, *value.shape[2:]) for key, value in (kept | {"valid": valid}).items()}


class Answer(AskingTask):
    """The task `answer`; see `task.Task`."""

    options_class = AnswerOptions
    options: AnswerOptions

    def __init__(self, context: TaskContext):
        """Choose questions and open WordNet, if it is named."""
        super().__init__(context)
        self._similarity = wordnet_similarity(self.options.wordnet) if self.options.wordnet else None

    def head_fields(self) -> dict[str, Any]:
        """Return the fields of the head for the spec; see `AskingTask`."""
        return {"decode": {"max_tokens": self.answer_length} if self.answer_length else {"loss": self.options.loss}}

    def make_objective(self, spec: ModelSpec) -> AnswerObjective:
        """Build the objective."""
        return AnswerObjective(spec=spec, options=self.options, context=self._context)

    @property
    def metric(self) -> str:
        """Accuracy on the validation questions, if there are any."""
        return f"{VALIDATION}/accuracy" if self.splits.validation is not None else ""

    def batches(self, start_step: int) -> Iterator[Batch]:
        """Return this process's rows of the train batches; see `Questions.attach`."""
        return self.asked(start_step=start_step, soft=self.options.loss == "soft")

    def evaluate(self, model: nnx.Module, step: int) -> dict[str, float]:
        """Return `accuracy`, `question_only_accuracy` and, where known, `vqa_accuracy` and WUPS, in percent."""
        del step
        assert self.splits.validation is not None
        predictor = self.predictor(model)
        questions, tokens, _ = self.seen(predictor, questions=self.splits.validation)
        found = self.scores(predictor, questions=questions, tokens=tokens)
        joint, alone = (self._figures(scores, questions=questions) for scores in found)
        figures = {"accuracy": joint["accuracy"], "question_only_accuracy": alone["accuracy"]}
        return figures | {key: joint[key] for key in ("vqa_accuracy", *WUPS) if key in joint}

    def report(self, model: nnx.Module, *, out: Path, protocol: dict[str, Any]) -> dict[str, Any]:
        """Measure the model on the test split (or on the validation questions), write the report, print its table."""
        predictor, seed = self.predictor(model), self._context.config["seed"]
        questions, tokens, unread = self.seen(predictor, questions=self.splits.report, progress=True)
        joint, alone = self.scores(predictor, questions=questions, tokens=tokens)
        usual = self._most_frequent(questions)
        rows = {"model": joint, "question only": alone, "most frequent answer": usual}
        _, shuffled, _ = self.seen(predictor, questions=questions, shuffle=seed, progress=True)
        changed = {"frames shuffled": shuffled, "another clip's frames": tokens.swapped("tokens", seed=seed)}
        if predictor.hears:
            changed["another clip's sound"] = tokens.swapped("sound", "sound_mask", seed=seed)
        for name, other in changed.items():
            rows[name], _ = self.scores(predictor, questions=questions, tokens=other, baseline=False)
        figures = {name: self._figures(scores, questions=questions) for name, scores in rows.items()}
        whole = protocol | self.protocol(questions=questions, unread=unread) | {"loss": self.options.loss}
        if jax.process_index() == 0:
            given = {"scores": joint, "questions": questions, "vocabulary": self.splits.vocabulary}
            page = write_answers(figures, **given, records=self._context.records, out=out, protocol=whole)
            print_figures(figures, page=page)
        return {"protocol": whole, "rows": figures}

    def _figures(self, found: list[Any], *, questions: Questions) -> dict[str, Any]:
        if self.options.kind == "generated":
            return written_figures([one.answer for one in found], questions=questions, similarity=self._similarity)
        return answer_figures(found, questions=questions, vocabulary=self.splits.vocabulary)

    def _most_frequent(self, questions: Questions) -> list[Any]:
        train, vocabulary = self.splits.train, self.splits.vocabulary
        if self.options.kind == "generated":
            return most_frequent_texts(train, questions=questions)
        return most_frequent(train, questions=questions, vocabulary=vocabulary)


def make(context: TaskContext) -> Answer:
    """Build the task."""
    return Answer(context)
