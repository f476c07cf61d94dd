"""The clip that is explained: what the model takes of it, with times, and the pictures that are drawn over."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int16, UInt8

from ..base.errors import UserError
from ..data.media.decode import DecodedClip, DecodeError, decode_clip
from ..data.options import InputSpec
from ..encode.media.files import decode_options, frames_graph, middle_of_sound, timed_rows_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip as a model sees and hears it.

    Attributes:
      path: its file.
      video: the T frames that the model takes; of several views the middle one.
      mask: True where a frame is real; None = all are.
      times_s: when each begins, seconds from the clip's start.
      duration_s: length of the clip.
      decoded: all frames, of which these were drawn.
      view: number of the view, and how many there are.
      audio: the samples that the model hears; None if the file has no sound, or the model no audio tower.
      audio_start_s: where they begin in the clip.
    """

    path: Path
    video: UInt8[np.ndarray, "T H W 3"]
    mask: Bool[np.ndarray, "T"] | None
    times_s: Float32[np.ndarray, "T"]
    duration_s: float
    decoded: DecodedClip
    view: tuple[int, int]
    audio: Int16[np.ndarray, "n"] | None
    audio_start_s: float


def read_clip(spec: InputSpec, path: Path, *, sound: bool) -> Clip:
    """Decode a file, and draw and transform its frames as evaluation does.

    Args:
      spec: what the model takes.
      path: a film or a picture.
      sound: read its sound, too, if it has any.

    Raises:
      UserError: a file that does not exist or cannot be decoded, or a model whose pictures are sequences of patches.
    """
    if "naflex" in spec.eval_video:
        raise UserError(
            f"this model takes sequences of patches (config.data.eval_video={spec.eval_video!r}), which have no places "
            "in a picture to draw on; give a model whose eval_video ends in a crop"
        )
    if not path.is_file():
        raise UserError(f"--video {path} does not exist, or is no file; give a film or a picture")
    try:
        decoded = decode_clip(path, options=decode_options(spec))
    except DecodeError as error:
        raise UserError(f"{path} cannot be explained: {error}") from error
    rows, times = timed_rows_of(spec, clip=decoded)
    video, mask, views = rows["video"], rows.get("video_mask"), 1
    if video.ndim == 5:
        views = len(video)
        video, mask = video[views // 2], None if mask is None else mask[views // 2]
    audio, start = None, 0.0
    if sound and spec.audio_samples:
        audio, start = middle_of_sound(path, spec=spec, silent=True)
        audio = audio if len(audio) and audio.any() else None
    return Clip(
        path=path,
        video=np.ascontiguousarray(video),
        mask=mask,
        times_s=times[: len(video)],
        duration_s=decoded.duration_s,
        decoded=decoded,
        view=(views // 2, views),
        audio=audio,
        audio_start_s=start,
    )


def pictures(spec: InputSpec, *, clip: Clip) -> UInt8[np.ndarray, "n H W 3"]:
    """Return all decoded frames of a clip, cropped and scaled as those that the model takes."""
    graph, decoded = frames_graph(spec), clip.decoded
    uniforms = np.zeros(graph.draws, np.float32)[graph.num_frames + 1 :]
    found = graph.transform(decoded.encoded, height=decoded.height, width=decoded.width, uniforms=uniforms)
    return found[clip.view[0]] if found.ndim == 5 else found
