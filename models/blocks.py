"""Transformer blocks: one block's code, a stack of blocks as one block with stacked parameters under `lax.scan`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float

from ..configs.errors import UserError, unknown
from .activations import named
from .draws import RowKeys, dropout, fold
from .layers import ACTIVATIONS, LayerNorm, linear
from .remat import check_remat, rematerialised


class Attention(nnx.Module):
    """Multi-head self-attention (Vaswani et al. 2017).

    The columns of `qkv` lie head by head (each head's query, key and value beside each other), so that devices which
    share out the columns hold whole heads (Shoeybi et al. 2019, Megatron-LM, section 3).
    """

    def __init__(self, width: int, *, heads: int, tower: str, dtype: jnp.dtype, rngs: nnx.Rngs):
        if width % heads:
            raise UserError(f"width={width} must divide by heads={heads}; set the tower's width to a multiple of it")
        self.heads, self.tower = heads, tower
        self.qkv = linear(width, 3 * width, dtype=dtype, rngs=rngs)
        self.out = linear(width, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B L D"], *, mask: Bool[Array, "B L"] | None = None) -> Float[Array, "B L D"]:
        """Attend over axis L; keys where `mask` is False are not seen."""
        qkv = named(self.qkv(x), f"activation/{self.tower}/qkv")  # [B,L,3D]
        q, k, v = jnp.split(rearrange(qkv, "b l (k d) -> b k l d", k=self.heads), 3, axis=3)  # [B,K,L,D/K]
        y = attend(q, k, v, mask)
        y = named(rearrange(y, "b k l d -> b l (k d)"), f"activation/{self.tower}/attention")
        return self.out(y)


@jax.custom_vjp
def attend(
    q: Float[Array, "B K L d"], k: Float[Array, "B K L d"], v: Float[Array, "B K L d"], mask: Bool[Array, "B L"] | None
) -> Float[Array, "B K L d"]:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1); scores and softmax in float32.

    Heads come before positions and all operands of products, gradients included, are of the compute dtype: so each
    product is a batch of plain ones. It equals `jax.nn.dot_product_attention`, and on a CPU makes a whole step in
    bfloat16 a tenth faster. Keys where `mask` is False are not seen.
    """
    return _attend(q, k, v, mask)[0]


def _attend(q: Array, k: Array, v: Array, mask: Array | None) -> tuple[Array, tuple[Array, ...]]:
    scores = _products("bkld,bkmd->bklm", q, k) * jnp.float32(q.shape[-1] ** -0.5)
    if mask is not None:
        scores = jnp.where(mask[:, None, None, :], scores, jnp.float32(-1e30))
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
    return _products("bklm,bkmd->bkld", weights, v).astype(q.dtype), (q, k, v, weights)


def _attend_backward(saved: tuple[Array, ...], dy: Array) -> tuple[Array, Array, Array, None]:
    q, k, v, weights = saved
    to_weights, w = _products("bkld,bkmd->bklm", dy, v), weights.astype(jnp.float32)
    to_scores = w * (to_weights - jnp.sum(to_weights * w, axis=-1, keepdims=True))
    to_scores = (to_scores * jnp.float32(q.shape[-1] ** -0.5)).astype(q.dtype)
    to_q, to_k = _products("bklm,bkmd->bkld", to_scores, k), _products("bklm,bkld->bkmd", to_scores, q)
    return to_q.astype(q.dtype), to_k.astype(q.dtype), _products("bklm,bkld->bkmd", weights, dy).astype(q.dtype), None


attend.defvjp(_attend, _attend_backward)


def _products(equation: str, a: Array, b: Array) -> Array:
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


class Block(nnx.Module):
    """A pre-norm transformer block: attention and MLP, each with dropout on its residual branch."""

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        mlp_ratio: float,
        activation: str,
        dropout: float,
        tower: str,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        if activation not in ACTIVATIONS:
            raise unknown("activation", activation, ACTIVATIONS)
        self.activation, self.dropout, self.tower = activation, dropout, tower
        self.norm1 = LayerNorm(width, dtype=dtype, rngs=rngs)
        self.attention = Attention(width, heads=heads, tower=tower, dtype=dtype, rngs=rngs)
        self.norm2 = LayerNorm(width, dtype=dtype, rngs=rngs)
        hidden = int(width * mlp_ratio)
        self.up = linear(width, hidden, dtype=dtype, rngs=rngs)
        self.down = linear(hidden, width, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B L D"],
        *,
        mask: Bool[Array, "B L"] | None = None,
        keys: RowKeys | None = None,
    ) -> Float[Array, "B L D"]:
        """Apply the block; without `keys` dropout is off."""
        x = x + dropout(self.attention(self.norm1(x), mask=mask), rate=self.dropout, keys=fold(keys, 0))
        hidden = named(self.up(self.norm2(x)), f"activation/{self.tower}/hidden")  # [B,L,mlp_ratio*D]
        x = x + dropout(self.down(ACTIVATIONS[self.activation](hidden)), rate=self.dropout, keys=fold(keys, 1))
        return named(x, f"activation/{self.tower}/tokens")


class Blocks(nnx.Module):
    """A stack of `depth` blocks and a final LayerNorm.

    `layers` is one `Block` whose parameters have a leading axis of length `depth`; `lax.scan` runs over it, so that a
    deep tower is traced and compiled as fast as a shallow one. With `depth=0` there are no layers.
    """

    def __init__(
        self,
        width: int,
        *,
        depth: int,
        heads: int,
        mlp_ratio: float,
        activation: str,
        dropout: float,
        tower: str,
        remat: str = "none",
        unroll: int = 1,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        """Build the stack.

        Args:
          width: D.
          depth: how many blocks.
          heads: attention heads K.
          mlp_ratio: hidden width of the MLPs / D.
          activation: a name of `layers.ACTIVATIONS`.
          dropout: rate on the residual branches.
          tower: what the activations are called: `activation/<tower>/qkv` and so on.
          remat: what the backward pass computes again, see `models.remat`.
          unroll: how many layers one turn of the loop holds; 0 = all, no loop. Changes speed, not parameters.
          dtype: compute dtype.
          rngs: where the initial values come from.

        Raises:
          UserError: a policy or activation function that is not known, or a value out of its range.
        """
        check_remat(remat)
        if unroll < 0:
            raise UserError(f"config.model.unroll must be a number of layers, or 0 for all of them, got {unroll}")
        if not 0 <= dropout < 1:
            raise UserError(f"config.model.{tower}.dropout must be at least 0 and below 1, got {dropout}")
        self.depth, self.remat, self.unroll = depth, remat, unroll
        block = {"heads": heads, "mlp_ratio": mlp_ratio, "activation": activation, "dropout": dropout, "tower": tower}
        self.layers = stacked(lambda r: Block(width, **block, dtype=dtype, rngs=r), depth=depth, rngs=rngs)
        self.norm = LayerNorm(width, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B L D"],
        *,
        mask: Bool[Array, "B L"] | None = None,
        keys: RowKeys | None = None,
    ) -> Float[Array, "B L D"]:
        """Apply all blocks and the final norm; without `keys` dropout is off."""
        if self.layers is None:
            return self.norm(x)
        graph, params = nnx.split(self.layers)

        def layer(x: Array, at: tuple[Any, Array]) -> tuple[Array, None]:
            params, number = at
            return nnx.merge(graph, params)(x, mask=mask, keys=fold(keys, number)), None

        body = rematerialised(layer, policy=self.remat)
        x, _ = jax.lax.scan(body, x, (params, jnp.arange(self.depth)), unroll=self.unroll or self.depth)
        return self.norm(x)


def stacked(make: Callable[[nnx.Rngs], nnx.Module], *, depth: int, rngs: nnx.Rngs) -> Any:
    """Build `depth` modules as one, each parameter with a leading axis of that length; None if `depth` is 0.

    Args:
      make: builds one module; each call gets random streams of its own.
      depth: how many.
      rngs: where the initial values come from.
    """
    if depth == 0:
        return None
    keys = jax.random.split(rngs.params(), depth)
    graph = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))[0]
    params = jax.vmap(lambda key: nnx.state(make(nnx.Rngs(key))))(keys)
    return nnx.merge(graph, params)
