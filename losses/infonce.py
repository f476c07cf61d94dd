"""InfoNCE, the temperature-scaled contrastive loss of CLIP."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def info_nce(
    *,
    video: Float[Array, "B E"],
    text: Float[Array, "B E"],
    scale: Float[Array, ""],
    valid: Bool[Array, "B"] | None = None,
    not_negative: Bool[Array, "B B"] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Compute the symmetric InfoNCE loss over all pairs of a global batch (van den Oord et al. 2018; CLIP, figure 3).

    Args:
      video: float32, rows of unit length; row i belongs to row i of `text`.
      text: float32, rows of unit length.
      scale: the factor on cosines (inverse temperature), > 0.
      valid: rows that take part; others are neither anchor nor negative. None = all.
      not_negative: `[i, j]` True where video i and text j (i != j) are known not to be a negative pair, for example
        because two clips share one caption; such pairs leave the denominators. The diagonal is ignored.

    Returns:
      The loss in nats (mean over valid rows of both directions) and the metrics `accuracy_t2v` and `accuracy_v2t`
      (share of rows whose own partner scores highest in the batch, 0..1). All NaN-free; 0 if no row is valid.
    """
    size = video.shape[0]
    valid = jnp.ones((size,), bool) if valid is None else valid
    logits = scale * jnp.matmul(video, text.T, precision=jax.lax.Precision.HIGHEST)  # [B,B] rows: video, columns: text
    own = jnp.eye(size, dtype=bool)
    taken = valid[:, None] & valid[None, :]
    if not_negative is not None:
        taken &= ~not_negative
    # A finite floor, not -inf: an invalid row keeps a finite log-sum-exp, so that its gradient is 0 and not NaN.
    logits = jnp.where(taken | own, logits, jnp.asarray(-1e9, logits.dtype))
    positive = jnp.diagonal(logits)
    per_row = 0.5 * (jax.nn.logsumexp(logits, axis=1) + jax.nn.logsumexp(logits, axis=0)) - positive
    weight = valid.astype(jnp.float32) / jnp.maximum(jnp.sum(valid, dtype=jnp.float32), 1.0)
    metrics = {
        "accuracy_v2t": jnp.sum(jnp.where(jnp.max(logits, axis=1) <= positive, weight, 0.0)),
        "accuracy_t2v": jnp.sum(jnp.where(jnp.max(logits, axis=0) <= positive, weight, 0.0)),
    }
    return jnp.sum(weight * per_row), metrics


def same_text(text: Array, *, mask: Array) -> Bool[Array, "B B"]:
    """Mark pairs of rows whose token ids `[B,L]` are equal where `mask [B,L]` is True: captions that say the same."""
    tokens = jnp.where(mask, text, -1)
    return jnp.all(tokens[:, None, :] == tokens[None, :, :], axis=-1)
