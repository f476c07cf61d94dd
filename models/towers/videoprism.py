"""VideoPrism's video encoder (Zhao et al. 2024): a transformer over the places of each frame, then one over time."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from ...base.errors import UserError, unknown
from ..layers.blocks import Blocks
from ..layers.capture import are_pixels
from ..layers.dense import compute_dtype
from ..layers.draws import RowKeys, fold, fold_each, kept_tokens
from ..layers.names import named
from ..layers.options import BlockOptions, block_options
from ..layers.patches import PatchEmbedding
from ..layers.pooling import AttentionPool, masked_mean
from ..layers.positions import position_embedding, resize_positions, resize_square
from ..shapes import FrameFeatures, FrameMask, Video
from .outputs import ClipTower, VideoOutputs

POOLS = ("mean", "attention")
"""How the tokens of a clip become one."""
BLOCK = {"norm_epsilon": 1e-6, "norm_plus_one": True, "logit_cap": 50.0}
"""Fields of `BlockOptions` that all published VideoPrism models share."""
_TIME, _AUXILIARY = 1_000_033, 1_000_037  # for the draws of these stacks; those of the spatial one count frames from 0


class VideoPrismTower(ClipTower):
    """VideoPrism (Zhao et al. 2024, arXiv:2402.13217): a factorised encoder that keeps all T*N tokens of a clip.

    The spatial stack sees the N patches of one frame, the temporal stack the T tokens of one place (ViViT's factorised
    encoder without pooling between the stacks). The video-text models (LvT) add an auxiliary stack over all T*N tokens
    and an attention pooler. The defaults are the sizes of the public base encoder; `zoo.variants` lists the others.

    Clips may have any number of frames and any sides that `patch` divides: positions are interpolated as
    `jax.image.resize(method="bilinear")` does, with antialiasing where an axis shrinks.

    Args:
      image_size: side of the frames for whose grid the positions are, pixels.
      num_frames: frames T of a clip.
      position_frames: frames for which the positions in time are; None = `num_frames`.
      patch: patch side P, pixels; divides `image_size`.
      width: D.
      depth: spatial blocks.
      heads: attention heads K of all stacks and of the pooler.
      temporal_depth: temporal blocks.
      auxiliary_depth: blocks over all tokens, after the temporal ones; 0 = there are none.
      pool: how a clip's tokens become one: "mean", or "attention": one learned query, whose attention is `pool_width`
        wide and scales each channel by a learned factor, then a norm.
      pool_width: channels of that attention over all heads; None = 4 D.
      mlp_ratio: hidden width of the MLPs / D.
      activation: a name of `layers.activations`.
      dropout: rate on the residual branches.
      patch_dropout: share of the places that training drops, the same in all frames of a clip (FLIP, Li et al. 2023).
      block: further fields of `layers.options.BlockOptions`; they override `BLOCK`.
      pixel_mean: of R, G and B, scale 0..1, subtracted from the pixels; by default pixels stay 0..1.
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
        image_size: int = 288,
        num_frames: int = 16,
        position_frames: int | None = None,
        patch: int = 18,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        temporal_depth: int = 4,
        auxiliary_depth: int = 0,
        pool: str = "mean",
        pool_width: int | None = None,
        mlp_ratio: float = 4.0,
        activation: str = "gelu_exact",
        dropout: float = 0.0,
        patch_dropout: float = 0.0,
        block: Mapping[str, Any] | None = None,
        pixel_mean: Sequence[float] = (0.0, 0.0, 0.0),
        pixel_std: Sequence[float] = (1.0, 1.0, 1.0),
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        _check(image_size=image_size, patch=patch, pool=pool, patch_dropout=patch_dropout)
        self.patch, self.side, self.patch_dropout = patch, image_size // patch, patch_dropout
        self.width, self.dtype = width, compute_dtype(dtype)
        own = {"width": width, "heads": heads, "mlp_ratio": mlp_ratio, "activation": activation, "dropout": dropout}
        own |= {"remat": remat, "unroll": unroll, "dtype": self.dtype, "final_norm": True}
        fixed = {"causal": False, "rotary": "none", "cross_width": None}
        options = block_options(BLOCK | dict(block or {}), tower="video", **fixed, **own)
        pixels: dict[str, Any] = {"pixel_mean": pixel_mean, "pixel_std": pixel_std}
        kind = {"patch": patch, "tubelet": 1, "stem": 0, "width": width, "activation": activation}
        self.embed = PatchEmbedding(**kind, **pixels, dtype=self.dtype, rngs=rngs)
        self.space_position = position_embedding(self.side, self.side, width=width)
        self.time_position = position_embedding(position_frames or num_frames, width=width)
        self.space = Blocks(options, depth=depth, rngs=rngs)
        self.time = Blocks(options, depth=temporal_depth, rngs=rngs)
        unnormalised = dataclasses.replace(options, final_norm=False)
        self.auxiliary = Blocks(unnormalised, depth=auxiliary_depth, rngs=rngs) if auxiliary_depth else None
        self.pooler = _pooler(options, width=pool_width, rngs=rngs) if pool == "attention" else None

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        inputs, between = ("embed", "space_position"), ("space/norm", "time_position")
        return (*inputs, "space/layers", *between, "time/layers", "time/norm", "auxiliary/layers", "pooler")

    def spatial(
        self, video: Video, *, keys: RowKeys | None = None, drop_patches: bool = True
    ) -> tuple[Float[Array, "B T N D"], Int[Array, "B N"] | None]:
        """Encode each frame by itself, up to the norm after the spatial stack.

        Args:
          video: clips, uint8 RGB 0..255, of sides that `patch` divides.
          keys: one key for each clip; turns dropout and patch dropout on.
          drop_patches: False turns patch dropout off all the same (unmasked tuning).

        Returns:
          The tokens, N the patches of a frame that were kept, and their places (None if all were kept).

        Raises:
          UserError: another dtype or rank, or sides that do not divide.
        """
        rows, columns = self._grid(video)
        new, times = (rows, columns), video.shape[1]
        positions = _resized(self.space_position[...], old=(self.side, self.side), new=new)  # [N,D]
        x, kept = self.embed(video).astype(jnp.float32) + positions[None, None], None  # [B,T,N,D]
        if keys is not None and drop_patches and self.patch_dropout:
            kept = kept_tokens(keys, tokens=x.shape[2], rate=self.patch_dropout)  # [B,N]
            x = jnp.take_along_axis(x, kept[:, None, :, None], axis=2)
        x = rearrange(x.astype(self.dtype), "b t n d -> (b t) n d")
        x = self.space(named(x, "activation/video/tokens"), keys=fold_each(keys, times))
        return rearrange(x, "(b t) n d -> b t n d", t=times), kept

    def spatiotemporal(
        self, x: Float[Array, "B T N D"], *, mask: FrameMask | None = None, keys: RowKeys | None = None
    ) -> Float[Array, "B T N D"]:
        """Encode the T tokens of each place, from what `spatial` returns up to the norm after the temporal stack.

        Args:
          x: tokens of each frame.
          mask: True where a frame is real; the others are not seen. None = all are real.
          keys: one key for each clip; turns dropout on.
        """
        times, places = x.shape[1:3]
        positions = _resized(self.time_position[...], old=(self.time_position.shape[0],), new=(times,))  # [T,D]
        x = (x.astype(jnp.float32) + positions[None, :, None]).astype(self.dtype)
        x = named(rearrange(x, "b t n d -> (b n) t d"), "activation/video/tokens")
        seen = None if mask is None else repeat(mask, "b t -> (b n) t", n=places)
        x = self.time(x, mask=seen, keys=fold_each(fold(keys, _TIME), places))
        return rearrange(x, "(b n) t d -> b t n d", n=places)

    def position_resizers(self) -> dict[str, Callable[[Array], Array | None]]:
        """Return parameter -> function from positions of other sizes to those of this tower."""
        kind = {"method": "bilinear", "antialias": True}
        times = self.time_position.shape[0]
        return {
            "space_position": functools.partial(resize_square, side=self.side, **kind),
            "time_position": lambda table: resize_positions(table, old=(table.shape[0],), new=(times,), **kind),
        }

    def tokens(
        self,
        video: Video,
        *,
        mask: FrameMask | None = None,
        keys: RowKeys | None = None,
        drop_patches: bool = True,
    ) -> tuple[Float[Array, "B T N D"], Int[Array, "B T N"] | None]:
        """Encode clips into one token for each patch of each frame, each aware of all others.

        Args:
          video: clips, uint8 RGB 0..255, of sides that `patch` divides.
          mask: True where a frame is real; no stack sees the others, nor does the pooler. None = all are real.
            (DeepMind's code hides padding from the spatial and temporal stacks alone, so that its pooler sees it.)
          keys: one key for each clip; turns dropout and patch dropout on.
          drop_patches: False turns patch dropout off all the same (unmasked tuning).

        Returns:
          The tokens after the last stack, N the patches of a frame that were kept, and their places (None if all were
          kept).
        """
        x, kept = self.spatial(video, keys=keys, drop_patches=drop_patches)
        x = self.spatiotemporal(x, mask=mask, keys=keys)
        times, places = x.shape[1:3]
        if kept is not None:
            kept = repeat(kept, "b n -> b t n", t=times)
        if self.auxiliary is None:
            return x, kept
        seen = _token_mask(mask, places=places)
        x = self.auxiliary(rearrange(x, "b t n d -> b (t n) d"), mask=seen, keys=fold(keys, _AUXILIARY))
        return rearrange(x, "b (t n) d -> b t n d", t=times), kept

    def outputs(
        self,
        video: Video,
        *,
        mask: FrameMask | None = None,
        keys: RowKeys | None = None,
        drop_patches: bool = True,
    ) -> VideoOutputs:
        """Encode clips: pooled, the tokens of each frame and those of all real ones; for the arguments see `tokens`."""
        x, _ = self.tokens(video, mask=mask, keys=keys, drop_patches=drop_patches)
        return VideoOutputs(self._vector(x, mask=mask), self._steps(x), x)

    def _steps(self, x: Float[Array, "B T N D"]) -> FrameFeatures:
        if self.pooler is None:
            return jnp.mean(x.astype(jnp.float32), axis=2)
        pooled = self.pooler(rearrange(x, "b t n d -> (b t) n d"))[:, 0]
        return rearrange(pooled.astype(jnp.float32), "(b t) d -> b t d", t=x.shape[1])

    def _vector(self, x: Float[Array, "B T N D"], *, mask: FrameMask | None) -> Float[Array, "B D"]:
        mask = _token_mask(mask, places=x.shape[2])
        x = rearrange(x, "b t n d -> b (t n) d")
        return masked_mean(x, mask=mask) if self.pooler is None else self.pooler(x, mask=mask)[:, 0].astype(jnp.float32)

    def _grid(self, video: Video) -> tuple[int, int]:
        if video.ndim != 5 or video.shape[-1] != 3 or not are_pixels(video.dtype):
            raise UserError(
                f"video of dtype {video.dtype} and shape {video.shape}, the tower wants uint8 pixels 0..255 of shape "
                "[B,T,H,W,3]"
            )
        height, width = video.shape[2:4]
        if height % self.patch or width % self.patch:
            raise UserError(
                f"frames of {height} x {width} pixels, the tower wants sides that patch={self.patch} divides; change "
                "the size in config.data.*_video"
            )
        return height // self.patch, width // self.patch


