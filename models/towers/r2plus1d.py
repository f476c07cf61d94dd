"""R(2+1)D, residual networks whose 3-D convolutions are split into space and time (Tran et al. 2018)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from ...base.errors import UserError
from ..layers.conv import ConvNorm
from ..layers.dense import compute_dtype
from ..layers.names import named
from ..layers.patches import normalise_pixels, pixel_statistics
from ..shapes import Video
from .clip_positions import frame_sequence
from .video_maps import Maps, VideoMapsTower


class R2Plus1dTower(VideoMapsTower):
    """R(2+1)D on clips of any number of frames and any size; the mean over time and space. R(2+1)D-18 by default.

    Each stage after the first halves time and both sides, rounded up; the stem halves the sides. BatchNorm keeps the
    statistics of the pretrained network, see `layers.conv.FrozenBatchNorm`: the tower is made to start from public
    weights.

    Args:
      stem: channels of the first convolution, over space, and of the second, over time.
      widths: channels of each stage.
      depths: blocks of each stage.
      pixel_mean: of R, G and B, scale 0..1, subtracted from the pixels.
      pixel_std: of R, G and B; divides them.
      remat: has no effect.
      unroll: has no effect.
      dtype: compute dtype, float32 or bfloat16.
      rngs: source of the initial values.

    Raises:
      UserError: not as many depths as widths, or an unknown name.
    """

    def __init__(
        self,
        *,
        stem: Sequence[int] = (45, 64),
        widths: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 2, 2),
        pixel_mean: Sequence[float] = (0.43216, 0.394666, 0.37645),
        pixel_std: Sequence[float] = (0.22803, 0.22145, 0.216989),
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        del remat, unroll
        if len(stem) != 2 or not widths or len(widths) != len(depths) or min(depths) < 1:
            raise UserError(
                "config.model.video: stem must be two widths, and widths and depths one number of at least 1 for each "
                f"stage; got stem={list(stem)}, widths={list(widths)}, depths={list(depths)}"
            )
        self.pixel_mean, self.pixel_std = pixel_statistics(mean=pixel_mean, std=pixel_std)
        self.dtype, self.width = compute_dtype(dtype), widths[-1]
        given = {"dtype": self.dtype, "rngs": rngs}
        self.stem_space = ConvNorm(3, stem[0], kernel=(1, 7, 7), stride=(1, 2, 2), **given)
        self.stem_time = ConvNorm(stem[0], stem[1], kernel=(3, 1, 1), **given)
        width_in, stages = stem[1], []
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            blocks = []
            for number in range(depth):
                stride = 2 if stage and not number else 1
                blocks.append(R2Plus1dBlock(width_in, width, stride=stride, **given))
                width_in = width
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        blocks = [f"stages/{stage}/{n}" for stage, blocks in enumerate(self.stages) for n in range(len(blocks))]
        return ("stem_space", "stem_time", *blocks)

    def _maps(self, video: Video) -> Maps:
        video = frame_sequence(video, patch=1)
        x = normalise_pixels(video, mean=self.pixel_mean, std=self.pixel_std).astype(self.dtype)
        x = named(self.stem_time(self.stem_space(x)), "activation/video/tokens")
        for blocks in self.stages:
            for block in blocks:
                x = named(block(x), "activation/video/tokens")
        return x


class R2Plus1dBlock(nnx.Module):
    """Two factorised convolutions on a residual branch (Tran et al. 2018, section 3.5)."""

    def __init__(self, width_in: int, width: int, *, stride: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Build the block; a stride or another width gives the residual a convolution, too."""
        given = {"dtype": dtype, "rngs": rngs}
        middle = 27 * width_in * width // (9 * width_in + 3 * width)  # as many weights as 3 x 3 x 3 would have
        over_space = {"kernel": (1, 3, 3), **given}
        over_time = {"kernel": (3, 1, 1), **given}
        self.space1 = ConvNorm(width_in, middle, stride=(1, stride, stride), **over_space)
        self.time1 = ConvNorm(middle, width, stride=(stride, 1, 1), **over_time)
        self.space2 = ConvNorm(width, middle, **over_space)
        self.time2 = ConvNorm(middle, width, activation=None, **over_time)
        changes = stride > 1 or width_in != width
        kind = {"kernel": (1, 1, 1), "stride": stride, "activation": None}
        self.shortcut = ConvNorm(width_in, width, **kind, **given) if changes else None

    def __call__(self, x: Maps) -> Maps:
        """Apply the block."""
        y = self.time2(self.space2(self.time1(self.space1(x))))
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))
