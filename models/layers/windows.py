"""Attention within windows of a picture, shifted in every second block: Swin transformers (Liu et al. 2021)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from .attention import AttentionInputs
from .blocks import Block
from .dense import linear
from .draws import RowKeys, fold_each
from .norm import LayerNorm
from .options import BlockOptions

Map = Float[Array, "B H W D"]


class WindowBlock(nnx.Module):
    """A pre-norm block whose attention stays within windows of `window` x `window` places.

    A learned bias stands for the distance of two places. A shifted block moves the windows by half of their side;
    windows that then reach over the border hold several regions, which do not see each other.
    """

    def __init__(self, options: BlockOptions, *, window: int, shifted: bool, rngs: nnx.Rngs):
        """Build the block; `window` divides the sides of its maps."""
        self.block = Block(options, rngs=rngs)
        self.window, self.shift = window, window // 2 if shifted else 0
        table = 0.02 * jax.random.normal(rngs.params(), ((2 * window - 1) ** 2, options.heads), jnp.float32)
        self.relative_bias = nnx.Param(table)

    def __call__(self, x: Map, *, keys: RowKeys | None = None) -> Map:
        """Apply the block; `keys`, one for each row, turns dropout on."""
        rows, columns, w = x.shape[1] // self.window, x.shape[2] // self.window, self.window
        x = jnp.roll(x, (-self.shift, -self.shift), axis=(1, 2))
        sizes: dict[str, Any] = {"r": rows, "p": w, "q": w}
        windows = rearrange(x, "b (r p) (c q) d -> (b r c) (p q) d", **sizes)
        bias = jnp.moveaxis(self.relative_bias[...][_distances(w)], -1, 0)[None]  # [1,K,L,L]
        pairs = None
        if self.shift:
            seen = _same_region(rows, columns, window=w, shift=self.shift)
            pairs = jnp.tile(jnp.asarray(seen), (x.shape[0], 1, 1))
        inputs = AttentionInputs(bias=bias, pairs=pairs)
        windows = self.block(windows, inputs=inputs, keys=fold_each(keys, rows * columns))
        x = rearrange(windows, "(b r c) (p q) d -> b (r p) (c q) d", c=columns, **sizes)
        return jnp.roll(x, (self.shift, self.shift), axis=(1, 2))


class PatchMerging(nnx.Module):
    """Four neighbours become one place of twice the width: norm and a linear map without a bias."""

    def __init__(self, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Build the layer for maps of `width` channels."""
        self.norm = LayerNorm(4 * width, dtype=dtype, rngs=rngs)
        self.out = linear(4 * width, 2 * width, dtype=dtype, bias=False, rngs=rngs)

    def __call__(self, x: Map) -> Float[Array, "B h w d"]:
        """Merge places of a map with even sides."""
        return self.out(self.norm(rearrange(x, "b (h p) (w q) d -> b h w (q p d)", p=2, q=2)))


@functools.lru_cache(maxsize=8)
def _distances(window: int) -> np.ndarray:
    """Return the row of the table for each pair of places, int `[L,L]`."""
    places = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij")).reshape(2, -1)
    apart = places[:, :, None] - places[:, None] + window - 1
    return apart[0] * (2 * window - 1) + apart[1]


@functools.lru_cache(maxsize=8)
def _same_region(rows: int, columns: int, *, window: int, shift: int) -> np.ndarray:
    """Tell which places of each shifted window were neighbours before, bool `[windows,L,L]`."""

    def regions(count: int) -> np.ndarray:
        place = np.arange(count * window)
        return (place >= len(place) - window).astype(int) + (place >= len(place) - shift)

    numbers = 3 * regions(rows)[:, None] + regions(columns)[None]
    numbers = rearrange(numbers, "(r p) (c q) -> (r c) (p q)", p=window, q=window)
    return numbers[:, :, None] == numbers[:, None]
