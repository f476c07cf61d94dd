"""Parts of the fusions of tokens: options, a scan over layers, and attention to the tokens of other modalities."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from ...base.errors import UserError
from ..layers.attention import Attention, AttentionInputs
from ..layers.dense import compute_dtype
from ..layers.draws import RowKeys, dropout, fold
from ..layers.mlp import Mlp
from ..layers.names import named
from ..layers.options import BlockOptions, block_options
from ..layers.remat import rematerialised
from .interface import Fused, Fusion, Tokens, fused, joined, mean_of_present

Streams = dict[str, Tokens]
"""Modality -> its tokens."""


class TokenFusion(Fusion):
    """A fusion of tokens by `depth` layers of attention.

    Args:
      widths: modality -> width D_m of its tokens.
      width: the common width D.
      depth: layers.
      heads: attention heads K; they divide D.
      dropout: rate on the residual branches.
      block: further fields of `layers.options.BlockOptions`, such as `{"mlp_ratio": 2.0}`.
      remat: what the backward pass recomputes, a policy of `layers.remat`.
      unroll: layers in one iteration of the loop over them; 0 = all.
      dtype: compute dtype, float32 or bfloat16.
      rngs: source of the initial values.

    Raises:
      UserError: sizes that do not divide, a value out of its range, or an unknown name.
    """

    sees = "tokens"

    def __init__(
        self,
        *,
        widths: Mapping[str, int],
        width: int,
        depth: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        block: Mapping[str, Any] | None = None,
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        super().__init__(widths=widths, width=width, dtype=compute_dtype(dtype), rngs=rngs)
        if depth < 1 or heads < 1:
            raise UserError(f"config.model.fusion: depth={depth} and heads={heads} must be at least 1")
        if width % heads:
            raise UserError(
                f"config.model.fusion.width={width} must divide by config.model.fusion.heads={heads}; change one of "
                "them (width is config.model.embed_dim unless it is set)"
            )
        own = {"width": width, "heads": heads, "dropout": dropout, "remat": remat, "unroll": unroll}
        own |= {"causal": False, "rotary": "none", "cross_width": None, "norm_position": "pre", "final_norm": True}
        own |= {"layer_scale": None, "drop_path": 0.0, "dtype": self.dtype}
        self.depth, self.options = depth, block_options(block, tower="fusion", **own)
        self._build(rngs=rngs)

    def _build(self, *, rngs: nnx.Rngs) -> None:
        """Build what the subclass adds to the projections."""
        raise NotImplementedError


def scan_layers(
    layers: Any,
    carry: Any,
    *,
    call: Callable[[Any, Any, Int[Array, ""]], Any],
    depth: int,
    options: BlockOptions,
) -> Any:
    """Apply stacked layers one after another.

    Args:
      layers: of `layers.blocks.stacked`.
      carry: what the first layer takes; any tree of arrays.
      call: (layer, carry, number of the layer) -> carry.
      depth: how many layers.
      options: `remat` and `unroll`.
    """
    graph, params = nnx.split(layers)

    def layer(carry: Any, at: tuple[Any, Array]) -> tuple[Any, None]:
        params, number = at
        return call(nnx.merge(graph, params), carry, number), None

    unroll = min(options.unroll or depth, depth)
    body = rematerialised(layer, policy=options.remat, looped=unroll < depth)
    carry, _ = jax.lax.scan(body, carry, (params, jnp.arange(depth)), unroll=unroll)
    return carry


class CrossBlock(Mlp):
    """Tokens attend to a context; then an MLP. Each is a residual branch, optionally behind a gate.

    x <- x + tanh(g_a) attention(norm(x), norm(c)); x <- x + tanh(g_m) mlp(norm(x)). The gates start at 0 (gated
    cross-attention, Alayrac et al. 2022, Flamingo); without them the factors are 1. Where a row has no context the
    branch of attention is left out.
    """

    def __init__(self, options: BlockOptions, *, gated: bool = False, context_width: int | None = None, rngs: nnx.Rngs):
        """Build the block; tokens have the options' width, and so has the context where `context_width` is None."""
        seen = options.width if context_width is None else context_width
        self.norm1, self.norm_context = options.make_norm(rngs=rngs), options.make_norm(width=seen, rngs=rngs)
        self.attention = Attention(options, context_width=seen, rngs=rngs)
        self.norm2 = options.make_norm(rngs=rngs)
        super().__init__(options, rngs=rngs)
        self.gates = nnx.Param(jnp.zeros((2,), jnp.float32)) if gated else None

    def __call__(
        self, x: Float[Array, "B N D"], *, context: Tokens, keys: RowKeys | None = None
    ) -> Float[Array, "B N D"]:
        """Apply the block; without `keys` dropout is off."""
        return self.joined(x, attended=self.attended(x, context=context), keys=keys)

    def joined(self, x: Float[Array, "B N D"], *, attended: Array, keys: RowKeys | None = None) -> Array:
        """Return the tokens with the branch of attention, and then that of the MLP, added."""
        x = x + self._branch(attended, number=0, keys=keys)
        x = x + self._branch(super().__call__(self.norm2(x)), number=1, keys=keys)
        return named(x, "activation/fusion/tokens")

    def attended(self, x: Float[Array, "B N D"], *, context: Tokens) -> Float[Array, "B N D"]:
        """Return the branch of attention; zeros for rows without context."""
        return self.attended_to(x, stored=self.stored(context), mask=context.mask)

    def stored(self, context: Tokens) -> tuple[Float[Array, "B G M d"], Float[Array, "B G M d"]]:
        """Return keys and values of a context, which stay the same while a text is written."""
        return self.attention.context(self.norm_context(context.x))

    def attended_to(
        self, x: Float[Array, "B N D"], *, stored: tuple[Array, Array], mask: Bool[Array, "B M"]
    ) -> Float[Array, "B N D"]:
        """Return the branch of attention to a context of which `stored` gave keys and values."""
        y = self.attention.cross(self.norm1(x), keys=stored[0], values=stored[1], inputs=AttentionInputs(mask=mask))
        return jnp.where(jnp.any(mask, axis=1)[:, None, None], y, jnp.zeros((), y.dtype))

    def _branch(self, y: Array, *, number: int, keys: RowKeys | None) -> Array:
        if self.gates is not None:
            y = (y.astype(jnp.float32) * jnp.tanh(self.gates[...][number])).astype(y.dtype)
        return dropout(y, rate=self.options.dropout, keys=fold(keys, number))


