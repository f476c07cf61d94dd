"""Clips that another program decodes, on their way to batches: the same frames and pixels as from their files."""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from ...base.errors import UserError
from ...data.media.stills import scale_by_area
from ...data.options import InputSpec
from .files import decode_options, frames_graph

_SLACK_S = 1e-3  # as for the frames of files: stamps are rounded to a millisecond


def frames_of_decoded(
    spec: InputSpec, *, read: Callable[[np.ndarray], np.ndarray], count: int, fps: float, windows: int = 1
) -> np.ndarray:
    """Draw the frames of a clip that another program decodes, and transform them as evaluation does.

    Args:
      spec: what the model eats.
      read: int64 [k], indices of frames -> uint8 RGB [k,height,width,3]. Of a whole clip in memory, uint8
        [n,height,width,3], it is `video.__getitem__`.
      count: n, how many frames the clip has.
      fps: frames per second; they are equally far apart.
      windows: V windows, evenly spread.

    Returns:
      As `files.frames_of`: uint8 [T,H,W,3], or [V,T,H,W,3]; `Encoder.encode_video_arrays` takes a batch of them.

    Raises:
      UserError: no frame, `fps` not above 0, pixels of another dtype or shape, or frames too small for a crop.
    """
    if count < 1 or not fps > 0:
        raise UserError(f"a clip of {count} frames at {fps} per second; wanted at least one, and fps above 0")
    kept = _kept(count, fps=fps, wanted=decode_options(spec).fps)
    graph = frames_graph(spec, windows=windows)
    uniforms = np.zeros(graph.draws, np.float32)
    drawn = graph.draw(times=kept / fps, duration_s=count / fps, uniforms=uniforms).frames
    video = _scaled(_read(read, kept[drawn]), short_side=decode_options(spec).short_side)
    graph.transform.check(height=video.shape[1], width=video.shape[2], example="the given clip")
    return graph.transform.decoded(video, uniforms=uniforms[graph.num_frames + 1 :]).reshape(graph.shape)


def _kept(count: int, *, fps: float, wanted: float | None) -> np.ndarray:
    """Return the frames on display at each k / wanted seconds, each once, int64 [k]; all for None or 0."""
    if not wanted:
        return np.arange(count)
    grid = np.arange(math.ceil((count / fps - _SLACK_S) * wanted)) / wanted
    return np.unique(np.minimum(((grid + _SLACK_S) * fps).astype(np.int64), count - 1))


def _read(read: Callable[[np.ndarray], np.ndarray], indices: np.ndarray) -> np.ndarray:
    video = np.asarray(read(indices))
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[::3] != (len(indices), 3):
        raise UserError(
            f"frames of dtype {video.dtype} and shape {video.shape}; wanted uint8 pixels 0..255 of shape "
            f"[{len(indices)},height,width,3] (channels last)"
        )
    return video


def _scaled(video: np.ndarray, *, short_side: int) -> np.ndarray:
    """Return the frames with a shorter side of at most `short_side` pixels, 0 = as they are."""
    if not short_side or min(video.shape[1:3]) <= short_side:
        return video
    return np.stack([np.asarray(scale_by_area(Image.fromarray(frame), short_side=short_side)) for frame in video])
