"""Softmax cross-entropy over classes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .ties import share_won, top_of


def softmax_cross_entropy(
    *,
    logits: Float[Array, "B classes"],
    label: Int[Array, "B"],
    valid: Bool[Array, "B"] | None = None,
    label_smoothing: float = 0.0,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Compute the cross-entropy of class scores with smoothed labels (Szegedy et al. 2016, section 7).

    Args:
      logits: scores, any range.
      label: the index of each row's class; rows with a negative one are left out as if not valid.
      valid: rows that take part. None = all.
      label_smoothing: share of the target that is spread evenly over all classes, 0..1.

    Returns:
      The loss in nats (float32 mean over the rows that take part) and the metric `accuracy` (share of them whose own
      class scores highest, 0..1; of several that tie for it, in expectation over their order: see `ties`). Both are 0
      if no row takes part.
    """
    taken = label >= 0 if valid is None else valid & (label >= 0)
    own = jnp.where(taken, label, 0)
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=1)  # [B,classes]
    right = jnp.take_along_axis(log_p, own[:, None], axis=1)[:, 0]  # [B]
    per_row = -(1.0 - label_smoothing) * right - label_smoothing * jnp.mean(log_p, axis=1)
    weight = taken.astype(jnp.float32) / jnp.maximum(jnp.sum(taken, dtype=jnp.float32), 1.0)
    scores = jax.lax.stop_gradient(logits.astype(jnp.float32))
    is_own = jnp.arange(logits.shape[1], dtype=own.dtype)[None, :] == own[:, None]
    hit = share_won(top_of(scores, mask=is_own, axis=1), among=top_of(scores, mask=None, axis=1))
    return jnp.sum(weight * per_row), {"accuracy": jnp.sum(weight * hit)}
