"""Binary matching of pairs, and hard negatives drawn for it (ALBEF, Li et al. 2021)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from .ties import FLOOR


def draw_negatives(
    logits: Float[Array, "B B"], *, allowed: Bool[Array, "B B"], keys: Key[Array, "B"] | None
) -> tuple[Int[Array, "B"], Bool[Array, "B"]]:
    """Draw a wrong candidate for each row, by the softmax of its logits (ALBEF, section 3.2).

    Args:
      logits: of each row with each candidate; no gradient flows through the draw.
      allowed: the candidates that are wrong for a row.
      keys: one for each row; None = take the candidate with the highest logit, of equal ones the first.

    Returns:
      The drawn candidates, and which rows have a wrong one at all; the others draw candidate 0.
    """
    scores = jnp.where(allowed, jax.lax.stop_gradient(logits), FLOOR)
    if keys is not None:  # the largest of logits with Gumbel noise is a draw from their softmax
        noise = jax.vmap(lambda key: jax.random.gumbel(key, (logits.shape[1],), jnp.float32))(keys)
        scores = jnp.where(allowed, scores + noise, FLOOR)
    some = jnp.any(allowed, axis=1)
    return jnp.where(some, jnp.argmax(scores, axis=1), 0), some


def binary_matching(
    logits: Float[Array, "P"], *, right: Bool[Array, "P"], valid: Bool[Array, "P"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Compute the binary cross-entropy of log-odds that pairs match.

    Args:
      logits: log-odds, any range.
      right: pairs that match.
      valid: pairs that take part.

    Returns:
      The loss in nats (float32 mean over the valid pairs), and the share of them on the right side of 0 (0..1; a
      logit of 0 counts half). Both are 0 if no pair is valid.
    """
    logits = jnp.where(valid, logits.astype(jnp.float32), 0.0)  # not even a NaN of other pairs spreads
    signed = jnp.where(right, logits, -logits)
    weight = valid.astype(jnp.float32) / jnp.maximum(jnp.sum(valid, dtype=jnp.float32), 1.0)
    hit = jax.lax.stop_gradient(0.5 * (jnp.sign(signed) + 1.0))
    return jnp.sum(weight * jax.nn.softplus(-signed)), jnp.sum(weight * hit)
