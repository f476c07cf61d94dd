"""Fusion of tokens by attention between modalities: crossed pairs, mutual, mixed, and hierarchical."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ..layers.attention import Attention, AttentionInputs
from ..layers.blocks import Block, Blocks, stacked
from ..layers.dense import linear
from ..layers.draws import RowKeys, dropout, fold
from ..layers.mlp import Mlp
from ..layers.options import BlockOptions
from .interface import Features, Fused, Tokens, chosen, fused, joined, mean_of_present
from .streams import (
    CrossBlock,
    Streams,
    TokenFusion,
    fused_streams,
    make_norms,
    normed,
    others,
    presence,
    scan_layers,
)


class CrossBlocks(nnx.Module):
    """A stack of `CrossBlock` that attends to one context in every layer."""

    def __init__(self, options: BlockOptions, *, depth: int, rngs: nnx.Rngs):
        """Build the stack."""
        self.options, self.depth = options, depth
        self.layers = stacked(lambda r: CrossBlock(options, rngs=r), depth=depth, rngs=rngs)

    def __call__(self, x: Float[Array, "B N D"], *, context: Tokens, keys: RowKeys | None) -> Float[Array, "B N D"]:
        """Apply all layers."""

        def call(layer: CrossBlock, x: Array, number: Array) -> Array:
            return layer(x, context=context, keys=fold(keys, number))

        return scan_layers(self.layers, x, call=call, depth=self.depth, options=self.options)


class CrossFusion(TokenFusion):
    """Cross-modal transformers for each ordered pair of modalities (MulT, Tsai et al. 2019, sections 3.1 and 3.2).

    For target m and source n, z_{m<-n} comes from `depth` blocks in which x_m attends to the projected tokens x_n. The
    mean of z_{m<-n} over the sources that a row has (x_m itself without any; MulT concatenates) goes through `depth`
    self-attention blocks of modality m. z is the mean of the modalities' mean tokens. For the arguments see
    `TokenFusion`.
    """

    def _build(self, *, rngs: nnx.Rngs) -> None:
        kind = {"depth": self.depth, "rngs": rngs}
        pairs = [(source, target) for target in self.modalities for source in self.modalities if source != target]
        self.pairs = nnx.Dict({f"{a}_to_{b}": CrossBlocks(self.options, **kind) for a, b in pairs})
        self.own = nnx.Dict({side: Blocks(self.options, **kind) for side in self.modalities})

    def __call__(self, features: Mapping[str, Features], *, keys: RowKeys | None = None) -> Fused:
        """Fuse; `keys` turns dropout on."""
        streams, made = self.sequences(features), {}
        for number, (side, tokens) in enumerate(streams.items()):
            keys_of = partial(fold, fold(keys, number))
            x = self._crossed(streams, side=side, keys=keys_of(0))
            made[side] = tokens._replace(x=self.own[side](x, mask=tokens.mask, keys=keys_of(1)))
        return fused_streams(made)

    def _crossed(self, streams: Streams, *, side: str, keys: RowKeys | None) -> Float[Array, "B N D"]:
        """Return the mean over the sources of a target's tokens."""
        x = streams[side].x
        total, count = jnp.zeros(x.shape, jnp.float32), jnp.zeros((x.shape[0], 1, 1), jnp.float32)
        for number, (source, tokens) in enumerate(streams.items()):
            if source != side:
                y = self.pairs[f"{source}_to_{side}"](x, context=tokens, keys=fold(keys, number))
                there = tokens.present[:, None, None].astype(jnp.float32)
                total, count = total + there * y.astype(jnp.float32), count + there
        mean = total / jnp.maximum(count, jnp.float32(1))
        return jnp.where(count > 0, mean, x.astype(jnp.float32)).astype(x.dtype)


class MutualLayer(nnx.Module):
    """For each modality a block that attends to the other modalities, then one of self-attention."""

    def __init__(self, options: BlockOptions, *, sides: tuple[str, ...], rngs: nnx.Rngs):
        """Build the blocks."""
        self.cross = nnx.Dict({side: CrossBlock(options, rngs=rngs) for side in sides})
        self.own = nnx.Dict({side: Block(options, rngs=rngs) for side in sides})

    def __call__(self, streams: Streams, *, keys: RowKeys | None) -> Streams:
        """Update all modalities at once, each from the tokens that the others had before."""
        made = {}
        for number, (side, tokens) in enumerate(streams.items()):
            own = fold(keys, number)
            x = self.cross[side](tokens.x, context=others(streams, side=side), keys=fold(own, 0))
            x = self.own[side](x, inputs=AttentionInputs(mask=tokens.mask), keys=fold(own, 1))
            made[side] = tokens._replace(x=x)
        return made


class MixedLayer(nnx.Module):
    """For each modality self-attention and attention to the others on one branch, mixed by a gate; then an MLP."""

    def __init__(self, options: BlockOptions, *, sides: tuple[str, ...], rngs: nnx.Rngs):
        """Build the parts."""
        self.options = options
        self.inter = nnx.Dict({side: CrossBlock(options, rngs=rngs) for side in sides})
        self.intra = nnx.Dict({side: Attention(options, rngs=rngs) for side in sides})
        self.gate = nnx.Dict(
            {side: linear(options.width, options.width, dtype=jnp.float32, rngs=rngs) for side in sides}
        )

    def __call__(self, streams: Streams, *, keys: RowKeys | None) -> Streams:
        """Update all modalities at once, each from the tokens that the others had before."""
        return {
            side: tokens._replace(x=self._updated(streams, side=side, keys=fold(keys, number)))
            for number, (side, tokens) in enumerate(streams.items())
        }

    def _updated(self, streams: Streams, *, side: str, keys: RowKeys | None) -> Array:
        block, (x, mask), context = self.inter[side], streams[side], others(streams, side=side)
        intra = self.intra[side](block.norm1(x), inputs=AttentionInputs(mask=mask))
        inter = block.attended(x, context=context)
        gate = jax.nn.sigmoid(self.gate[side](context.mean()))  # [B,D]
        gate = jnp.where(context.present[:, None], gate, jnp.float32(0))[:, None]  # a lone modality sees itself only
        branch = ((1 - gate) * intra.astype(jnp.float32) + gate * inter.astype(jnp.float32)).astype(x.dtype)
        x = x + dropout(branch, rate=self.options.dropout, keys=fold(keys, 0))
        return x + dropout(Mlp.__call__(block, block.norm2(x)), rate=self.options.dropout, keys=fold(keys, 1))