def others(streams: Streams, *, side: str) -> Tokens:
    """Return the tokens of all modalities but one."""
    return joined([tokens for other, tokens in streams.items() if other != side])


def pooled(streams: Streams) -> Float[Array, "B D"]:
    """Average the mean tokens of the modalities that a row has; float32."""
    rows = jnp.stack([tokens.mean() for tokens in streams.values()], axis=1)
    return mean_of_present(rows, present=presence(streams))


def presence(streams: Streams) -> Bool[Array, "B M"]:
    """Tell which modalities a row has."""
    return jnp.stack([tokens.present for tokens in streams.values()], axis=1)


def fused_streams(streams: Streams) -> Fused:
    """Return the result of a fusion whose layers leave each modality its own tokens: `pooled`, and all tokens."""
    return fused(pooled(streams), tokens=joined(list(streams.values())))


def make_norms(options: BlockOptions, *, sides: tuple[str, ...], rngs: nnx.Rngs) -> nnx.Dict:
    """Build a norm for each modality."""
    return nnx.Dict({side: options.make_norm(rngs=rngs) for side in sides})


def normed(streams: Streams, *, norms: nnx.Dict, sides: tuple[str, ...]) -> Streams:
    """Normalise the tokens of each modality, and put them in the order of `sides` (a scan returns sorted names)."""
    return {side: streams[side]._replace(x=norms[side](streams[side].x)) for side in sides}
