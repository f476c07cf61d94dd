"""CLIP's residual networks on single pictures (Radford et al. 2021), image towers for `frames.FramesTower`."""

import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import UserError
from ..layers.attend import attend
from ..layers.conv import ConvNorm, mean_pool
from ..layers.dense import compute_dtype, linear
from ..layers.draws import RowKeys
from ..layers.names import named
from ..layers.patches import normalise_pixels, pixel_statistics
from ..layers.positions import position_embedding, resize_positions, resize_square
from .vit import Images, ImageTokens, check_pictures

_STRIDE = 32  # pixels of a place of the last feature maps
_EXPANSION = 4

Maps = Float[Array, "B H W C"]
"""Feature maps."""


class ClipResNetTower(nnx.Module):
    """CLIP's ResNet: a stem of three convolutions, mean pools instead of strides, attention pooling. RN50 by default.

    The mean of the last feature maps is the query, and one of the keys, of the attention pooling. Learned positions
    belong to pictures of `image_size` and are interpolated (bicubic, antialiased) to others. BatchNorm keeps the
    statistics of the pretrained network, see `layers.conv.FrozenBatchNorm`: the tower is made to start from public
    weights.

    Args:
      image_size: side of the pictures for whose feature maps the positions are, pixels; a multiple of 32.
      width: channels after the stem; the last stage has 32 times as many.
      depths: blocks of each of the four stages.
      heads: attention heads of the pooling; a divisor of 32 * `width`.
      projection: width E of the pooled vectors.
      pixel_mean: of R, G and B, scale 0..1, subtracted from the pixels.
      pixel_std: of R, G and B; divides them.
      remat: has no effect.
      unroll: has no effect.
      dtype: compute dtype, float32 or bfloat16.
      rngs: source of the initial values.

    Raises:
      UserError: sizes that do not divide, or an unknown name.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        width: int = 64,
        depths: Sequence[int] = (3, 4, 6, 3),
        heads: int = 32,
        projection: int = 1024,
        pixel_mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073),
        pixel_std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711),
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        del remat, unroll
        _check(image_size, width=width, depths=depths, heads=heads)
        self.pixel_mean, self.pixel_std = pixel_statistics(mean=pixel_mean, std=pixel_std)
        self.dtype, self.side = compute_dtype(dtype), image_size // _STRIDE
        self.tokens_width, self.width = _STRIDE * width, projection
        given = {"kernel": (3, 3), "dtype": self.dtype, "rngs": rngs}
        half = width // 2
        self.stem = nnx.List(
            [ConvNorm(3, half, stride=2, **given), ConvNorm(half, half, **given), ConvNorm(half, width, **given)]
        )
        widths, stages = [width, *(_EXPANSION * width * 2**stage for stage in range(len(depths)))], []
        for stage, (before, after) in enumerate(itertools.pairwise(widths)):
            own = {"dtype": self.dtype, "rngs": rngs}
            blocks = [PooledBlock(before, after, stride=2 if stage else 1, **own)]
            blocks += [PooledBlock(after, after, stride=1, **own) for _ in range(depths[stage] - 1)]
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.space_position = position_embedding(self.side, self.side, width=self.tokens_width)
        self.mean_position = nnx.Param(jnp.zeros((1, self.tokens_width), jnp.float32))
        self.pooler = MeanAttention(self.tokens_width, projection, heads=heads, dtype=self.dtype, rngs=rngs)

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        blocks = [f"stages/{stage}/{n}" for stage, blocks in enumerate(self.stages) for n in range(len(blocks))]
        return ("stem", *blocks, "space_position", "mean_position", "pooler")

    def position_resizers(self) -> dict[str, Callable[[Array], Array | None]]:
        """Return parameter -> function from positions of another picture size to those of this tower."""
        return {"space_position": functools.partial(resize_square, side=self.side, method="bicubic", antialias=True)}

    def tokens(self, images: Images, *, keys: RowKeys | None = None, drop_patches: bool = True) -> ImageTokens:
        """Return the places of the last feature maps with their positions, row by row, and their mean before them.

        Args:
          images: pictures, uint8 RGB 0..255, of at least 32 x 32 pixels; nothing is random.
          keys: not used.
          drop_patches: not used.

        Raises:
          UserError: pictures of another dtype, or too small ones.
        """
        del keys, drop_patches
        check_pictures(images)
        if min(images.shape[1:3]) < _STRIDE:
            raise UserError(f"pictures of {images.shape[1]} x {images.shape[2]} pixels, the tower wants sides of 32")
        x = normalise_pixels(images, mean=self.pixel_mean, std=self.pixel_std).astype(self.dtype)
        for layer in self.stem:
            x = layer(x)
        x = named(mean_pool(x, side=2), "activation/video/tokens")
        for blocks in self.stages:
            for block in blocks:
                x = named(block(x), "activation/video/tokens")
        old, new = (self.side, self.side), (x.shape[1], x.shape[2])
        positions = resize_positions(self.space_position[...], old=old, new=new, method="bicubic", antialias=old != new)
        x = rearrange(x, "b h w d -> b (h w) d").astype(jnp.float32)
        mean = jnp.mean(x, axis=1, keepdims=True) + self.mean_position[...][None]
        x = x + positions[None]
        return ImageTokens(patches=x.astype(self.dtype), leading=mean.astype(self.dtype), kept=None)

    def pooled(self, tokens: ImageTokens) -> Float[Array, "B D"]:
        """Return the vector of each picture from its tokens, float32."""
        return self.pooler(tokens.leading, tokens=jnp.concatenate([tokens.leading, tokens.patches], axis=1))[:, 0]

    def __call__(
        self, images: Images, *, keys: RowKeys | None = None, drop_patches: bool = True
    ) -> Float[Array, "B D"]:
        """Encode pictures, uint8 RGB 0..255, into float32 vectors."""
        return self.pooled(self.tokens(images, keys=keys, drop_patches=drop_patches))


class PooledBlock(nnx.Module):
    """A bottleneck of a residual network whose stride is a mean pool, on both branches."""

    def __init__(self, width_in: int, width: int, *, stride: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Build the block; a stride or another width gives the residual a convolution, too."""
        given, middle = {"dtype": dtype, "rngs": rngs}, width // _EXPANSION
        self.stride = stride
        self.first = ConvNorm(width_in, middle, kernel=(1, 1), **given)
        self.second = ConvNorm(middle, middle, kernel=(3, 3), **given)
        self.third = ConvNorm(middle, width, kernel=(1, 1), activation=None, **given)
        changes, last = stride > 1 or width_in != width, {"kernel": (1, 1), "activation": None}
        self.shortcut = ConvNorm(width_in, width, **last, **given) if changes else None

    def __call__(self, x: Maps) -> Maps:
        """Apply the block."""
        y = self.third(mean_pool(self.second(self.first(x)), side=self.stride))
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(mean_pool(x, side=self.stride))))


