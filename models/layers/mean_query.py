"""Pooling by an attention whose query is the mean of the tokens (InternVideo2, Wang et al. 2024)."""

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float

from ...base.errors import UserError
from .attend import attend
from .dense import linear
from .norm import LayerNorm
from .pooling import masked_mean


class MeanQueryPool(nnx.Module):
    """The mean of all tokens attends to them; queries, keys and values have a LayerNorm each.

    It is the `clip_projector` of InternVideo2 (Wang et al. 2024, arXiv:2403.15377).
    """

    def __init__(self, *, width: int, heads: int, out_width: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Build the layer.

        Args:
          width: D of the tokens.
          heads: attention heads K, a divisor of D.
          out_width: width of the pooled vector.
          dtype: compute dtype.
          rngs: source of the initial values.

        Raises:
          UserError: `heads` does not divide D.
        """
        if width % heads:
            raise UserError(f"width={width} must divide by config.model.video.pool_heads={heads}")
        self.heads, self.dtype = heads, dtype
        given = {"dtype": dtype, "rngs": rngs}
        self.norm_query, self.norm_key, self.norm_value = (LayerNorm(width, **given) for _ in range(3))
        self.query, self.key, self.value = (linear(width, width, **given) for _ in range(3))
        self.out = linear(width, out_width, **given)

    def __call__(self, x: Float[Array, "B L D"], *, mask: Bool[Array, "B L"] | None = None) -> Float[Array, "B W"]:
        """Pool tokens; those where `mask` is False have no part."""
        mean = masked_mean(x, mask=mask)[:, None].astype(self.dtype)  # [B,1,D]
        x = x.astype(self.dtype)
        q = self._split(self.query(self.norm_query(mean)))
        k, v = self._split(self.key(self.norm_key(x))), self._split(self.value(self.norm_value(x)))
        return self.out(
            rearrange(attend(q, k, v, seen=None if mask is None else mask[:, None, None]), "b k 1 d -> b (k d)")
        )

    def _split(self, x: Float[Array, "B L D"]) -> Float[Array, "B K L d"]:
        return rearrange(x, "b l (k d) -> b k l d", k=self.heads)
