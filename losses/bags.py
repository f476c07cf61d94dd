"""Multiple-instance losses: which bags are abnormal is known, which of their time steps is not."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

KINDS = ("magnitude", "ranking")
"""What is ranked: the magnitude of features (RTFM), or the scores themselves (Sultani et al.)."""
_EPS = 1e-6


def bag_loss(
    logits: Float[Array, "B N"],
    *,
    magnitudes: Float[Array, "B N"],
    abnormal: Bool[Array, "B"],
    valid: Bool[Array, "B"],
    kind: str = "magnitude",
    top_k: int = 3,
    margin: float = 1.0,
) -> dict[str, Float[Array, ""]]:
    """Return the terms of a batch of bags; each is 0 where the batch lacks the bags that it needs.

    `ranking` is the mean over all pairs of an abnormal and a normal bag of max(0, margin - (g_abnormal - g_normal)).
    "ranking": g is the mean of the `top_k` highest scores of the bag; with top_k=1 and margin=1 it is the loss of
    Sultani et al. (2018, arXiv:1801.04264, equation 6). "magnitude": g is the mean of the `top_k` largest magnitudes
    (RTFM, Tian et al. 2021, arXiv:2101.10030, equation 3).

    Args:
      logits: of the time steps.
      magnitudes: of their features; not used by "ranking".
      abnormal: whether something abnormal happens in the bag.
      valid: bags that take part.
      kind: one of `KINDS`.
      top_k: steps that speak for a bag.
      margin: of the ranking.

    Returns:
      `ranking`; `cross_entropy` in nats, of the mean score of the steps that speak for a bag, a mean over the kinds of
      bags; and of the abnormal bags, as in Sultani's equation 7, `smoothness` (the sum over steps of the squared
      difference of neighbouring scores) and `sparsity` (the sum of the scores), means over bags.
    """
    logits, magnitudes = logits.astype(jnp.float32), magnitudes.astype(jnp.float32)
    scores = jax.nn.sigmoid(logits)
    ordered = scores if kind == "ranking" else magnitudes
    best, place = jax.lax.top_k(ordered, top_k)  # [B,k]
    value = jnp.mean(best, axis=1)
    of_best = jnp.mean(jnp.take_along_axis(scores, place, axis=1), axis=1)
    bad, good = (valid & abnormal).astype(jnp.float32), (valid & ~abnormal).astype(jnp.float32)
    pairs = bad[:, None] * good[None, :]
    hinge = jax.nn.relu(jnp.float32(margin) - (value[:, None] - value[None, :]))
    inside = jnp.clip(of_best, _EPS, 1 - _EPS)
    entropy = (_mean(-jnp.log(inside), weight=bad) + _mean(-jnp.log1p(-inside), weight=good)) / 2
    return {
        "ranking": jnp.sum(pairs * hinge) / jnp.maximum(jnp.sum(pairs), jnp.float32(1)),
        "cross_entropy": entropy,
        "smoothness": _mean(jnp.sum(jnp.square(jnp.diff(scores, axis=1)), axis=1), weight=bad),
        "sparsity": _mean(jnp.sum(scores, axis=1), weight=bad),
    }


def _mean(values: Float[Array, "B"], *, weight: Float[Array, "B"]) -> Float[Array, ""]:
    return jnp.sum(values * weight) / jnp.maximum(jnp.sum(weight), jnp.float32(1))
