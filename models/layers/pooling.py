"""From tokens to one vector: class token, mean, last and end-of-sentence token, attention pooling."""

import math

import jax
import jax.numpy as jnp
from einops import reduce
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from ...base.errors import UserError, unknown
from .attention import Attention, AttentionInputs
from .dense import linear
from .mlp import Mlp
from .options import BlockOptions
from .positions import sinusoids

TEXT_POOLS = ("mean", "cls", "last", "eos", "attention", "pooler")
"""How a text tower can pool its tokens."""


def check_pool(name: str, *, field: str) -> None:
    """Raise UserError unless `name` is in `TEXT_POOLS`; it names the config field."""
    if name not in TEXT_POOLS:
        raise unknown(field, name, TEXT_POOLS)


def masked_mean(x: Float[Array, "B L D"], *, mask: Bool[Array, "B L"] | None = None) -> Float[Array, "B D"]:
    """Average axis L over the real tokens, all without `mask`; float32. Rows without any give zeros."""
    x = x.astype(jnp.float32)
    if mask is None:
        return jnp.mean(x, axis=1)
    weight = mask.astype(jnp.float32)[:, :, None]  # [B,L,1]
    return jnp.sum(x * weight, axis=1) / jnp.maximum(jnp.sum(weight, axis=1), jnp.float32(1))


def statistics(x: Float[Array, "B L D"], *, mask: Bool[Array, "B L"] | None = None) -> Float[Array, "B 4D"]:
    """Describe a sequence: mean, standard deviation, mean absolute differences of first and second order; float32.

    A difference counts if all tokens that it is taken of are real. Without any, as in short sequences, it is 0.
    """
    x = x.astype(jnp.float32)
    mean = masked_mean(x, mask=mask)
    variance = masked_mean(jnp.square(x - mean[:, None]), mask=mask)
    found = [mean, jnp.sqrt(variance + 1e-6)]  # its gradient is finite where nothing changes
    real = jnp.ones(x.shape[:2], bool) if mask is None else mask
    for _ in range(2):
        x, real = x[:, 1:] - x[:, :-1], real[:, 1:] & real[:, :-1]
        found.append(masked_mean(jnp.abs(x), mask=real))
    return jnp.concatenate(found, axis=-1)


def cells(patches: Float[Array, "B T N W"], *, grid: int) -> Float[Array, "B M W"]:
    """Average the patches of each time step over the cells of a grid, row-major; float32, M = T * grid * grid.

    Args:
      patches: of square frames, N = side * side, row-major.
      grid: cells along each side; it divides the side. The side itself keeps every patch.

    Raises:
      UserError: frames that are not square, or a grid that does not divide them.
    """
    side = math.isqrt(patches.shape[2])
    if side * side != patches.shape[2] or side % grid:
        raise UserError(
            f"config.task.patch_grid={grid} must divide the sides of square frames; the tower has {patches.shape[2]} "
            f"patches in each time step, {side} to a side"
        )
    cut = "b t (i p j q) w -> b (t i j) w"
    each = side // grid
    return reduce(patches.astype(jnp.float32), cut, "mean", i=grid, j=grid, p=each, q=each)


def token_at(x: Float[Array, "B L D"], *, place: Int[Array, "B"]) -> Float[Array, "B D"]:
    """Return the token at each row's place."""
    return jnp.take_along_axis(x, place[:, None, None], axis=1)[:, 0]


def last_place(mask: Bool[Array, "B L"]) -> Int[Array, "B"]:
    """Return the place of the last real token of each row, 0 where none is real; int32."""
    places = jnp.arange(mask.shape[1], dtype=jnp.int32)[None]
    return jnp.max(jnp.where(mask, places, 0), axis=1)


def eos_place(
    text: Int[Array, "B L"], *, eos_id: int | None = None, mask: Bool[Array, "B L"] | None = None
) -> Int[Array, "B"]:
    """Return the place of the first end-of-sentence token of each row; int32.

    Args:
      text: token ids.
      eos_id: the token's id; None = the largest id of the row, as OpenAI's CLIP reads its own vocabulary, in which the
        end of sentence is the last entry.
      mask: True where a token is real; None = all are. Padding is never the end of a sentence, and a row without the
        token ends with its last real token.
    """
    real = jnp.ones(text.shape, bool) if mask is None else mask
    if eos_id is None:
        return jnp.argmax(jnp.where(real, text, -1), axis=1).astype(jnp.int32)
    found, end = (text == eos_id) & real, last_place(real)
    return jnp.where(jnp.any(found, axis=1), jnp.argmax(found, axis=1).astype(jnp.int32), end)


