"""The captioning loss: cross-entropy of each token given those before it (Vinyals et al. 2015; Yu et al. 2022)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def next_token_loss(
    logits: Float[Array, "B L V"], *, text: Int[Array, "B L"], mask: Bool[Array, "B L"], smoothing: float = 0.0
) -> tuple[Float[Array, "B"], Int[Array, "B"]]:
    """Compute the negative log-likelihood of each text, token after token.

    Args:
      logits: of the token after each place, float32.
      text: the same tokens; the first of each row is given, the others are predicted.
      mask: True where a token is to be predicted; its first column is ignored.
      smoothing: share of the target that is spread evenly over all V tokens (Szegedy et al. 2016), 0 <= smoothing < 1.

    Returns:
      The sum of each row over its tokens, nats, and their number.
    """
    logp = jax.nn.log_softmax(logits[:, :-1].astype(jnp.float32), axis=-1)
    wanted = jnp.take_along_axis(logp, text[:, 1:, None], axis=-1)[..., 0]  # [B,L-1]
    if smoothing:
        wanted = jnp.float32(1 - smoothing) * wanted + jnp.float32(smoothing) * logp.mean(axis=-1)
    real = mask[:, 1:]
    return -jnp.where(real, wanted, jnp.float32(0)).sum(axis=1), real.sum(axis=1, dtype=jnp.int32)
