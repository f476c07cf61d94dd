"""Input of the towers that see space and time at once: checked frames, positions for any number and size of them."""

from collections.abc import Sequence

import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from ...base.errors import UserError
from ..layers.capture import are_pixels
from ..layers.positions import resize_positions
from ..shapes import Video

TIME_METHODS = ("linear", "cut", "first", "nearest")
"""How positions reach another number of time steps: interpolated; the first ones with zeros after the last, where a
single step gets the mean ("cut") or the first ("first"); nearest."""


def check_sizes(*, image_size: int, patch: int, num_frames: int, tubelet: int, dropped: float) -> None:
    """Raise UserError for sizes of a video tower that do not divide, or a share of dropped patches out of its range."""
    if image_size % patch:
        raise UserError(f"config.model.video.image_size={image_size} must be a multiple of patch={patch}")
    if num_frames < tubelet or num_frames % tubelet:
        raise UserError(f"config.data.num_frames={num_frames} must be a multiple of model.video.tubelet={tubelet}")
    if not 0 <= dropped < 1:
        raise UserError(f"config.model.video.patch_dropout must be at least 0 and below 1, got {dropped}")


def frame_sequence(video: Video, *, patch: int, tubelet: int = 1) -> Video:
    """Check clips and return them; a single frame is repeated until it fills a tubelet.

    Args:
      video: clips, uint8 RGB 0..255.
      patch: must divide their sides.
      tubelet: must divide the number of frames, unless that is 1.

    Raises:
      UserError: clips of another shape or dtype, or sizes that do not divide.
    """
    if video.ndim != 5 or video.shape[4] != 3:
        raise UserError(f"video of shape {video.shape}, the tower wants [B,T,H,W,3]")
    if not are_pixels(video.dtype):
        raise UserError(f"video of dtype {video.dtype}, the tower wants uint8 pixels 0..255")
    frames, height, width = video.shape[1:4]
    if height % patch or width % patch:
        raise UserError(
            f"frames of {height} x {width} pixels, the tower wants sides that patch={patch} divides; change the crop "
            "in config.data.*_video"
        )
    if frames == 1:
        return jnp.repeat(video, tubelet, axis=1)
    if frames % tubelet:
        raise UserError(
            f"clips of {frames} frames, the tower wants one frame or a number that tubelet={tubelet} divides; change "
            "config.data.num_frames"
        )
    return video


def time_positions(table: Float[Array, "T D"], *, times: int, method: str) -> Float[Array, "new D"]:
    """Return positions for another number of time steps; a single step gets the mean, or as `method` says.

    Args:
      table: float32, of T time steps.
      times: wanted time steps.
      method: one of `TIME_METHODS`.
    """
    count = table.shape[0]
    if method == "nearest":
        return resize_positions(table, old=(count,), new=(times,), method="nearest")
    if times == 1 and method != "first":
        return jnp.mean(table, axis=0, keepdims=True)
    if method in ("cut", "first"):
        return jnp.pad(table[:times], [(0, max(0, times - count)), (0, 0)])
    return resize_positions(table, old=(count,), new=(times,), method="bilinear")


def separate_positions(
    space: Float[Array, "N D"],
    time: Float[Array, "T D"],
    *,
    new: tuple[int, int, int],
    time_method: str,
    space_method: str = "bicubic",
) -> Float[Array, "t n D"]:
    """Add positions in space and time for a grid of (time steps, rows, columns).

    Args:
      space: float32, of a square grid.
      time: float32, of T time steps.
      new: wanted time steps, rows and columns.
      time_method: one of `TIME_METHODS`.
      space_method: one of `layers.positions.RESIZE_METHODS`, without antialiasing.
    """
    times, rows, columns = new
    side = round(space.shape[0] ** 0.5)
    space = resize_positions(space, old=(side, side), new=(rows, columns), method=space_method)
    return space[None] + time_positions(time, times=times, method=time_method)[:, None]


def joint_positions(
    table: Float[Array, "M D"], *, old: Sequence[int], new: tuple[int, int, int], time_method: str
) -> Float[Array, "t n D"]:
    """Resize positions of a grid of (time steps, rows, columns): first over time, then bicubic over space.

    Args:
      table: float32, time outermost.
      old: time steps, rows and columns of the table.
      new: wanted ones.
      time_method: one of `TIME_METHODS`.
    """
    times, rows, columns = new
    width = table.shape[1]
    over_time = rearrange(table, "(t n) d -> t (n d)", t=old[0])
    over_time = time_positions(over_time, times=times, method=time_method)
    places = rearrange(over_time, "t (n d) -> n (t d)", d=width)
    places = resize_positions(places, old=tuple(old[1:]), new=(rows, columns), method="bicubic")
    return rearrange(places, "n (t d) -> t n d", t=times)
