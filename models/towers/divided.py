"""Video tower with divided space-time attention: TimeSformer and Frozen in Time."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from ...base.errors import UserError, unknown
from ..layers.blocks import Block, Blocks
from ..layers.dense import compute_dtype
from ..layers.draws import RowKeys, kept_tokens
from ..layers.names import named
from ..layers.options import block_options
from ..layers.patches import PatchEmbedding
from ..layers.pooling import masked_mean
from ..layers.positions import RESIZE_METHODS, position_embedding, resize_square
from ..shapes import FrameMask, Video
from .clip_positions import TIME_METHODS, check_sizes, frame_sequence, separate_positions, time_positions
from .divided_blocks import DividedBlock, FrozenBlock, Tokens
from .outputs import ClipTower, VideoOutputs

FORMS: dict[str, type[Block]] = {"timesformer": DividedBlock, "frozen": FrozenBlock}
"""Name of a form of divided attention -> its blocks."""


class DividedTower(ClipTower):
    """Video transformer with divided space-time attention (TimeSformer, Bertasius et al. 2021, arXiv:2102.05095).

    Attention over time costs T per token and attention over space N, where joint attention costs T N. The number of
    frames and their size may differ from those of the tables. A new tower begins as an image transformer on each frame:
    its attention over time adds nothing until it is trained.

    Args:
      image_size: side of the frames for whose grid the positions are, pixels.
      num_frames: frames T of a clip, for which positions in time are.
      patch: patch side P, pixels; divides `image_size`.
      width: D.
      depth: blocks.
      heads: attention heads K.
      mlp_ratio: hidden width of the MLPs / D.
      activation: a name of `layers.activations`.
      form: "timesformer", or "frozen" (Frozen in Time, Bain et al. 2021, arXiv:2104.00650); see `divided_blocks`.
      space_method: how positions in space reach other sizes, one of `layers.positions.RESIZE_METHODS`.
      time_method: how positions in time reach other numbers of frames, one of `clip_positions.TIME_METHODS`.
      pool: "cls", the class token, or "mean" of the patches.
      dropout: rate on the residual branches.
      patch_dropout: share of the places that the blocks do not see in training, the same in all frames of a clip.
      block: further fields of `layers.options.BlockOptions`.
      pixel_mean: of R, G and B, scale 0..1, subtracted from the pixels.
      pixel_std: of R, G and B; divides them.
      remat: what the backward pass recomputes, a policy of `layers.remat`.
      unroll: layers in one iteration of the loop over them; 0 = all.
      dtype: compute dtype, float32 or bfloat16.
      rngs: source of the initial values.

    Raises:
      UserError: sizes that do not divide, a value out of its range, or an unknown name.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        num_frames: int,
        patch: int = 16,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        activation: str = "gelu",
        form: str = "timesformer",
        space_method: str = "bicubic",
        time_method: str = "linear",
        pool: str = "cls",
        dropout: float = 0.0,
        patch_dropout: float = 0.0,
        block: Mapping[str, Any] | None = None,
        pixel_mean: Sequence[float] = (0.5, 0.5, 0.5),
        pixel_std: Sequence[float] = (0.5, 0.5, 0.5),
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        check_sizes(image_size=image_size, patch=patch, num_frames=num_frames, tubelet=1, dropped=patch_dropout)
        for field, value, known in (
            ("form", form, FORMS),
            ("space_method", space_method, RESIZE_METHODS),
            ("time_method", time_method, TIME_METHODS),
            ("pool", pool, ("cls", "mean")),
        ):
            if value not in known:
                raise unknown(f"config.model.video.{field}", value, known)
        self.patch, self.pool, self.patch_dropout = patch, pool, patch_dropout
        self.space_method, self.time_method, self.side = space_method, time_method, image_size // patch
        self.width, self.dtype = width, compute_dtype(dtype)
        own = {"width": width, "heads": heads, "mlp_ratio": mlp_ratio, "activation": activation, "dropout": dropout}
        own |= {"remat": remat, "unroll": unroll, "dtype": self.dtype}
        options = block_options(block, tower="video", causal=False, rotary="none", cross_width=None, **own)
        if options.norm_position != "pre":
            raise UserError("config.model.video.block.norm_position must be 'pre' in a tower with divided attention")
        kind = {"patch": patch, "tubelet": 1, "stem": 0, "width": width, "activation": activation}
        pixels = {"pixel_mean": pixel_mean, "pixel_std": pixel_std, "bias": True}
        self.embed = PatchEmbedding(**kind, **pixels, dtype=self.dtype, rngs=rngs)
        self.class_token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, width), jnp.float32))
        self.space_position = position_embedding(image_size // patch, image_size // patch, width=width)
        self.time_position = position_embedding(num_frames, width=width)
        self.blocks = Blocks(options, depth=depth, block=FORMS[form], rngs=rngs)

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        return ("embed", "class_token", "space_position", "time_position", "blocks/layers", "blocks/norm")

    def position_resizers(self) -> dict[str, Callable[[Array], Array | None]]:
        """Return parameter -> function from positions of other sizes to those of this tower."""
        times = self.time_position.shape[0]
        return {
            "space_position": functools.partial(resize_square, side=self.side, method=self.space_method),
            "time_position": functools.partial(time_positions, times=times, method=self.time_method),
        }

    def tokens(
        self,
        video: Video,
        *,
        mask: FrameMask | None = None,
        keys: RowKeys | None = None,
        drop_patches: bool = True,
    ) -> tuple[Float[Array, "B T N D"], Int[Array, "B T N"] | None]:
        """Encode the tokens of all frames, each aware of all others; for the arguments see `outputs`.

        Returns:
          The tokens of the patches that were kept, and their places (None if all were kept).
        """
        x, kept = self._encode(video, mask=mask, keys=keys, drop_patches=drop_patches)
        return x[:, :, 1:], kept

    def outputs(
        self,
        video: Video,
        *,
        mask: FrameMask | None = None,
        keys: RowKeys | None = None,
        drop_patches: bool = True,
    ) -> VideoOutputs:
        """Encode clips: the mean of each frame's patches, aware of all frames, and a vector of the clip.

        Args:
          video: clips of any number of frames, uint8 RGB 0..255, whose sides `patch` divides.
          mask: bool `[B,T]`, True where a frame is real; None = all are.
          keys: one key for each clip; turns dropout and patch dropout on.
          drop_patches: False turns patch dropout off all the same (unmasked tuning).

        Raises:
          UserError: clips of another dtype, or sides that do not divide.
        """
        x = self._encode(video, mask=mask, keys=keys, drop_patches=drop_patches)[0]
        steps = jnp.mean(x[:, :, 1:].astype(jnp.float32), axis=2)
        vector = x[:, 0, 0].astype(jnp.float32) if self.pool == "cls" else masked_mean(steps, mask=mask)
        return VideoOutputs(vector, steps, x[:, :, 1:])

    def _encode(
        self, video: Video, *, mask: FrameMask | None = None, keys: RowKeys | None, drop_patches: bool
    ) -> tuple[Tokens, Int[Array, "B T N"] | None]:
        """Return the tokens `[B,T,1+N,D]`, the class token first in each frame, and the places of kept patches."""
        video = frame_sequence(video, patch=self.patch)
        rows, times, height, width = video.shape[:4]
        new = (times, height // self.patch, width // self.patch)
        methods = {"time_method": self.time_method, "space_method": self.space_method}
        positions = separate_positions(self.space_position[...], self.time_position[...], new=new, **methods)
        x, kept = self.embed(video).astype(jnp.float32) + positions[None], None  # [B,T,N,D]
        if keys is not None and drop_patches and self.patch_dropout:
            drawn = kept_tokens(keys, tokens=x.shape[2], rate=self.patch_dropout)[:, None]
            kept = jnp.broadcast_to(drawn, (rows, times, drawn.shape[2]))
            x = jnp.take_along_axis(x, kept[..., None], axis=2)
        token = jnp.broadcast_to(self.class_token[...][None, None], (rows, times, 1, x.shape[3]))
        x = named(jnp.concatenate([token, x], axis=2).astype(self.dtype), "activation/video/tokens")
        return self.blocks(x, mask=mask, keys=keys), kept
