"""Masked frame modelling: a light decoder paints the patches that the video tower did not see."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from ...base.errors import UserError
from ..layers.blocks import Blocks
from ..layers.dense import compute_dtype, linear
from ..layers.draws import RowKeys
from ..layers.options import block_options
from ..layers.patches import PatchLayout
from ..layers.positions import sinusoids

TOWER = "heads.masked_frames"
"""Its place in `config.model`, and in the names of its activations."""


class MaskedFramesDecoder(nnx.Module):
    """The decoder of a masked autoencoder (MAE, He et al. 2022; VideoMAE, Tong et al. 2022, arXiv:2203.12602).

    The patches that the video tower saw, and a learned token in place of each of the others, get fixed positions in
    space and time and pass `depth` blocks, in which all of them see each other. A linear map gives the pixels.

    Attributes:
      sees_words: False: there is no text.
      layout: of the video tower's patches.
    """

    sees_words: ClassVar[bool] = False

    def __init__(
        self,
        *,
        layout: PatchLayout | None,
        width: int = 192,
        depth: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        block: Mapping[str, Any] | None = None,
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Build the head.

        Args:
          layout: of the video tower's patches; None = the tower cannot encode a part of them.
          width: D of the blocks, a multiple of 4; VideoMAE's decoder for ViT-B has 384.
          depth: blocks; VideoMAE has 4.
          heads: attention heads K; they divide D.
          dropout: rate on the residual branches.
          block: further fields of `layers.options.BlockOptions`.
          remat: what the backward pass recomputes, a policy of `layers.remat`.
          unroll: layers in one iteration of the loop over them; 0 = all.
          dtype: compute dtype, float32 or bfloat16; pixels are float32.
          rngs: source of the initial values.

        Raises:
          UserError: a video tower without such patches, sizes that do not divide, a value out of its range, or an
            unknown name.
        """
        if layout is None:
            raise UserError(
                f"config.model.{TOWER} needs a video tower that encodes some patches of a clip without the others: "
                "family 'vivit' without conv, 'joint', or 'frames' with an image tower 'vit' without naflex and "
                "patch_stem; choose one of them, or leave the head and its term out"
            )
        if depth < 1 or heads < 1:
            raise UserError(f"config.model.{TOWER}: depth={depth} and heads={heads} must be at least 1")
        if width % 4:
            raise UserError(f"config.model.{TOWER}.width={width} must be a multiple of 4, for positions in space")
        own = {"width": width, "heads": heads, "dropout": dropout, "remat": remat, "unroll": unroll, "causal": False}
        own |= {"dtype": compute_dtype(dtype), "rotary": "none", "cross_width": None}
        options = block_options(block, tower=TOWER, **own)
        self.layout, self.dtype, self.width = layout, options.dtype, width
        self.patches = linear(layout.width, width, dtype=options.dtype, rngs=rngs)
        self.token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, width), jnp.float32))
        self.blocks = Blocks(options, depth=depth, rngs=rngs)
        self.out = linear(width, layout.pixels, dtype=jnp.float32, rngs=rngs)

    def __call__(
        self,
        patches: Float[Array, "B T n C"],
        *,
        kept: Int[Array, "B n"],
        hidden: Int[Array, "B m"],
        grid: tuple[int, int],
        times: Bool[Array, "B T"] | None = None,
        keys: RowKeys | None = None,
    ) -> Float[Array, "B T m F"]:
        """Return the pixels of the hidden patches, float32, as `layers.patches.cut` orders them.

        Args:
          patches: what the video tower made of the patches that it saw.
          kept: places of these, the same in all time steps, ascending.
          hidden: places of the others.
          grid: rows and columns of the patches of a frame.
          times: True = a real time step; None = all are.
          keys: one for each row; turns dropout on.
        """
        rows, steps, count = patches.shape[:3]
        places = grid[0] * grid[1]
        at = is_kept(kept, places=places)
        index = jnp.where(at, jnp.cumsum(at, axis=1) - 1, count)  # in the patches; the token follows them
        token = jnp.broadcast_to(self.token[...].astype(self.dtype)[None, None], (rows, steps, 1, self.width))
        x = jnp.concatenate([self.patches(patches.astype(self.dtype)), token], axis=2)
        x = jnp.take_along_axis(x, index[:, None, :, None], axis=2)  # [B,T,N,D]
        x = (x.astype(jnp.float32) + self._positions(steps, grid)[None]).astype(self.dtype)
        mask = None if times is None else jnp.repeat(times, places, axis=1)
        x = self.blocks(rearrange(x, "b t n d -> b (t n) d"), mask=mask, keys=keys)
        x = rearrange(x, "b (t n) d -> b t n d", t=steps)
        return self.out(jnp.take_along_axis(x, hidden[:, None, :, None], axis=2).astype(jnp.float32))

    def _positions(self, steps: int, grid: tuple[int, int]) -> Float[Array, "T N D"]:
        space, time = sinusoids(*grid, width=self.width), sinusoids(steps, width=self.width)
        return jnp.asarray((time[:, None] + space[None]).astype(np.float32))


def is_kept(kept: Int[Array, "B n"], *, places: int) -> Bool[Array, "B N"]:
    """Tell of each of N places whether it is among those kept."""
    return jnp.any(kept[:, :, None] == jnp.arange(places, dtype=kept.dtype)[None, None], axis=1)
