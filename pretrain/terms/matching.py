"""Video-text matching: does this text belong to this clip? Negatives are drawn among those that the model confuses."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ...base.errors import UserError
from ...losses.matching import binary_matching, draw_negatives
from ...losses.tiles import all_pairs
from ...models.heads.matching import CrossEncoder
from ...models.layers.draws import fold, fold_each
from ...models.shapes import Scalar
from .interface import Seen, TermOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchingOptions(TermOptions):
    """`config.loss.terms.matching`.

    Attributes:
      hardness: factor on the logits of the contrastive loss by whose softmax negatives are drawn: 1 as in ALBEF, 0
        draws them evenly.
    """

    hardness: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.hardness < float("inf"):
            raise UserError(f"config.loss.terms.matching.hardness must be at least 0, got {self.hardness}")


def matching(seen: Seen, options: MatchingOptions) -> tuple[Scalar, dict[str, Scalar]]:
    """Tell the pair of each row from its text with another clip, and from its clip with another text.

    Li et al. 2021 (ALBEF, section 3.2), Li et al. 2022 (BLIP): one negative clip for each text and one negative text
    for each clip, drawn by the softmax of the contrastive logits [B,B]. Rows that say the same are never negatives of
    each other. Without keys the hardest negatives are taken.
    """
    assert seen.model.heads is not None
    similarity = jax.lax.stop_gradient(jnp.matmul(seen.texts.embedding, seen.videos.T, precision="highest"))
    logits = jax.lax.stop_gradient(seen.scale) * jnp.float32(options.hardness) * similarity  # [B texts, B clips]
    taken, positive = all_pairs(valid=seen.valid, group=seen.group, same=seen.loss.same_text)
    allowed = taken & ~positive
    clip, has_clip = draw_negatives(logits, allowed=allowed, keys=fold(seen.keys, 0))
    text, has_text = draw_negatives(logits.T, allowed=allowed.T, keys=fold(seen.keys, 1))
    own = jnp.arange(len(clip))
    texts = jax.tree.map(lambda x: _three(x, own, text), seen.texts)
    clips = jax.tree.map(lambda x: _three(x, clip, own), seen.clips)
    head = seen.model.heads["matching"]
    assert isinstance(head, CrossEncoder)
    scores = head(texts, clips=clips, keys=fold_each(fold(seen.keys, 2), 3))
    right = jnp.tile(jnp.array([True, False, False]), len(own))
    there = jnp.stack([seen.valid, seen.valid & has_clip, seen.valid & has_text], axis=1).reshape(-1)
    loss, accuracy = binary_matching(scores, right=right, valid=there)
    return loss, {"": accuracy}


def _three(x: Array, second: Array, third: Array) -> Array:
    """Return for each row itself and two others, one after another: rows stay on their devices."""
    made = jnp.stack([x, jnp.take(x, second, axis=0), jnp.take(x, third, axis=0)], axis=1)
    return made.reshape(-1, *x.shape[1:])
