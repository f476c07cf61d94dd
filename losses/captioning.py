"""The captioning loss: cross-entropy of each token given those before it (Vinyals et al. 2015; Yu et al. 2022)."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .vocabulary import token_losses


def next_token_loss(
    states: Float[Array, "B L D"],
    *,
    logits: Callable[[Float[Array, "B l D"]], Float[Array, "B l V"]],
    text: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    **options: Any,
) -> tuple[Float[Array, "B"], Int[Array, "B"]]:
    """Compute the negative log-likelihood of each text, token after token.

    Args:
      states: of the token after each place.
      logits: states -> logits of the token after each place.
      text: the same tokens; the first of each row is given, the others are predicted.
      mask: True where a token is to be predicted; its first column is ignored.
      **options: `smoothing`, `most` and `axes` of `vocabulary.token_losses`.

    Returns:
      The sum of each row over its tokens, nats, and their number.
    """
    losses, _ = token_losses(states[:, :-1], logits=logits, wanted=text[:, 1:], **options)
    real = mask[:, 1:]
    return jnp.where(real, losses, jnp.float32(0)).sum(axis=1), real.sum(axis=1, dtype=jnp.int32)