def _resized(table: Float[Array, "N D"], *, old: Sequence[int], new: Sequence[int]) -> Float[Array, "M D"]:
    return resize_positions(table, old=old, new=new, method="bilinear", antialias=True)


def _token_mask(mask: FrameMask | None, *, places: int) -> Bool[Array, "B L"] | None:
    return None if mask is None else repeat(mask, "b t -> b (t n)", n=places)


def _pooler(options: BlockOptions, *, width: int | None, rngs: nnx.Rngs) -> AttentionPool:
    whole = 4 * options.width if width is None else width
    if whole % options.heads:
        raise UserError(f"config.model.video.pool_width={whole} must divide by heads={options.heads}")
    wide = dataclasses.replace(options, head_width=whole // options.heads, logit_cap=None)
    return AttentionPool(wide, per_dim_scale=True, norm_pooled=True, rngs=rngs)


def _check(*, image_size: int, patch: int, pool: str, patch_dropout: float) -> None:
    if image_size % patch:
        raise UserError(f"config.model.video.image_size={image_size} must be a multiple of patch={patch}")
    if pool not in POOLS:
        raise unknown("config.model.video.pool", pool, POOLS)
    if not 0 <= patch_dropout < 1:
        raise UserError(f"config.model.video.patch_dropout must be at least 0 and below 1, got {patch_dropout}")