class AttentionPool(nnx.Module):
    """Learned queries attend to all tokens (multi-head attention pooling, Lee et al. 2019, Set Transformer).

    The options give the forms of CoCa (Yu et al. 2022, section 3.2), of SigLIP's MAP head (Zhai et al. 2022: `mlp`) and
    of VideoPrism (Zhao et al. 2024: a wide attention with `per_dim_scale` and `norm_pooled`).
    """

    def __init__(
        self,
        options: BlockOptions,
        *,
        queries: int = 1,
        norm_tokens: bool = False,
        positions: bool = False,
        norm_pooled: bool = False,
        mlp: bool = False,
        per_dim_scale: bool = False,
        rngs: nnx.Rngs,
    ):
        """Build the layer.

        Args:
          options: sizes and kinds of the attention, norms and MLP.
          queries: how many vectors the tokens become.
          norm_tokens: normalise the tokens first.
          positions: then add sinusoids of their places 0 ... L - 1, so that queries know the order; D must be even.
          norm_pooled: normalise the pooled vectors.
          mlp: end with `x + mlp(norm(x))`.
          per_dim_scale: multiply the queries by a learned factor for each channel of a head, 1 at the start: softplus
            of the parameter over softplus of 0 (Praxis).
          rngs: source of the initial values.
        """
        self.options = options
        self.query = nnx.Param(0.02 * jax.random.normal(rngs.params(), (queries, options.width), jnp.float32))
        self.norm_tokens = options.make_norm(rngs=rngs) if norm_tokens else None
        self.positions = positions
        self.attention = Attention(options, context_width=options.width, rngs=rngs)
        self.norm_pooled = options.make_norm(rngs=rngs) if norm_pooled else None
        self.per_dim_scale = nnx.Param(jnp.zeros((options.head_size,), jnp.float32)) if per_dim_scale else None
        self.norm_mlp = options.make_norm(rngs=rngs) if mlp else None
        self.mlp = Mlp(options, rngs=rngs) if mlp else None

    def __call__(self, x: Float[Array, "B L D"], *, mask: Bool[Array, "B L"] | None = None) -> Float[Array, "B Q D"]:
        """Pool tokens; those where `mask` is False are not seen. A row without any gives the bias of the output."""
        x = x.astype(self.options.dtype)
        tokens = x if self.norm_tokens is None else self.norm_tokens(x)
        if self.positions:
            tokens = tokens + jnp.asarray(sinusoids(x.shape[1], width=x.shape[2]), x.dtype)[None]
        keys, values = self.attention.context(tokens)
        if self.per_dim_scale is not None:
            factor = jax.nn.softplus(self.per_dim_scale[...]) / jnp.log(jnp.float32(2))  # on queries, and so on keys
            keys = (keys.astype(jnp.float32) * factor[None, None, None]).astype(keys.dtype)
        queries = self.query[...].astype(self.options.dtype)[None]  # [1,Q,D]
        pooled = self.attention.cross(queries, keys=keys, values=values, inputs=AttentionInputs(mask=mask))
        if self.norm_pooled is not None:
            pooled = self.norm_pooled(pooled)
        if self.mlp is not None and self.norm_mlp is not None:
            pooled = pooled + self.mlp(self.norm_mlp(pooled))
        return pooled  # [B,Q,D]


class FirstTokenPool(nnx.Module):
    """A dense layer with tanh on the first token (BERT, Devlin et al. 2019: `pooler`)."""

    def __init__(self, options: BlockOptions, *, rngs: nnx.Rngs):
        """Build the layer."""
        self.out = linear(options.width, options.width, dtype=options.dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B L D"], *, mask: Bool[Array, "B L"] | None = None) -> Float[Array, "B 1 D"]:
        """Pool tokens, the first of which is real in every row."""
        del mask
        return jnp.tanh(self.out(x[:, :1]).astype(jnp.float32))
