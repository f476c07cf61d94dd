"""The video tower: a spatial transformer on each frame, then a temporal one over frames."""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from ..configs.errors import UserError, unknown
from .layers import Blocks, compute_dtype, position_embedding
from .patches import PatchEmbedding
from .shapes import FrameFeatures, Video

POOLS = ("mean", "depthwise")


def depthwise_weights(places: int, *, width: int, rngs: nnx.Rngs) -> nnx.Param:
    """Build the weights `[N,D]` of depthwise pooling: the mean, and noise that keeps the variance of one token."""
    noise = jax.random.normal(rngs.params(), (places, width), jnp.float32)
    return nnx.Param(1 / places + noise / places**0.5)


class VideoTower(nnx.Module):
    """Factorised video encoder (ViViT "model 2", Arnab et al. 2021): space first, then time.

    A clip `[B,T,H,W,3]` is cut into tubelets of `tubelet` frames x `patch` x `patch` pixels. `depth` spatial blocks
    see the N tokens of one tubelet in time, which are pooled into that time's token; `temporal_depth` blocks see the
    T/tubelet time tokens, which is where the order of events is read.
    """

    def __init__(
        self,
        *,
        image_size: int,
        num_frames: int,
        patch: int = 16,
        stem: int = 0,
        tubelet: int = 1,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        temporal_depth: int = 4,
        pool: str = "mean",
        mlp_ratio: float = 4.0,
        activation: str = "gelu",
        dropout: float = 0.0,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Build the tower.

        Args:
          image_size: side H = W of the square frames, pixels.
          num_frames: frames T of a clip.
          patch: patch side P, pixels; divides `image_size`.
          stem: side of the cells, pixels, that `PatchEmbedding` embeds before the patch; divides `patch`; 0 = none.
          tubelet: frames per token; divides `num_frames`.
          width: D.
          depth: spatial blocks.
          heads: attention heads K of all blocks.
          temporal_depth: temporal blocks; 0 gives a mean over frames that cannot see order.
          pool: how a frame's N tokens become one: "mean", or "depthwise", a weight for each place and channel (global
            depthwise convolution, Chen et al. 2018, MobileFaceNets), which keeps where things are and so what moves.
          mlp_ratio: hidden width of the MLPs / D.
          activation: a name of `layers.ACTIVATIONS`.
          dropout: rate on the residual branches.
          dtype: compute dtype, float32 or bfloat16.
          rngs: where the initial values come from.

        Raises:
          UserError: sizes that do not divide.
        """
        if image_size % patch:
            raise UserError(f"config.model.video.image_size={image_size} must be a multiple of patch={patch}")
        if num_frames % tubelet:
            raise UserError(f"config.data.num_frames={num_frames} must be a multiple of model.video.tubelet={tubelet}")
        kind = compute_dtype(dtype)
        self.image_size, self.num_frames = image_size, num_frames
        self.width, self.dtype = width, kind
        block = {"heads": heads, "mlp_ratio": mlp_ratio, "activation": activation, "dropout": dropout, "dtype": kind}
        self.embed = PatchEmbedding(
            patch=patch, tubelet=tubelet, stem=stem, width=width, activation=activation, dtype=kind, rngs=rngs
        )
        self.space_position = position_embedding(image_size // patch, image_size // patch, width=width)
        self.time_position = position_embedding(num_frames // tubelet, width=width)
        self.space = Blocks(width, depth=depth, **block, rngs=rngs)
        places = (image_size // patch) ** 2
        if pool not in POOLS:
            raise unknown("config.model.video.pool", pool, POOLS)
        self.pool = depthwise_weights(places, width=width, rngs=rngs) if pool == "depthwise" else None
        self.time = Blocks(width, depth=temporal_depth, **block, rngs=rngs)

    def tokens(self, video: Video, *, rngs: nnx.Rngs | None = None) -> Float[Array, "B T N D"]:
        """Encode each tubelet in time by itself: T is `num_frames / tubelet`, N the patches of a frame."""
        self._check(video)
        x = rearrange(self.embed(video), "b t n d -> (b t) n d") + self.space_position[...].astype(self.dtype)[None]
        x = self.space(x, rngs=rngs)
        return rearrange(x, "(b t) n d -> b t n d", b=video.shape[0])

    def features(self, video: Video, *, rngs: nnx.Rngs | None = None) -> FrameFeatures:
        """Return one token per tubelet in time, each aware of all others: `[B, T/tubelet, D]`."""
        x = self.tokens(video, rngs=rngs)  # [B,T,N,D]
        x = (
            jnp.mean(x, axis=2)
            if self.pool is None
            else jnp.sum(x * self.pool[...].astype(x.dtype)[None, None], axis=2)
        )
        return self.time(x + self.time_position[...].astype(self.dtype)[None], rngs=rngs)

    def __call__(self, video: Video, *, rngs: nnx.Rngs | None = None) -> Float[Array, "B D"]:
        """Encode clips, uint8 RGB 0..255; the mean over time of `features`."""
        return jnp.mean(self.features(video, rngs=rngs), axis=1)

    def _check(self, video: Video) -> None:
        wanted = (self.num_frames, self.image_size, self.image_size, 3)
        if video.shape[1:] != wanted:
            raise UserError(
                f"video of shape [B,T,H,W,C]={video.shape}, the tower wants [B,{','.join(map(str, wanted))}]; "
                "make config.model.video.image_size, config.data.num_frames and the crop in config.data.*_video agree"
            )
        if video.dtype != jnp.uint8:
            raise UserError(f"video of dtype {video.dtype}, the tower wants uint8 pixels 0..255")
