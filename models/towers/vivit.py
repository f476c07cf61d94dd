"""The video tower: a spatial transformer on each frame, then a temporal one over frames."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from ...base.errors import UserError, unknown
from ..layers.blocks import Blocks
from ..layers.capture import are_pixels
from ..layers.conv_stem import ConvStem, stride_of
from ..layers.dense import compute_dtype, linear
from ..layers.draws import RowKeys, fold, fold_each, kept_tokens
from ..layers.names import named
from ..layers.options import block_options
from ..layers.patches import PatchEmbedding, PatchLayout
from ..layers.pooling import masked_mean
from ..layers.positions import position_embedding, resize_square, resize_time_map, resize_times
from ..shapes import FrameFeatures, FrameMask, Video
from .outputs import ClipTower, VideoOutputs

POOLS = ("mean", "depthwise")
TIME_POOLS = ("mean", "linear")
_TIME = 1_000_033  # for the draws of the temporal blocks; those of the spatial blocks count frames from 0


class VideoTower(ClipTower):
    """Factorised video encoder (ViViT "model 2", Arnab et al. 2021): space first, then time.

    A clip `[B,T,H,W,3]` is cut into tubelets of `tubelet` frames x `patch` x `patch` pixels. `depth` spatial blocks
    see the N tokens of one time step, which are pooled into that step's token; `temporal_depth` blocks see the
    T/tubelet time tokens and so the order of events.

    Args:
      image_size: side H = W of the square frames, pixels.
      num_frames: frames T of a clip.
      patch: patch side P, pixels; divides `image_size`.
      stem: side of the cells, pixels, that `PatchEmbedding` embeds before the patch; divides `patch`; 0 = none.
      gradients: orientations of the histograms of oriented gradients that, with the mean colour, describe a cell of
        `stem` pixels in place of a learned map; 0 = none.
      conv: (kernel, stride, channels) of early convolutions that stand in place of the patch embedding (`ConvStem`);
        `patch` is the product of their strides, and there is neither `stem` nor `gradients`; () = none.
      tubelet: frames per token; divides `num_frames`.
      width: D.
      depth: spatial blocks.
      heads: attention heads K of all blocks.
      temporal_depth: temporal blocks; with 0 the clip is a mean over frames, without their order.
      pool: how a frame's N tokens become one: "mean", or "depthwise", a learned weight for each place and channel
        (global depthwise convolution, Chen et al. 2018, MobileFaceNets), which keeps where things are.
      time_pool: how the T/tubelet time tokens become the clip's vector: "mean", or "linear", a linear map of all of
        them side by side, which keeps when things happen.
      mlp_ratio: hidden width of the MLPs / D.
      activation: a name of `layers.activations`.
      dropout: rate on the residual branches.
      patch_dropout: share of each frame's patches that the spatial blocks do not see in training, drawn for each frame
        by itself (FLIP, Li et al. 2023); 0.5 about halves the cost of a step.
      block: further fields of `layers.options.BlockOptions` for all blocks, such as `{"layer_scale": 1e-5}`.
      pixel_mean: of R, G and B, scale 0..1, subtracted from the pixels.
      pixel_std: of R, G and B; divides them. By default pixels become -1..1.
      remat: what the backward pass recomputes, a policy of `layers.remat`.
      unroll: layers in one iteration of the loop over them; 0 = all.
      dtype: compute dtype, float32 or bfloat16.
      rngs: source of the initial values.

    Raises:
      UserError: sizes that do not divide, a value out of its range, or an unknown name.
    """

    mean_of_features: bool
    """Whether the vector of a clip is the mean of its `features`."""

    def __init__(
        self,
        *,
        image_size: int,
        num_frames: int,
        patch: int = 16,
        stem: int = 0,
        gradients: int = 0,
        conv: Sequence[Sequence[int]] = (),
        tubelet: int = 1,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        temporal_depth: int = 4,
        pool: str = "mean",
        time_pool: str = "mean",
        mlp_ratio: float = 4.0,
        activation: str = "gelu",
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
        _check_sizes(image_size=image_size, patch=patch, num_frames=num_frames, tubelet=tubelet)
        _check_values(patch_dropout=patch_dropout, pool=pool, time_pool=time_pool)
        self.image_size, self.num_frames = image_size, num_frames
        self.width, self.dtype, self.patch_dropout = width, compute_dtype(dtype), patch_dropout
        own = {"width": width, "heads": heads, "mlp_ratio": mlp_ratio, "activation": activation, "dropout": dropout}
        own |= {"remat": remat, "unroll": unroll, "dtype": self.dtype}
        options = block_options(block, tower="video", causal=False, rotary="none", cross_width=None, **own)
        self.embed = _embedding(
            conv,
            patch=patch,
            stem=stem,
            gradients=gradients,
            tubelet=tubelet,
            width=width,
            activation=activation,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            dtype=self.dtype,
            rngs=rngs,
        )
        side = image_size // patch
        self.space_position = position_embedding(side, side, width=width)
        self.time_position = position_embedding(num_frames // tubelet, width=width)
        self.space = Blocks(options, depth=depth, rngs=rngs)
        self.pool = depthwise_weights(side * side, width=width, rngs=rngs) if pool == "depthwise" else None
        self.time = Blocks(options, depth=temporal_depth, rngs=rngs)
        self.mean_of_features = time_pool == "mean"
        times = num_frames // tubelet * width
        self.time_join = None if self.mean_of_features else linear(times, width, dtype=jnp.float32, rngs=rngs)

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        inputs, pooled = ("embed", "space_position"), ("space/norm", "pool", "time_position")
        return (*inputs, "space/layers", *pooled, "time/layers", "time/norm", "time_join")

    def position_resizers(self) -> dict[str, Callable[[Array], Array | None]]:
        """Return parameter -> function from positions, or weights over time, of other sizes to those of this tower."""
        times, side = self.time_position.shape[0], math.isqrt(self.space_position.shape[0])
        found: dict[str, Callable[[Array], Array | None]] = {
            "space_position": functools.partial(resize_square, side=side),
            "time_position": functools.partial(resize_times, times=times),
        }
        return (
            found
            if self.mean_of_features
            else found | {"time_join/kernel": functools.partial(resize_time_map, times=times)}
        )

    @property
    def patch_layout(self) -> PatchLayout | None:
        """What `visible_patches` takes; None of a tower whose convolutions see beyond a patch."""
        embed = self.embed
        return PatchLayout(embed.patch, embed.tubelet, self.width) if isinstance(embed, PatchEmbedding) else None

    def visible_patches(
        self, video: Video, *, kept: Int[Array, "B n"], mask: FrameMask | None = None, keys: RowKeys | None = None
    ) -> Float[Array, "B T n D"]:
        """Encode the patches at the places `kept` of every time step, which see only each other, in their time step."""
        return self.tokens(video, mask=mask, keys=keys, kept=kept)[0]

    def tokens(
        self,
        video: Video,
        *,
        mask: FrameMask | None = None,
        keys: RowKeys | None = None,
        drop_patches: bool = True,
        kept: Int[Array, "B n"] | None = None,
    ) -> tuple[Float[Array, "B T N D"], Int[Array, "B T N"] | None]:
        """Encode the tokens of each time step by themselves.

        Args:
          video: clips, uint8 RGB 0..255.
          mask: not used: time steps do not see each other.
          keys: one key for each clip; turns dropout and patch dropout on.
          drop_patches: False turns patch dropout off all the same (unmasked tuning).
          kept: places of the patches to encode, the same at each time step; None = as patch dropout draws them.

        Returns:
          The tokens, T `num_frames / tubelet` and N the patches of a frame that were kept, and the places of these
          patches (None if all were kept).
        """
        del mask
        self._check(video)
        x = _add_positions(self.embed(video), self.space_position[...][None, None])
        x = rearrange(x, "b t n d -> (b t) n d")
        times = self.time_position.shape[0]
        keys, drawn = fold_each(keys, times), None if kept is None else repeat(kept, "b n -> (b t) n", t=times)
        if drawn is None and keys is not None and drop_patches and self.patch_dropout:
            drawn = kept_tokens(keys, tokens=x.shape[1], rate=self.patch_dropout)  # [B*T,N]
        if drawn is not None:
            x = jnp.take_along_axis(x, drawn[:, :, None], axis=1)
            drawn = rearrange(drawn, "(b t) n -> b t n", t=times)
        x = self.space(named(x, "activation/video/tokens"), keys=keys)
        return rearrange(x, "(b t) n d -> b t n d", t=times), drawn

    def outputs(
        self, video: Video, *, mask: FrameMask | None = None, keys: RowKeys | None = None, drop_patches: bool = True
    ) -> VideoOutputs:
        """Encode clips: a token of each of T/tubelet time steps, aware of all real ones, and those pooled.

        Args:
          video: clips, uint8 RGB 0..255.
          mask: bool `[B,T]`, True where a frame is real; a tubelet is real if its first frame is. None = all are.
          keys: one key for each clip; turns dropout and patch dropout on.
          drop_patches: False turns patch dropout off all the same (unmasked tuning).
        """
        patches, kept = self.tokens(video, keys=keys, drop_patches=drop_patches)  # [B,T,N,D]
        x = _add_positions(self._pool(patches, kept=kept), self.time_position[...][None]).astype(self.dtype)
        x = self.time(named(x, "activation/video/tokens"), mask=self._times(mask), keys=fold(keys, _TIME))
        return VideoOutputs(self._vector(x, real=self._times(mask)), x, patches)

    def _vector(self, x: FrameFeatures, *, real: Bool[Array, "B t"] | None) -> Float[Array, "B D"]:
        if self.time_join is None:
            return masked_mean(x, mask=real)
        x = x.astype(jnp.float32)
        x = x if real is None else jnp.where(real[..., None], x, jnp.float32(0))
        return self.time_join(rearrange(x, "b t d -> b (t d)"))

    def _times(self, mask: FrameMask | None) -> Bool[Array, "B t"] | None:
        return None if mask is None else mask[:, :: self.num_frames // self.time_position.shape[0]]

    def _pool(self, x: Float[Array, "B T N D"], *, kept: Int[Array, "B T N"] | None) -> FrameFeatures:
        """Pool the tokens of each time step, in float32."""
        x = x.astype(jnp.float32)
        if self.pool is None:
            return jnp.mean(x, axis=2)
        weight = self.pool[...]  # [N,D] of all places
        if kept is None:
            return jnp.sum(x * weight[None, None], axis=2)
        share = kept.shape[2] / weight.shape[0]  # the sum over fewer places keeps its expectation
        return jnp.sum(x * jnp.take(weight, kept, axis=0), axis=2) / jnp.float32(share)

    def _check(self, video: Video) -> None:
        wanted = (self.num_frames, self.image_size, self.image_size, 3)
        if video.shape[1:] != wanted:
            raise UserError(
                f"video of shape [B,T,H,W,C]={video.shape}, the tower wants [B,{','.join(map(str, wanted))}]; "
                "make config.model.video.image_size, config.data.num_frames and the crop in config.data.*_video agree"
            )
        if not are_pixels(video.dtype):
            raise UserError(f"video of dtype {video.dtype}, the tower wants uint8 pixels 0..255")


def _embedding(
    conv: Sequence[Sequence[int]], *, patch: int, stem: int, gradients: int, **options: Any
) -> PatchEmbedding | ConvStem:
    if not conv:
        return PatchEmbedding(patch=patch, stem=stem, gradients=gradients, **options)
    made = ConvStem(conv, **options)
    if stem or gradients or stride_of(made.convolutions) != patch:
        raise UserError(
            f"config.model.video.conv={conv!r} steps by {stride_of(made.convolutions)} pixels in all; set patch to "
            f"that, and stem and gradients to 0, got patch={patch}, stem={stem} and gradients={gradients}"
        )
    return made


def depthwise_weights(places: int, *, width: int, rngs: nnx.Rngs) -> nnx.Param:
    """Build the weights `[N,D]` of depthwise pooling: the mean, and noise that keeps the variance of one token."""
    noise = jax.random.normal(rngs.params(), (places, width), jnp.float32)
    return nnx.Param(1 / places + noise / places**0.5)


def _add_positions(x: Array, positions: Array) -> Array:
    """Add in float32 and round once, to the dtype of `x`."""
    return (x.astype(jnp.float32) + positions).astype(x.dtype)


def _check_sizes(*, image_size: int, patch: int, num_frames: int, tubelet: int) -> None:
    if image_size % patch:
        raise UserError(f"config.model.video.image_size={image_size} must be a multiple of patch={patch}")
    if num_frames % tubelet:
        raise UserError(f"config.data.num_frames={num_frames} must be a multiple of model.video.tubelet={tubelet}")


def _check_values(*, patch_dropout: float, pool: str, time_pool: str) -> None:
    if not 0 <= patch_dropout < 1:
        raise UserError(f"config.model.video.patch_dropout must be at least 0 and below 1, got {patch_dropout}")
    if pool not in POOLS:
        raise unknown("config.model.video.pool", pool, POOLS)
    if time_pool not in TIME_POOLS:
        raise unknown("config.model.video.time_pool", time_pool, TIME_POOLS)