class MutualFusion(TokenFusion):
    """Mutual attention (co-attentional transformer layers, ViLBERT, Lu et al. 2019, section 2.1).

    In each layer the tokens of every modality attend to those of the others, x_m <- x_m + A(x_m, [x_n, n != m]),
    followed by an MLP, and then to each other in a transformer block. z is the mean of the modalities' mean tokens. For
    the arguments see `TokenFusion`.
    """

    layer: type[Any] = MutualLayer

    def _build(self, *, rngs: nnx.Rngs) -> None:
        sides = self.modalities
        make = partial(self.layer, self.options, sides=sides)
        self.layers = stacked(lambda r: make(rngs=r), depth=self.depth, rngs=rngs)
        self.norms = make_norms(self.options, sides=sides, rngs=rngs)

    def __call__(self, features: Mapping[str, Features], *, keys: RowKeys | None = None) -> Fused:
        """Fuse; `keys` turns dropout on."""

        def call(layer: Any, streams: Streams, number: Array) -> Streams:
            return layer(streams, keys=fold(keys, number))

        kind = {"depth": self.depth, "options": self.options}
        streams = scan_layers(self.layers, self.sequences(features), call=call, **kind)
        return fused_streams(normed(streams, norms=self.norms, sides=self.modalities))


class MixedFusion(MutualFusion):
    """Mixed attention: within and between modalities at once (after the attention flows of DFAF, Gao et al. 2019).

    In each layer x_m <- x_m + (1 - g_m) A(x_m, x_m) + g_m A'(x_m, [x_n, n != m]), then an MLP; the gate of each
    channel, g_m = sigmoid(W_m c_m + b_m), depends on the mean c_m of the other modalities' tokens, and is 0 for a row
    without them. z is the mean of the modalities' mean tokens. For the arguments see `TokenFusion`.
    """

    layer = MixedLayer


class HierarchicalLayer(nnx.Module):
    """A transformer block for each modality, and the part of the shared vector that takes from all of them."""

    def __init__(self, options: BlockOptions, *, sides: tuple[str, ...], rngs: nnx.Rngs):
        """Build the parts."""
        self.blocks = nnx.Dict({side: Block(options, rngs=rngs) for side in sides})
        self.into = nnx.Dict(
            {side: linear(options.width, options.width, dtype=options.dtype, rngs=rngs) for side in sides}
        )
        self.norms = make_norms(options, sides=sides, rngs=rngs)
        self.norm, self.mlp = options.make_norm(rngs=rngs), Mlp(options, rngs=rngs)

    def __call__(
        self, streams: Streams, shared: Float[Array, "B D"], *, keys: RowKeys | None
    ) -> tuple[Streams, Float[Array, "B D"]]:
        """Apply the blocks, then add what they give to the shared vector."""
        made, given = {}, []
        for number, (side, tokens) in enumerate(streams.items()):
            x = self.blocks[side](tokens.x, inputs=AttentionInputs(mask=tokens.mask), keys=fold(keys, number))
            made[side] = tokens._replace(x=x)
            given.append(self.into[side](self.norms[side](made[side].mean())))
        shared = shared + mean_of_present(jnp.stack(given, axis=1), present=presence(streams))
        return made, shared + self.mlp(self.norm(shared)).astype(jnp.float32)


class HierarchicalFusion(TokenFusion):
    """Fusion in every layer of the hierarchy (dense multimodal fusion, Hu et al. 2019).

    In layer l the tokens of each modality pass a transformer block of their own, and a shared vector takes from all:
    s <- s + mean over present m of W_m norm(mean of x_m), then s <- s + mlp(norm(s)). It starts at 0; z = norm(s). For
    the arguments see `TokenFusion`.
    """

    def _build(self, *, rngs: nnx.Rngs) -> None:
        make = partial(HierarchicalLayer, self.options, sides=self.modalities)
        self.layers = stacked(lambda r: make(rngs=r), depth=self.depth, rngs=rngs)
        self.norms = make_norms(self.options, sides=self.modalities, rngs=rngs)
        self.norm = self.options.make_norm(rngs=rngs)

    def __call__(self, features: Mapping[str, Features], *, keys: RowKeys | None = None) -> Fused:
        """Fuse; `keys` turns dropout on."""
        streams = self.sequences(features)
        shared = jnp.zeros((next(iter(streams.values())).x.shape[0], self.width), jnp.float32)

        def call(layer: HierarchicalLayer, carry: tuple[Streams, Array], number: Array) -> tuple[Streams, Array]:
            return layer(*carry, keys=fold(keys, number))

        kind = {"depth": self.depth, "options": self.options}
        streams, shared = scan_layers(self.layers, (streams, shared), call=call, **kind)
        there = jnp.any(presence(streams), axis=1)
        tokens = joined(list(normed(streams, norms=self.norms, sides=self.modalities).values()))
        return fused(self.norm(chosen(there, shared)), tokens=tokens)
