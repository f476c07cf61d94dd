"""In-batch accuracies, with ties resolved in expectation.

Where several candidates share the highest score, an anchor counts by the chance that a positive comes first in a
uniformly random order of them. So collapsed embeddings have the accuracy of chance, not 1 (nor 0).

Equal cosines that different kernels compute differ in their last bits. They are compared as multiples of 2^-18 (about
4e-6), which is far above the rounding of float32 and far below any difference that matters.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Below every real score, yet finite: a row that takes no part keeps finite statistics, so its gradient is 0, not NaN.
FLOOR = -1e30
_GRID = 2.0**18

Top = Float[Array, "*B 2"]
"""The highest of some scores, and how many of them share it."""


def rounded(similarity: Float[Array, "*B"], *, scale: Float[Array, ""] | float = 1.0) -> Float[Array, "*B"]:
    """Return cosines in whole units of 2^-18, without gradient.

    Args:
      similarity: `scale` times cosines.
      scale: the factor on the cosines, > 0.
    """
    return jnp.rint(jax.lax.stop_gradient(similarity) * (_GRID / jax.lax.stop_gradient(scale)))


def top_of(scores: Float[Array, "*B"], *, mask: Bool[Array, "*B"] | None, axis: int | tuple[int, ...]) -> Top:
    """Return the `Top` along `axis` among the scores where `mask` is True (None = all)."""
    scores = scores if mask is None else jnp.where(mask, scores, FLOOR)
    best = jnp.max(scores, axis=axis, keepdims=True)
    return jnp.stack([jnp.squeeze(best, axis), jnp.sum(scores == best, axis=axis, dtype=scores.dtype)], axis=-1)


def join_tops(one: Top, other: Top) -> Top:
    """Return the `Top` of two sets of scores from those of each."""
    return reduce_tops(jnp.stack([one, other]))


def reduce_tops(tops: Float[Array, "S *B 2"]) -> Top:
    """Return the `Top` of several sets of scores, which lie along the first axis."""
    best = jnp.max(tops[..., 0], axis=0)
    return jnp.stack([best, jnp.sum(jnp.where(tops[..., 0] == best[None], tops[..., 1], 0.0), axis=0)], axis=-1)


def share_won(positives: Top, *, among: Top) -> Float[Array, "*B"]:
    """Return the chance (0..1) that a positive comes first.

    Args:
      positives: of an anchor's positives.
      among: of all that the anchor is compared with, its positives included.
    """
    first = positives[..., 0] >= among[..., 0]
    return jnp.where(first, positives[..., 1] / jnp.maximum(among[..., 1], 1.0), 0.0)
