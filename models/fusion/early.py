"""Fusion of tokens in one transformer: of all tokens together, or through a few bottleneck tokens."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import UserError
from ..layers.attention import AttentionInputs
from ..layers.blocks import Block, Blocks, stacked
from ..layers.draws import RowKeys, fold
from .interface import Features, Fused, Tokens, fused, joined
from .streams import Streams, TokenFusion, fused_streams, make_norms, normed, presence, scan_layers


class EarlyFusion(TokenFusion):
    """Early fusion: one transformer over the concatenated tokens of all modalities (UNITER, Chen et al. 2020).

    z = mean over real tokens of blocks([x_1 + e_1; ...; x_M + e_M]) with projected tokens x_m and a learned embedding
    e_m for each modality. For the arguments see `TokenFusion`.
    """

    def _build(self, *, rngs: nnx.Rngs) -> None:
        self.kinds = nnx.Param(0.02 * jax.random.normal(rngs.params(), (len(self.modalities), self.width), jnp.float32))
        self.blocks = Blocks(self.options, depth=self.depth, rngs=rngs)

    def __call__(self, features: Mapping[str, Features], *, keys: RowKeys | None = None) -> Fused:
        """Fuse; `keys` turns dropout on."""
        tokens = joined(list(with_kinds(self.sequences(features), kinds=self.kinds[...]).values()))
        tokens = tokens._replace(x=self.blocks(tokens.x, mask=tokens.mask, keys=keys))
        return fused(tokens.mean(), tokens=tokens)


class BottleneckLayer(nnx.Module):
    """A transformer block for each modality."""

    def __init__(self, options: Any, *, sides: tuple[str, ...], rngs: nnx.Rngs):
        """Build the blocks."""
        self.blocks = nnx.Dict({side: Block(options, rngs=rngs) for side in sides})

    def __call__(
        self, streams: Streams, shared: Float[Array, "B S D"], *, keys: RowKeys | None
    ) -> tuple[Streams, Float[Array, "B S D"]]:
        """Apply each block to its modality's tokens and the shared ones; average the shared ones."""
        made, copies = {}, []
        for number, (side, tokens) in enumerate(streams.items()):
            mask = jnp.pad(tokens.mask, ((0, 0), (0, shared.shape[1])), constant_values=True)
            x = jnp.concatenate([tokens.x, shared], axis=1)
            x = self.blocks[side](x, inputs=AttentionInputs(mask=mask), keys=fold(keys, number))
            made[side] = tokens._replace(x=x[:, : tokens.x.shape[1]])
            copies.append(x[:, tokens.x.shape[1] :])
        weight = presence(streams).astype(jnp.float32)[:, :, None, None]  # [B,M,1,1]
        count = jnp.maximum(jnp.sum(weight, axis=1), jnp.float32(1))
        mean = jnp.sum(jnp.stack(copies, axis=1).astype(jnp.float32) * weight, axis=1) / count
        return made, mean.astype(shared.dtype)


class BottleneckFusion(TokenFusion):
    """Multimodal bottleneck transformer (MBT, Nagrani et al. 2021, equations 8 and 9).

    Modalities exchange information only through S shared tokens s. In each layer [x_m; s_m] = block_m([x_m; s]) for
    every modality m, then s = mean of s_m over the modalities that a row has. z is the mean of the modalities' mean
    tokens.
    """

    def __init__(
        self,
        *,
        widths: Mapping[str, int],
        width: int,
        bottlenecks: int = 4,
        depth: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        block: Mapping[str, Any] | None = None,
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Build the layers.

        Args:
          widths: modality -> width D_m of its tokens.
          width: the common width D.
          bottlenecks: shared tokens S.
          depth: see `TokenFusion`, as for all other arguments.
          heads: see there.
          dropout: see there.
          block: see there.
          remat: see there.
          unroll: see there.
          dtype: see there.
          rngs: see there.

        Raises:
          UserError: no bottleneck token, or as `TokenFusion`.
        """
        if bottlenecks < 1:
            raise UserError(f"config.model.fusion.bottlenecks must be at least 1, got {bottlenecks}; MBT has 4")
        self.bottlenecks = bottlenecks
        own = {"depth": depth, "heads": heads, "dropout": dropout, "block": block, "remat": remat, "unroll": unroll}
        super().__init__(widths=widths, width=width, dtype=dtype, rngs=rngs, **own)

    def _build(self, *, rngs: nnx.Rngs) -> None:
        shape, sides = (self.bottlenecks, self.width), self.modalities
        self.shared = nnx.Param(0.02 * jax.random.normal(rngs.params(), shape, jnp.float32))
        make = lambda r: BottleneckLayer(self.options, sides=sides, rngs=r)  # noqa: E731
        self.layers = stacked(make, depth=self.depth, rngs=rngs)
        self.norms = make_norms(self.options, sides=sides, rngs=rngs)

    def __call__(self, features: Mapping[str, Features], *, keys: RowKeys | None = None) -> Fused:
        """Fuse; `keys` turns dropout on."""
        streams = self.sequences(features)
        rows = next(iter(streams.values())).x.shape[0]
        shared = jnp.broadcast_to(self.shared[...].astype(self.dtype)[None], (rows, *self.shared.shape))

        def call(layer: BottleneckLayer, carry: tuple[Streams, Array], number: Array) -> tuple[Streams, Array]:
            return layer(*carry, keys=fold(keys, number))

        kind = {"depth": self.depth, "options": self.options}
        streams, _ = scan_layers(self.layers, (streams, shared), call=call, **kind)
        return fused_streams(normed(streams, norms=self.norms, sides=self.modalities))


def with_kinds(streams: Streams, *, kinds: Float[Array, "M D"]) -> Streams:
    """Add to each token the embedding of its modality."""
    made = {}
    for number, (side, tokens) in enumerate(streams.items()):
        x = (tokens.x.astype(jnp.float32) + kinds[None, number : number + 1]).astype(tokens.x.dtype)
        made[side] = Tokens(x, tokens.mask)
    return made
