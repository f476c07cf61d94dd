"""Softmax over sampled items: which one comes next, among those of the batch and further ones drawn at random."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .classification import softmax_cross_entropy


def sampled_softmax(
    queries: Float[Array, "N E"],
    *,
    candidates: Float[Array, "M E"],
    item: Int[Array, "N"],
    candidate_item: Int[Array, "M"],
    valid: Bool[Array, "N"],
    scale: Float[Array, ""],
    log_frequency: Float[Array, "M"] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Compute the cross-entropy of each query's next item among N items of the batch and M - N drawn ones, in nats.

    InfoNCE (van den Oord et al. 2018, arXiv:1807.03748) with the items of the batch as negatives, in which each item
    counts once: others that are a query's own item are left out. With `log_frequency` it estimates the softmax over all
    items (sampled softmax, Bengio & Senécal 2008; of the batch's items, Yi et al. 2019): popular ones stand in more
    batches, and their scores are lowered by as much.

    Args:
      queries: rows of unit length, such as embedded histories.
      candidates: rows of unit length; the first N are the queries' own items, in their order.
      item: numbers of the queries' items.
      candidate_item: numbers of the candidates; a negative one is no item.
      valid: queries that take part; items of others are no candidates.
      scale: factor on the cosines.
      log_frequency: of each candidate, the logarithm of how often it is expected among the candidates; None = not used.

    Returns:
      The float32 mean over the queries that take part, and the metric `accuracy`; both 0 if none does.
    """
    count = queries.shape[0]
    logits = scale * jnp.einsum("ne,me->nm", queries, candidates, precision=jax.lax.Precision.HIGHEST)
    if log_frequency is not None:
        logits = logits - log_frequency[None]
    own = jnp.arange(candidates.shape[0])[None] == jnp.arange(count)[:, None]
    real = jnp.concatenate([valid, jnp.ones(candidates.shape[0] - count, bool)]) & (candidate_item >= 0)
    used = own | (real[None] & (candidate_item[None] != item[:, None]))
    logits = jnp.where(used, logits, jnp.float32(-1e9))
    label = jnp.where(valid, jnp.arange(count, dtype=jnp.int32), -1)
    return softmax_cross_entropy(logits=logits, label=label, valid=valid)
