"""Classification by a tower that also learns from a larger one: embeddings and similarities of clips."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ...base.errors import UserError
from ...encode.embed.teacher import SCALE, Taught, Teacher, locate_teacher
from ...losses.distillation import embedding_distance, similarities, similarity_divergence
from ...models.heads.classifier import Classifier
from ...models.layers.norm import unit_rows
from ...models.layers.pooling import masked_mean
from ...models.shapes import Scalar
from ..examples.context import TaskContext
from ..inputs.feed import Batch
from ..kinds.objective import split_keys
from ..options.classify import DistilOptions
from .classify import Classify, ClassifyObjective

_NAMED: dict[str, Any] = {"field": "config.task", "key": "teacher"}


class DistilObjective(ClassifyObjective):
    """Cross-entropy of the labels, and distances of the clips' vectors and similarities from the teacher's.

    The vector of a clip is its mean time token, mapped to the teacher's space where embeddings are compared. Yang et
    al. 2024 (CLIP-KD, arXiv:2307.12732): feature and contrastive relational distillation; Wu et al. 2023 (TinyCLIP).
    """

    def __init__(self, *, spec: Any, options: DistilOptions, **given: Any):
        """Describe the model and the loss; see `objective.HeadObjective`."""
        self.heads = ("^head/", "^teacher/") if options.embedding else ("^head/",)
        super().__init__(spec=spec, options=options, **given)
        if self.frozen:
            raise UserError(
                "config.task.name='distil' teaches the tower, and none of its parameters is trained; set "
                "config.task.train_towers=True, config.task.trainable or config.adapt"
            )

    def loss(
        self, model: Classifier, batch: dict[str, jax.Array], *, rngs: nnx.Rngs | None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the weighted sum; `labels`, `embedding` and `similarity` are its terms, in nats but the second."""
        options = self._options
        assert isinstance(options, DistilOptions)
        key = None if rngs is None else rngs()
        _, keys = split_keys(None if key is None else nnx.Rngs(key), rows=batch["valid"].shape[0])
        tokens = model.tokens(batch["video"], keys=keys)
        labels, metrics = super().loss(model, batch | {"tokens": tokens}, rngs=None if key is None else nnx.Rngs(key))
        total, terms, vectors = jnp.float32(options.label_weight) * labels, {"labels": labels}, masked_mean(tokens)
        valid, teacher = batch["valid"], batch["teacher_video"]
        if model.teacher is not None:
            vectors = model.teacher(vectors.astype(jnp.float32))
            how = {"valid": valid, "distance": options.distance}
            terms["embedding"] = embedding_distance(vectors, teacher=teacher, **how)
            total = total + jnp.float32(options.embedding) * terms["embedding"]
        if options.similarity:
            unit, factor = unit_rows(vectors.astype(jnp.float32)), jnp.float32(1 / options.temperature)
            taken = valid[:, None] & valid[None] & ~jnp.eye(valid.shape[0], dtype=bool)
            wanted = factor * similarities(teacher, y=teacher)
            terms["similarity"] = similarity_divergence(
                factor * similarities(unit, y=unit), teacher=wanted, taken=taken
            )
            total = total + jnp.float32(options.similarity) * terms["similarity"]
        return total, metrics | terms


class Distil(Classify):
    """The task `distil`; see `task.Task`. Its model is one of `classify`."""

    options_class = DistilOptions
    objective_class = DistilObjective
    options: DistilOptions

    def __init__(self, context: TaskContext):
        """Choose classes and clips and read the teacher."""
        super().__init__(context)
        given = {"input": context.data.input, "tokenizer": context.tokenizer, **_NAMED}
        self._teacher = Teacher(self.options.teacher, sides=("video",), **given)
        context.say(f"the teacher {self.options.teacher} has {self._teacher.spec.embed_dim} numbers for a clip")

    def more_of_head(self) -> dict[str, Any]:
        """Return the map to the teacher's space, where embeddings are compared."""
        found = locate_teacher(self.options.teacher, sides=("video",), **_NAMED)
        return {"teacher": {"width": found.spec.embed_dim}} if self.options.embedding else {}

    def settled(self) -> dict[str, Any]:
        """Return `config.task` with the classes that the data gave and the digest of the teacher."""
        return super().settled() | {"teacher_sha256": self._teacher.sha256}

    def batches(self, start_step: int) -> Iterator[Batch]:
        """Return this process's rows of the train batches, with the teacher's embeddings `teacher_video [b,F]`."""
        taught = Taught(super().batches(start_step), teacher=self._teacher)
        return ({key: x for key, x in batch.items() if key != SCALE} for batch in taught)


def make(context: TaskContext) -> Distil:
    """Build the task."""
    return Distil(context)
