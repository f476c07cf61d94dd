"""Pseudo-labels: what a model is sure of in one view of a clip is the label of another view."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def pseudo_label_loss(
    strong: Float[Array, "B classes"],
    *,
    weak: Float[Array, "B classes"],
    taken: Bool[Array, "B"],
    threshold: float,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Compute the cross-entropy of the strong view with the best class of the weak one, where that is probable.

    FixMatch (Sohn et al. 2020, arXiv:2001.07685, equation 4): no gradient flows through the weak view, and the mean is
    over all rows that take part, also those below the threshold.

    Args:
      strong: scores of the view that learns.
      weak: scores of the view that labels.
      taken: rows that take part.
      threshold: probability from which a pseudo-label counts.

    Returns:
      The loss in nats, and `pseudo_share`, the share of the rows whose pseudo-label counts, 0..1.
    """
    probability = jax.nn.softmax(jax.lax.stop_gradient(weak).astype(jnp.float32), axis=1)
    sure = taken & (jnp.max(probability, axis=1) >= jnp.float32(threshold))
    log_p = jax.nn.log_softmax(strong.astype(jnp.float32), axis=1)
    own = jnp.take_along_axis(log_p, jnp.argmax(probability, axis=1)[:, None], axis=1)[:, 0]
    count = jnp.maximum(jnp.sum(taken, dtype=jnp.float32), jnp.float32(1))
    return -jnp.sum(jnp.where(sure, own, 0)) / count, {"pseudo_share": jnp.sum(sure, dtype=jnp.float32) / count}
