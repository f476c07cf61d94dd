"""Losses of scores along time: how much each step is a highlight."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

NEAR = 0.1
"""Steps whose targets differ by no more than this are not ranked."""


def saliency_loss(
    logits: Float[Array, "B T"],
    *,
    target: Float[Array, "B T"],
    valid: Bool[Array, "B"],
    margin: float = 1.0,
) -> dict[str, Float[Array, ""]]:
    """Return the terms `cross_entropy` and `ranking`, each a mean over the rows that take part, 0 if there are none.

    The cross-entropy is that of each step with its target, in nats. The ranking term is the hinge loss max(0, margin -
    (s_i - s_j)) over the pairs of a row's steps with target_i > target_j, as of the saliency of moment_detr (Lei et al.
    2021, equation 4), which draws one pair.

    Args:
      logits: scores s.
      target: 0..1.
      valid: rows that take part.
      margin: of the scores of two steps.
    """
    logits, target = logits.astype(jnp.float32), target.astype(jnp.float32)
    cross = jnp.mean(jax.nn.softplus(logits) - logits * target, axis=1)
    pairs = target[:, :, None] > target[:, None, :] + NEAR  # [B,T,T]
    hinge = jax.nn.relu(jnp.float32(margin) - (logits[:, :, None] - logits[:, None, :]))
    count = jnp.maximum(jnp.sum(pairs, axis=(1, 2), dtype=jnp.float32), jnp.float32(1))
    ranking = jnp.sum(jnp.where(pairs, hinge, 0), axis=(1, 2)) / count
    share = valid.astype(jnp.float32) / jnp.maximum(jnp.sum(valid, dtype=jnp.float32), jnp.float32(1))
    return {"cross_entropy": jnp.sum(share * cross), "ranking": jnp.sum(share * ranking)}
