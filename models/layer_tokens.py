"""Tokens of the patches behind several blocks of a video tower, and how much they are attended to."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..base.errors import UserError
from .layers.capture import Capture, capturing
from .layers.draws import RowKeys


class LayerTokens(NamedTuple):
    """Patches of clips.

    Attributes:
      tokens: `[B,T,N,k,D]`, behind each of the last k blocks of the tower's stack over patches.
      attention: float32 `[B,T,N]`, the last block's weights of each patch, mean over the heads: those of the class
        token or, in a stack without leading tokens, the mean over all queries.
    """

    tokens: Float[Array, "B T N k D"]
    attention: Float[Array, "B T N"]


def layer_tokens(encode: Callable[[], Any], *, rows: int, times: int, places: int, layers: int) -> LayerTokens:
    """Run a tower and return the tokens behind its last blocks; to be traced.

    Args:
      encode: runs the tower on clips, `visible_patches` of it.
      rows: B.
      times: T time steps of a clip.
      places: N patches of a time step that the tower sees.
      layers: k.

    Raises:
      UserError: the stack has fewer blocks.
    """
    with capturing(Capture("video")) as capture:
        encode()
    if len(capture.layers) < layers:
        raise UserError(
            f"config.model.heads.distillation.layers={layers}, but the tower has {len(capture.layers)} blocks over "
            "patches; set it to that or less"
        )
    x = jnp.stack(capture.layers[-layers:], axis=2)  # [B*T,L,k,D], or [B,L,k,D] of a stack over whole clips
    leading = x.shape[1] - rows * times * places // x.shape[0]
    weights = capture.attention[-1].mean(axis=1)
    seen = weights[:, 0, leading:] if leading else weights.mean(axis=1)
    shape = (rows, times, places)
    return LayerTokens(x[:, leading:].reshape(*shape, layers, -1), seen.reshape(shape))


def kept_places(places: int, *, ratio: float) -> int:
    """Return how many of the places of a frame are seen where the share `ratio` is hidden; at least 1."""
    return max(1, round(places * (1 - ratio)))


def attended_places(attention: Float[Array, "B N"], *, count: int, keys: RowKeys) -> Int[Array, "B n"]:
    """Draw places without repetition, each in proportion to its attention, ascending (UMT, Li et al. 2023).

    The largest of `log attention + Gumbel noise` are such a sample (Efraimidis and Spirakis 2006).

    Args:
      attention: at least 0.
      count: n.
      keys: one for each row.
    """
    noise = jax.vmap(lambda key: jax.random.gumbel(key, attention.shape[1:], jnp.float32))(keys)
    _, found = jax.lax.top_k(jnp.log(attention + jnp.float32(1e-20)) + noise, count)
    return jnp.sort(found, axis=1).astype(jnp.int32)
