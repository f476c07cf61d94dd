"""Cross-entropy over a vocabulary, some places of the texts at a time: the logits of all are never in memory."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

MOST_LOGITS = 2**24
"""Logits that one device holds at a time, 64 MiB in float32; the backward pass has a few arrays of that size."""


def token_losses(
    states: Float[Array, "B L D"],
    *,
    logits: Callable[[Float[Array, "B l D"]], Float[Array, "B l V"]],
    wanted: Int[Array, "B L"],
    smoothing: float = 0.0,
    most: int = MOST_LOGITS,
    axes: Sequence[str] = (),
) -> tuple[Float[Array, "B L"], Bool[Array, "B L"]]:
    """Compute the negative log-likelihood of each token, nats, and whether it has the highest logit.

    Places of the texts are taken in turns, all rows together, so rows stay on their devices. The backward pass computes
    the logits of each turn again. Losses and gradients are those of all places at once.

    Args:
      states: what `logits` takes.
      logits: states of some places -> logits over the vocabulary.
      wanted: ids of the tokens.
      smoothing: share of the target that is spread evenly over all V tokens (Szegedy et al. 2016), 0 <= smoothing < 1.
      most: logits that a device may hold at a time; one place of all rows is the least.
      axes: names of the mesh axes over which the rows are split (mesh of the context).
    """
    rows, length = wanted.shape
    vocabulary = jax.eval_shape(logits, states[:, :1]).shape[-1]
    sizes = jax.sharding.get_abstract_mesh().shape
    devices = math.prod(sizes.get(axis, 1) for axis in axes)
    size = min(length, max(1, most * devices // (rows * vocabulary)))
    turns = -(-length // size)
    size = -(-length // turns)

    def turn(at: tuple[Array, Array]) -> tuple[Array, Array]:
        states, wanted = at
        scores = logits(states).astype(jnp.float32)
        logp = jax.nn.log_softmax(scores, axis=-1)
        found = jnp.take_along_axis(logp, wanted[..., None], axis=-1)[..., 0]
        if smoothing:
            found = jnp.float32(1 - smoothing) * found + jnp.float32(smoothing) * logp.mean(axis=-1)
        return -found, jnp.argmax(scores, axis=-1) == wanted

    if turns == 1:
        return turn((states, wanted))
    filled = [_in_turns(x, turns=turns, size=size) for x in (states, wanted)]
    losses, right = jax.lax.map(jax.checkpoint(turn, prevent_cse=False), tuple(filled))
    losses, right = (jnp.moveaxis(x, 0, 1).reshape(rows, turns * size)[:, :length] for x in (losses, right))
    return losses, right


def _in_turns(x: Array, *, turns: int, size: int) -> Array:
    """Divide the places of rows [B,L,...] into turns [n,B,l,...]; the last one is filled up with zeros."""
    x = jnp.pad(x, ((0, 0), (0, turns * size - x.shape[1]), *((0, 0),) * (x.ndim - 2)))
    return jnp.moveaxis(x.reshape(x.shape[0], turns, size, *x.shape[2:]), 1, 0)
