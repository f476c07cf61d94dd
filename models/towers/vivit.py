"""The video tower: a spatial transformer on each frame, then a temporal one over frames."""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int

from ...base.errors import UserError, unknown
from ..layers.basics import compute_dtype, position_embedding
from ..layers.blocks import Blocks
from ..layers.draws import RowKeys, fold, fold_each, kept_tokens
from ..layers.names import named
from ..layers.patches import PatchEmbedding
from ..shapes import FrameFeatures, Video

POOLS = ("mean", "depthwise")
_TIME = 1_000_033  # the draws of the temporal blocks, beside those of the spatial ones, which count from 0


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
        patch_dropout: float = 0.0,
        remat: str = "none",
        unroll: int = 1,
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
          patch_dropout: share of each frame's patches that the spatial blocks do not see in training, drawn for each
            frame by itself (FLIP, Li et al. 2023); 0.5 about halves the cost of a step.
          remat: a policy of `models.layers.remat`.
          unroll: layers in one turn of the loop over them; 0 = all.
          dtype: compute dtype, float32 or bfloat16.
          rngs: where the initial values come from.

        Raises:
          UserError: sizes that do not divide, a share out of its range, or an unknown name.
        """
        _check_values(
            image_size=image_size,
            patch=patch,
            num_frames=num_frames,
            tubelet=tubelet,
            patch_dropout=patch_dropout,
            pool=pool,
        )
        kind = compute_dtype(dtype)
        self.image_size, self.num_frames = image_size, num_frames
        self.width, self.dtype, self.patch_dropout = width, kind, patch_dropout
        block = {"heads": heads, "mlp_ratio": mlp_ratio, "activation": activation, "dropout": dropout, "dtype": kind}
        block |= {"tower": "video", "remat": remat, "unroll": unroll}
        self.embed = PatchEmbedding(
            patch=patch, tubelet=tubelet, stem=stem, width=width, activation=activation, dtype=kind, rngs=rngs
        )
        self.space_position = position_embedding(image_size // patch, image_size // patch, width=width)
        self.time_position = position_embedding(num_frames // tubelet, width=width)
        self.space = Blocks(width, depth=depth, **block, rngs=rngs)
        places = (image_size // patch) ** 2
        self.pool = depthwise_weights(places, width=width, rngs=rngs) if pool == "depthwise" else None
        self.time = Blocks(width, depth=temporal_depth, **block, rngs=rngs)

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        inputs, pooled = ("embed", "space_position"), ("space/norm", "pool", "time_position")
        return (*inputs, "space/layers", *pooled, "time/layers", "time/norm")

    def tokens(
        self, video: Video, *, keys: RowKeys | None = None, drop_patches: bool = True
    ) -> tuple[Float[Array, "B T N D"], Int[Array, "B T N"] | None]:
        """Encode each tubelet in time by itself.

        Args:
          video: clips, uint8 RGB 0..255.
          keys: one key for each clip; turns dropout and patch dropout on.
          drop_patches: False leaves out patch dropout all the same (unmasked tuning).

        Returns:
          The tokens, T `num_frames / tubelet` and N the patches of a frame that were not dropped, and which patches
          these are (None where none is dropped).
        """
        self._check(video)
        x = rearrange(self.embed(video), "b t n d -> (b t) n d") + self.space_position[...].astype(self.dtype)[None]
        times = self.time_position.shape[0]
        keys, kept = fold_each(keys, times), None
        if keys is not None and drop_patches and self.patch_dropout:
            kept = kept_tokens(keys, tokens=x.shape[1], rate=self.patch_dropout)  # [B*T,N]
            x = jnp.take_along_axis(x, kept[:, :, None], axis=1)
            kept = rearrange(kept, "(b t) n -> b t n", t=times)
        x = self.space(named(x, "activation/video/tokens"), keys=keys)
        return rearrange(x, "(b t) n d -> b t n d", t=times), kept

    def features(self, video: Video, *, keys: RowKeys | None = None, drop_patches: bool = True) -> FrameFeatures:
        """Return one token per tubelet in time, each aware of all others: `[B, T/tubelet, D]`; see `tokens`."""
        x, kept = self.tokens(video, keys=keys, drop_patches=drop_patches)  # [B,T,N,D]
        x = self._pool(x, kept=kept) + self.time_position[...].astype(self.dtype)[None]
        return self.time(named(x, "activation/video/tokens"), keys=fold(keys, _TIME))

    def __call__(self, video: Video, *, keys: RowKeys | None = None, drop_patches: bool = True) -> Float[Array, "B D"]:
        """Encode clips, uint8 RGB 0..255; the mean over time of `features`."""
        return jnp.mean(self.features(video, keys=keys, drop_patches=drop_patches), axis=1)

    def _pool(self, x: Float[Array, "B T N D"], *, kept: Int[Array, "B T N"] | None) -> FrameFeatures:
        if self.pool is None:
            return jnp.mean(x, axis=2)
        weight = self.pool[...].astype(x.dtype)  # [N,D] of all places
        if kept is None:
            return jnp.sum(x * weight[None, None], axis=2)
        share = kept.shape[2] / weight.shape[0]  # the sum over fewer places keeps its expectation
        return jnp.sum(x * jnp.take(weight, kept, axis=0), axis=2) / jnp.asarray(share, x.dtype)

    def _check(self, video: Video) -> None:
        wanted = (self.num_frames, self.image_size, self.image_size, 3)
        if video.shape[1:] != wanted:
            raise UserError(
                f"video of shape [B,T,H,W,C]={video.shape}, the tower wants [B,{','.join(map(str, wanted))}]; "
                "make config.model.video.image_size, config.data.num_frames and the crop in config.data.*_video agree"
            )
        if video.dtype != jnp.uint8:
            raise UserError(f"video of dtype {video.dtype}, the tower wants uint8 pixels 0..255")


def _check_values(
    *, image_size: int, patch: int, num_frames: int, tubelet: int, patch_dropout: float, pool: str
) -> None:
    """Raise UserError for sizes that do not divide, a share out of its range or an unknown name."""
    if image_size % patch:
        raise UserError(f"config.model.video.image_size={image_size} must be a multiple of patch={patch}")
    if num_frames % tubelet:
        raise UserError(f"config.data.num_frames={num_frames} must be a multiple of model.video.tubelet={tubelet}")
    if not 0 <= patch_dropout < 1:
        raise UserError(f"config.model.video.patch_dropout must be at least 0 and below 1, got {patch_dropout}")
    if pool not in POOLS:
        raise unknown("config.model.video.pool", pool, POOLS)
