"""Video towers in which all tokens of a clip see each other: ViViT "model 1", VideoMAE, ViCLIP, InternVideo2."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from ...base.errors import UserError, unknown
from ..layers.blocks import Blocks
from ..layers.dense import compute_dtype
from ..layers.draws import RowKeys, fold, fold_each, kept_tokens
from ..layers.mean_query import MeanQueryPool
from ..layers.names import named
from ..layers.norm import LayerNorm
from ..layers.options import block_options
from ..layers.patches import PatchEmbedding, PatchLayout
from ..layers.pooling import masked_mean
from ..layers.positions import resize_square, sinusoids
from ..shapes import FrameFeatures, FrameMask, Video
from .clip_positions import (
    TIME_METHODS,
    check_sizes,
    frame_sequence,
    joint_positions,
    separate_positions,
    time_positions,
)
from .outputs import ClipTower, VideoOutputs

POOLS = ("cls", "mean", "first", "attention")
"""How the tokens of a clip become one vector."""
POSITIONS = ("separate", "joint", "sinusoids")
"""Tables of positions: one for space and one for time, one for both, or fixed sinusoids along all tokens."""
_BLOCKS = 1_000_033  # for the draws of the blocks; those of patch dropout count time steps from 0


class ClipTokens(NamedTuple):
    """The tokens of clips.

    Attributes:
      patches: `[B,T,N,D]` after the last norm; T time steps, N kept patches of each.
      leading: `[B,M,D]`, the class token (M = 1), or nothing (M = 0).
      kept: int32 `[B,T,N]`, places of the patches that patch dropout kept; None = all.
      times: bool `[B,T]`, True = a real time step; None = all are.
      seen: bool `[B,M+T*N]`, which of all tokens are real; None = all are.
    """

    patches: Float[Array, "B T N D"]
    leading: Float[Array, "B M D"]
    kept: Int[Array, "B T N"] | None
    times: Bool[Array, "B T"] | None = None
    seen: Bool[Array, "B L"] | None = None


class JointTower(ClipTower):
    """Video transformer with joint space-time attention (ViViT "model 1", Arnab et al. 2021).

    A clip is cut into tubelets of `tubelet` frames x `patch` x `patch` pixels; all T/tubelet x N tokens see each other
    in every block. The number of frames and their size may differ from those of the tables: positions in space are
    interpolated (bicubic, without antialiasing), those in time as `time_method` states, and a clip of a single time
    step gets the mean of the positions over time. A picture is a clip of one frame, repeated to fill its tubelet.

    The options cover ViCLIP (Wang et al. 2024, arXiv:2307.06942), InternVideo2 (arXiv:2403.15377), VideoMAE (Tong et
    al. 2022) and ViViT. Where positions are separate, the order of tokens has no effect on any output.

    Args:
      image_size: side of the frames for whose grid the positions are, pixels.
      num_frames: frames T of a clip, for which positions in time are.
      patch: patch side P, pixels; divides `image_size`.
      tubelet: frames per token; divides `num_frames`.
      patch_bias: the embedding of tubelets has a bias (ViCLIP has none).
      width: D.
      depth: blocks.
      heads: attention heads K.
      mlp_ratio: hidden width of the MLPs / D.
      activation: a name of `layers.activations`.
      class_token: a learned token, which carries its own position, precedes the patches.
      pre_norm: a norm precedes the blocks (CLIP, Radford et al. 2021).
      position: "separate", a learned position for each place plus one for each time step (ViCLIP); "joint", one for
        each place at each time (InternVideo2, ViViT); "sinusoids", fixed ones along the sequence of all tokens
        (VideoMAE), computed anew for other sizes.
      time_method: how learned positions reach other numbers of time steps: "linear" interpolation (InternVideo2), or
        "cut", the first ones, with zeros after the last (ViCLIP).
      pool: "cls", the class token; "mean" of the patches; "first", the first patch (VideoMAE as pretrained);
        "attention", the mean of all tokens as the query (InternVideo2).
      pool_norm: epsilon of a LayerNorm on the pooled vector; None = there is none.
      pool_heads: attention heads of the pool "attention"; None = `heads`.
      pool_width: width of its result; None = D.
      dropout: rate on the residual branches.
      patch_dropout: share of each time step's patches that the blocks do not see in training, drawn for each time step
        by itself (FLIP, Li et al. 2023).
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
        tubelet: int = 1,
        patch_bias: bool = True,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        activation: str = "gelu",
        class_token: bool = True,
        pre_norm: bool = False,
        position: str = "separate",
        time_method: str = "linear",
        pool: str = "cls",
        pool_norm: float | None = None,
        pool_heads: int | None = None,
        pool_width: int | None = None,
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
        check_sizes(image_size=image_size, patch=patch, num_frames=num_frames, tubelet=tubelet, dropped=patch_dropout)
        _check_names(position=position, time_method=time_method, pool=pool, class_token=class_token)
        if pool_width and pool != "attention":
            raise UserError(f"config.model.video.pool_width={pool_width} needs pool='attention', got pool={pool!r}")
        self.patch, self.tubelet, self.side, self.times = patch, tubelet, image_size // patch, num_frames // tubelet
        self.pool, self.time_method, self.patch_dropout = pool, time_method, patch_dropout
        self.dtype, self.tokens_width = compute_dtype(dtype), width
        own = {"width": width, "heads": heads, "mlp_ratio": mlp_ratio, "activation": activation, "dropout": dropout}
        own |= {"remat": remat, "unroll": unroll, "dtype": self.dtype}
        options = block_options(block, tower="video", causal=False, rotary="none", cross_width=None, **own)
        pixels = {"pixel_mean": pixel_mean, "pixel_std": pixel_std, "bias": patch_bias}
        kind = {"patch": patch, "tubelet": tubelet, "stem": 0, "width": width, "activation": activation}
        self.embed = PatchEmbedding(**kind, **pixels, dtype=self.dtype, rngs=rngs)
        self.class_token = _token(width, rngs=rngs) if class_token else None
        space, time = sinusoids(self.side, self.side, width=width), sinusoids(self.times, width=width)
        both = rearrange(time[:, None] + space[None], "t n d -> (t n) d") if position == "joint" else None
        self.position = None if both is None else _table(both)
        self.space_position = _table(space) if position == "separate" else None
        self.time_position = _table(time) if position == "separate" else None
        self.pre_norm = options.make_norm(rngs=rngs) if pre_norm else None
        self.blocks = Blocks(options, depth=depth, rngs=rngs)
        self.width = pool_width or width
        sizes = {"width": width, "heads": pool_heads or heads, "out_width": self.width, "dtype": self.dtype}
        self.pooler = MeanQueryPool(**sizes, rngs=rngs) if pool == "attention" else None
        normed = {"dtype": jnp.float32, "epsilon": pool_norm, "rngs": rngs}
        self.pool_norm = None if pool_norm is None else LayerNorm(self.width, **normed)

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        positions = ("position", "space_position", "time_position")
        return ("embed", "class_token", *positions, "pre_norm", "blocks/layers", "blocks/norm", "pooler", "pool_norm")

    def position_resizers(self) -> dict[str, Callable[[Array], Array | None]]:
        """Return parameter -> function from positions of other sizes to those of this tower."""
        return {
            "position": self._resized_joint,
            "space_position": functools.partial(resize_square, side=self.side, method="bicubic"),
            "time_position": functools.partial(time_positions, times=self.times, method=self.time_method),
        }

    def _resized_joint(self, table: Float[Array, "M D"]) -> Float[Array, "L D"] | None:
        """Resize joint positions of as many time steps or as many places as this tower has; None for any others."""
        rows, places = table.shape[0], self.side * self.side
        old_side = math.isqrt(rows // self.times)
        if old_side and self.times * old_side * old_side == rows:
            old = (self.times, old_side, old_side)
        elif rows % places == 0:
            old = (rows // places, self.side, self.side)
        else:
            return None
        new = (self.times, self.side, self.side)
        return rearrange(joint_positions(table, old=old, new=new, time_method=self.time_method), "t n d -> (t n) d")

    def tokens(
        self, video: Video, *, mask: FrameMask | None = None, keys: RowKeys | None = None, drop_patches: bool = True
    ) -> tuple[Float[Array, "B T N D"], Int[Array, "B T N"] | None]:
        """Encode the tokens of all time steps, each aware of all others; for the arguments see `outputs`.

        Returns:
          The tokens of the patches that were kept, T the number of tubelets in time, and their places (None if all were
          kept).
        """
        x = self.all_tokens(video, mask=mask, keys=keys, drop_patches=drop_patches)
        return x.patches, x.kept

    @property
    def patch_layout(self) -> PatchLayout:
        """What `visible_patches` takes."""
        return PatchLayout(self.patch, self.tubelet, self.tokens_width)

    def visible_patches(
        self, video: Video, *, kept: Int[Array, "B n"], mask: FrameMask | None = None, keys: RowKeys | None = None
    ) -> Float[Array, "B T n D"]:
        """Encode the patches at the places `kept` of every time step, which see only each other (VideoMAE)."""
        return self.all_tokens(video, mask=mask, keys=keys, kept=kept).patches

    def all_tokens(
        self,
        video: Video,
        *,
        mask: FrameMask | None = None,
        keys: RowKeys | None = None,
        drop_patches: bool = True,
        kept: Int[Array, "B n"] | None = None,
    ) -> ClipTokens:
        """Encode the tokens of clips, the class token among them; for the other arguments see `outputs`.

        Args:
          video: clips.
          mask: True where a frame is real.
          keys: one key for each clip.
          drop_patches: let patch dropout act.
          kept: places of the patches to encode, the same at each time step; None = as patch dropout draws them.
        """
        video = frame_sequence(video, patch=self.patch, tubelet=self.tubelet)
        x = self.embed(video).astype(jnp.float32)  # [B,T,N,D]
        times, places = x.shape[1:3]
        x = x + self._positions(times, video.shape[2] // self.patch, video.shape[3] // self.patch)[None]
        drawn = None if kept is None else repeat(kept, "b n -> b t n", t=times)
        if drawn is None and keys is not None and drop_patches and self.patch_dropout:
            each = fold_each(keys, times)
            assert each is not None
            drawn = kept_tokens(each, tokens=places, rate=self.patch_dropout)
            drawn = rearrange(drawn, "(b t) n -> b t n", t=times)
        if drawn is not None:
            x = jnp.take_along_axis(x, drawn[..., None], axis=2)
        x, leading = rearrange(x, "b t n d -> b (t n) d"), 0
        if self.class_token is not None:
            token = jnp.broadcast_to(self.class_token[...][None], (x.shape[0], 1, x.shape[2]))
            x, leading = jnp.concatenate([token, x], axis=1), 1
        x = named(x.astype(self.dtype), "activation/video/tokens")
        real = None if mask is None else mask[:, :: video.shape[1] // times]
        seen = None if real is None else repeat(real, "b t -> b (t n)", n=(x.shape[1] - leading) // times)
        seen = None if seen is None else jnp.pad(seen, ((0, 0), (leading, 0)), constant_values=True)
        x = self.blocks(x if self.pre_norm is None else self.pre_norm(x), mask=seen, keys=fold(keys, _BLOCKS))
        patches = rearrange(x[:, leading:], "b (t n) d -> b t n d", t=times)
        return ClipTokens(patches=patches, leading=x[:, :leading], kept=drawn, times=real, seen=seen)

    def outputs(
        self, video: Video, *, mask: FrameMask | None = None, keys: RowKeys | None = None, drop_patches: bool = True
    ) -> VideoOutputs:
        """Encode clips: a vector of each of T/tubelet time steps, aware of all others, and one of the clip.

        The patches of a step are pooled by their mean, or by the attention.

        Args:
          video: clips, uint8 RGB 0..255; `tubelet` divides T unless it is 1, `patch` divides H and W.
          mask: bool `[B,T]`, True where a frame is real; a tubelet is real if its first frame is. None = all are.
          keys: one key for each clip; turns dropout and patch dropout on.
          drop_patches: False turns patch dropout off all the same (unmasked tuning).

        Raises:
          UserError: clips of another dtype, or sizes that do not divide.
        """
        x = self.all_tokens(video, mask=mask, keys=keys, drop_patches=drop_patches)
        return VideoOutputs(self._vector(x), self._steps(x.patches), x.patches)

    def _steps(self, x: Float[Array, "B T N D"]) -> FrameFeatures:
        if self.pooler is None:
            return self._normed(jnp.mean(x.astype(jnp.float32), axis=2))
        pooled = self.pooler(rearrange(x, "b t n d -> (b t) n d"))
        return self._normed(rearrange(pooled, "(b t) d -> b t d", t=x.shape[1]))

    def _vector(self, x: ClipTokens) -> Float[Array, "B D"]:
        if self.pool == "cls":
            return self._normed(x.leading[:, 0])
        if self.pool == "first":
            return self._normed(x.patches[:, 0, 0])
        if self.pooler is None:
            return self._normed(masked_mean(jnp.mean(x.patches.astype(jnp.float32), axis=2), mask=x.times))
        both = jnp.concatenate([x.leading, rearrange(x.patches, "b t n d -> b (t n) d")], axis=1)
        return self._normed(self.pooler(both, mask=x.seen))

    def _normed(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        x = x.astype(jnp.float32)
        return x if self.pool_norm is None else self.pool_norm(x)

    def _positions(self, times: int, rows: int, columns: int) -> Float[Array, "T N D"]:
        new, old = (times, rows, columns), (self.times, self.side, self.side)
        if self.position is not None:
            return joint_positions(self.position[...], old=old, new=new, time_method=self.time_method)
        if self.space_position is None or self.time_position is None:
            fixed = sinusoids(times * rows * columns, width=self.tokens_width, interleaved=True)
            return jnp.asarray(rearrange(fixed, "(t n) d -> t n d", t=times), jnp.float32)
        space, time = self.space_position[...], self.time_position[...]
        return separate_positions(space, time, new=new, time_method=self.time_method)


def _check_names(*, position: str, time_method: str, pool: str, class_token: bool) -> None:
    for field, value, known in (
        ("position", position, POSITIONS),
        ("time_method", time_method, TIME_METHODS),
        ("pool", pool, POOLS),
    ):
        if value not in known:
            raise unknown(f"config.model.video.{field}", value, known)
    if pool == "cls" and not class_token:
        raise UserError("config.model.video.pool='cls' needs class_token=True")


def _token(width: int, *, rngs: nnx.Rngs) -> nnx.Param:
    return nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, width), jnp.float32))


def _table(values: Any) -> nnx.Param:
    return nnx.Param(jnp.asarray(values, jnp.float32))
