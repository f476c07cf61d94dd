"""Fusion by gated cross-attention to a few latents into which a perceiver resamples the other modalities."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import UserError
from ..layers.blocks import stacked
from ..layers.draws import RowKeys, fold
from ..layers.options import BlockOptions
from .early import with_kinds
from .interface import Features, Fused, Tokens, fused, joined
from .streams import CrossBlock, TokenFusion, others, scan_layers


class Resampler(nnx.Module):
    """Perceiver resampler: learned latents attend to tokens and to themselves (Flamingo, Alayrac et al. 2022, A.1.1).

    In each layer c <- c + A(c, [x; c]), then c <- c + mlp(norm(c)).
    """

    def __init__(self, options: BlockOptions, *, latents: int, depth: int, rngs: nnx.Rngs):
        """Build the layers."""
        self.options, self.depth = options, depth
        self.latents = nnx.Param(0.02 * jax.random.normal(rngs.params(), (latents, options.width), jnp.float32))
        self.layers = stacked(lambda r: CrossBlock(options, rngs=r), depth=depth, rngs=rngs)
        self.norm = options.make_norm(rngs=rngs)

    def __call__(self, tokens: Tokens, *, keys: RowKeys | None) -> Tokens:
        """Resample to one number of tokens, `[B,R,D]`; none is real where a row has no tokens."""
        rows = tokens.x.shape[0]
        start = jnp.broadcast_to(self.latents[...].astype(tokens.x.dtype)[None], (rows, *self.latents.shape))
        mask = jnp.broadcast_to(tokens.present[:, None], start.shape[:2])

        def call(layer: CrossBlock, x: Array, number: Array) -> Array:
            return layer(x, context=joined([tokens, Tokens(x, mask)]), keys=fold(keys, number))

        return Tokens(
            self.norm(scan_layers(self.layers, start, call=call, depth=self.depth, options=self.options)), mask
        )


class GatedFusion(TokenFusion):
    """Gated cross-attention to resampled tokens (Flamingo, Alayrac et al. 2022, sections 3.1 and 3.2).

    The first of `modalities` is the main one. A perceiver resampler turns the tokens of all others into R latents c, to
    which the main tokens x attend: x <- x + tanh(g_a) A(x, c), x <- x + tanh(g_m) mlp(norm(x)). The gates start at 0,
    so at the start z is the mean of the main modality's projected tokens. A row without the main modality gets the mean
    of the latents instead.
    """

    def __init__(
        self,
        *,
        widths: Mapping[str, int],
        width: int,
        latents: int = 16,
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
          widths: modality -> width D_m of its tokens; the first is the main modality.
          width: the common width D.
          latents: R.
          depth: layers of the resampler, and of gated cross-attention; see `TokenFusion`, as for all other arguments.
          heads: see there.
          dropout: see there.
          block: see there.
          remat: see there.
          unroll: see there.
          dtype: see there.
          rngs: see there.

        Raises:
          UserError: no latent, or as `TokenFusion`.
        """
        if latents < 1:
            raise UserError(f"config.model.fusion.latents must be at least 1, got {latents}; Flamingo has 64")
        self.latents = latents
        own = {"depth": depth, "heads": heads, "dropout": dropout, "block": block, "remat": remat, "unroll": unroll}
        super().__init__(widths=widths, width=width, dtype=dtype, rngs=rngs, **own)

    def _build(self, *, rngs: nnx.Rngs) -> None:
        shape = (len(self.modalities), self.width)
        self.kinds = nnx.Param(0.02 * jax.random.normal(rngs.params(), shape, jnp.float32))
        self.resampler = Resampler(self.options, latents=self.latents, depth=self.depth, rngs=rngs)
        make = partial(CrossBlock, self.options, gated=True)
        self.layers = stacked(lambda r: make(rngs=r), depth=self.depth, rngs=rngs)

    def __call__(self, features: Mapping[str, Features], *, keys: RowKeys | None = None) -> Fused:
        """Fuse; `keys` turns dropout on."""
        streams, main = self.sequences(features), self.modalities[0]
        tokens = streams[main]
        context = others(with_kinds(streams, kinds=self.kinds[...]), side=main)
        latents = self.resampler(context, keys=fold(keys, 0))
        own = fold(keys, 1)

        def call(layer: CrossBlock, x: Float[Array, "B N D"], number: Array) -> Float[Array, "B N D"]:
            return layer(x, context=latents, keys=fold(own, number))

        kind = {"depth": self.depth, "options": self.options}
        tokens = tokens._replace(x=scan_layers(self.layers, tokens.x, call=call, **kind))
        vector = jnp.where(tokens.present[:, None], tokens.mean(), latents.mean())
        return fused(vector, tokens=joined([tokens, latents]))