class MeanAttention(nnx.Module):
    """Multi-head attention of one query to tokens, whose output has another width."""

    def __init__(self, width: int, width_out: int, *, heads: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Build the layer."""
        self.heads = heads
        given = {"dtype": dtype, "rngs": rngs}
        self.query, self.key, self.value = (linear(width, width, **given) for _ in range(3))
        self.out = linear(width, width_out, **given)

    def __call__(self, query: Float[Array, "B 1 D"], *, tokens: Float[Array, "B L D"]) -> Float[Array, "B 1 E"]:
        """Attend to tokens; float32."""
        q, k, v = self.query(query), self.key(tokens), self.value(tokens)
        q, k, v = (rearrange(x, "b l (k d) -> b k l d", k=self.heads) for x in (q, k, v))
        return self.out(rearrange(attend(q, k, v), "b k l d -> b l (k d)")).astype(jnp.float32)


def _check(image_size: int, *, width: int, depths: Sequence[int], heads: int) -> None:
    if image_size % _STRIDE or image_size < _STRIDE:
        raise UserError(f"config.model.video.image.image_size={image_size} must be a multiple of {_STRIDE}")
    if len(depths) != 4 or min(depths) < 1 or width % 2:
        raise UserError(
            "config.model.video.image: depths must be four numbers of at least 1, and width even; got "
            f"depths={list(depths)}, width={width}"
        )
    if _STRIDE * width % heads:
        raise UserError(f"config.model.video.image.heads={heads} must be a divisor of {_STRIDE} * width={width}")
