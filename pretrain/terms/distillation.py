"""Distillation: embeddings, and the similarities of a batch, become like those of a teacher that does not change."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ...base.errors import UserError, unknown
from ...encode.embed.teacher import SCALE
from ...losses.distillation import DISTANCES, embedding_distance, similarities, similarity_divergence
from ...models.heads.distillation import TeacherProjection
from ...models.shapes import Scalar
from ...zoo.spec import ModelSpec
from .aligned_tokens import aligned_tokens
from .interface import Seen, TermOptions

NAME = "distillation"
"""Of the term, of its head, and of its section."""
SIDES = ("video", "text")
FIELD = f"config.loss.terms.{NAME}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillationOptions(TermOptions):
    """`config.loss.terms.distillation`.

    Attributes:
      source: the teacher: a run, a checkpoint, a bundle or public weights, as `config.model.source` names them.
      sides: which of its towers teach: "video", "text" or both. The text tower must have the tokenizer of the run.
      embedding: factor on the distance of each embedding to the teacher's.
      similarity: factor on the divergence of the similarities of the batch: of texts and clips where both towers teach,
        in both directions; otherwise among the clips, or among the texts.
      distance: "cosine" or "mse", see `losses.distillation`.
      temperature: divides the cosines before the softmax, of both models; None = each has its own.
      tokens: factor on the squared distance of the tokens of visible patches to those of an image teacher, both of unit
        length (UMT); needs the head of the kind "tokens".
      token_ratio: share of the places of a frame that are hidden from the tower then; the teacher draws the others by
        its attention.
    """

    source: str = ""
    sides: tuple[str, ...] = SIDES
    embedding: float = 1.0
    similarity: float = 1.0
    distance: str = "cosine"
    temperature: float | None = None
    tokens: float = 0.0
    token_ratio: float = 0.8

    def __post_init__(self):
        super().__post_init__()
        if not self.source:
            raise UserError(f"{FIELD}.source must name a teacher: a run, a bundle or public weights")
        for side in self.sides:
            if side not in SIDES:
                raise unknown(f"side in {FIELD}.sides", side, SIDES)
        if not self.sides or len(set(self.sides)) < len(self.sides):
            raise UserError(f"{FIELD}.sides={self.sides} must name video, text, or both, each once")
        if self.distance not in DISTANCES:
            raise unknown(f"{FIELD}.distance", self.distance, DISTANCES)
        factors = (self.embedding, self.similarity, self.tokens)
        if not all(0 <= factor < float("inf") for factor in factors) or not any(factors):
            raise UserError(f"{FIELD}: embedding, similarity, tokens must be at least 0, and one above, got {factors}")
        if self.tokens and "video" not in self.sides:
            raise UserError(f"{FIELD}.tokens compares tokens of clips; add 'video' to {FIELD}.sides={self.sides}")
        if not 0 <= self.token_ratio < 1:
            raise UserError(f"{FIELD}.token_ratio must be at least 0 and below 1, got {self.token_ratio}")
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            raise UserError(f"{FIELD}.temperature must be above 0, or None, got {self.temperature}")


def check_distillation(options: DistillationOptions, spec: ModelSpec) -> None:
    """Raise UserError for a head that would not learn, or for a model that does not take the frames of the teacher."""
    kind = spec.joint_heads.get(NAME, {}).get("kind")
    if bool(options.tokens) != (kind == "tokens"):
        raise UserError(
            f"{FIELD}.tokens={options.tokens} and the head go together: set tokens above 0 and config.model.heads="
            f"{{{NAME!r}: {{'kind': 'tokens', 'width': F}}}}, F of the teacher's tokens, or leave both out"
        )
    if kind == "linear" and not options.embedding:
        raise UserError(
            f"config.model.heads.{NAME} maps embeddings to the teacher's space, and {FIELD}.embedding=0 does not "
            "compare them; leave the head out, or set embedding above 0"
        )
    if "video" in options.sides and "video" in spec.features:
        raise UserError(
            f"{FIELD}: a teacher of clips needs frames, but config.model.video.features="
            f"{spec.features['video']!r} takes vectors that were computed before; set sides=('text',), or leave the "
            "features out"
        )


def check_width(width: int, *, spec: ModelSpec) -> None:
    """Raise UserError unless embeddings of the model get the teacher's width, by themselves or by the head."""
    head = spec.joint_heads.get(NAME)
    head = None if head is not None and head.get("kind") == "tokens" else head
    if head is None and spec.embed_dim != width:
        raise UserError(
            f"the teacher's embeddings have {width} numbers, those of this model config.model.embed_dim="
            f"{spec.embed_dim}; add config.model.heads={{{NAME!r}: {{'kind': 'linear', 'width': {width}}}}}, or set "
            f"{FIELD}.embedding=0"
        )
    if head is not None and head.get("width") != width:
        raise UserError(
            f"config.model.heads.{NAME}.width={head.get('width')}, but the teacher's embeddings have {width} numbers; "
            "set it to that"
        )


def distillation(seen: Seen, options: DistillationOptions) -> tuple[Scalar, dict[str, Scalar]]:
    """Return the distances of embeddings plus the divergences of similarities, weighted by the options.

    Yang et al. 2024 (CLIP-KD, arXiv:2307.12732): feature and contrastive relational distillation; Wu et al. 2023
    (TinyCLIP): affinity mimicking. The teacher's embeddings come with the batch (`pretrain.teacher`).
    """
    student = {"video": seen.videos, "text": seen.texts.embedding}
    total = jnp.zeros((), jnp.float32)
    if options.tokens:
        total = total + jnp.float32(options.tokens) * aligned_tokens(seen)
    if not (options.embedding or options.similarity):
        return total, {}
    missing = [side for side in options.sides if f"teacher_{side}" not in seen.batch]
    if missing:
        raise UserError(
            f"{FIELD} needs the teacher's embeddings of {' and '.join(missing)} in the batches, which `twinreel "
            f"pretrain` adds; these have {', '.join(sorted(seen.batch))}"
        )
    teacher = {side: seen.batch[f"teacher_{side}"] for side in options.sides}
    if options.embedding:
        head = None if seen.model.heads is None else seen.model.heads.get(NAME)
        share = jnp.float32(options.embedding / len(options.sides))
        for side in options.sides:
            made = student[side]
            if isinstance(head, TeacherProjection):
                made = head(made)
            how = {"valid": seen.valid, "distance": options.distance}
            total = total + share * embedding_distance(made, teacher=teacher[side], **how)
    if options.similarity:
        total = total + jnp.float32(options.similarity) * _similarity(seen, options, student=student, teacher=teacher)
    return total, {}


def _similarity(
    seen: Seen, options: DistillationOptions, *, student: dict[str, Array], teacher: dict[str, Array]
) -> Scalar:
    if options.temperature is None:
        of_student, of_teacher = seen.scale, jax.lax.stop_gradient(jnp.max(seen.batch[SCALE]))
    else:
        of_student = of_teacher = jnp.float32(1 / options.temperature)
    first, last = options.sides[0], options.sides[-1]
    mine = of_student * similarities(student[first], y=student[last])
    wanted = of_teacher * similarities(teacher[first], y=teacher[last])
    taken = seen.valid[:, None] & seen.valid[None, :]
    if first == last:  # a row is like itself whatever the model is
        return similarity_divergence(mine, teacher=wanted, taken=taken & ~jnp.eye(len(seen.valid), dtype=bool))
    ways = ((mine, wanted), (mine.T, wanted.T))
    return sum(similarity_divergence(x, teacher=y, taken=taken) for x, y in ways) / jnp.float32(2)
