"""What is kept of a media file: the options of decoding, and a decoded clip."""

import dataclasses
from typing import Any

import numpy as np

from .fingerprint import Fingerprint

FORMS = {"jpeg": ("jpeg_quality",), "h264": ("segment", "crf")}
"""Value of `frames_as` -> the options that it has alone."""
LONGEST_SEGMENT = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """What is kept of a clip.

    Attributes:
      fps: frames per second to keep; None or 0 = every frame. Never more than the file has: a frame is kept once.
      short_side: pixels of the shorter side of the kept frames; 0 = as in the file. Smaller pictures stay as they are.
      frames_as: "jpeg" = a JPEG file for each frame; "h264" = an access unit of H.264 for each frame, see
        `transforms.units`: for what `prepare` stores, as most units are decoded only after those ahead of them.
      jpeg_quality: 1 to 100 (libjpeg scale, chroma 4:2:0; at 100 colours keep their full resolution, 4:4:4). Of JPEG.
      segment: frames from one key picture to the next, 1 to `LONGEST_SEGMENT`. Of H.264.
      crf: constant rate factor of libx264, 1 (best) to 51. Of H.264.
      audio: whether the sound is kept.
      max_seconds: longest clip (or window) that is accepted, in seconds; bounds the memory of one clip.
      max_pixels: largest picture (width * height in the file) that is accepted.
      blur_faces: ONNX file of the detector whose faces are blurred before frames are kept, see `faces`; "" = none.
      crop_faces: ONNX file of the detector whose face is cut out of each frame, as a square of `short_side` pixels,
        see `faces.track`; "" = frames stay whole.
    """

    fps: float | None = 8.0
    short_side: int = 256
    frames_as: str = "jpeg"
    jpeg_quality: int = 92
    segment: int = 8
    crf: int = 18
    audio: bool = True
    max_seconds: float = 600.0
    max_pixels: int = 2**26  # 8192 x 8192; 8K video has half of it
    blur_faces: str = ""
    crop_faces: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values.

        `crop_faces` only where faces are cut out; of the options of JPEG and of H.264, those of the one that is used.
        """
        unused = {name for form, names in FORMS.items() if form != self.frames_as for name in names}
        unused |= {"frames_as"} if self.frames_as == "jpeg" else set()
        unused |= set() if self.crop_faces else {"crop_faces"}
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in unused}


@dataclasses.dataclass(kw_only=True)
class DecodedClip:
    """A decoded clip.

    Attributes:
      encoded: n frames, in order of presentation: JPEG files. With `frames_as="h264"` access units as they are stored;
        of a record, each with those ahead of it that it needs (`transforms.units.drawable`).
      timestamps_s: float32 [n], seconds from the clip's start, increasing.
      height: of the frames, in pixels, upright and with square pixels.
      width: likewise.
      audio: int16 [S] at 16 kHz, mono, S = duration_s * 16000: silence where the track has nothing; None = no sound,
        or nothing but silence.
      duration_s: length of the clip in seconds, the last frame's own duration included.
      notes: how the clip differs from its file, in words that are the same for all clips with the same difference.
      silent: whether there is a sound track, but with nothing to hear in it.
      source: what the file's pictures are: `codec`, `height`, `width` as coded, `fps` on average (None = not stated).
      stated_s: length of the whole file in seconds as its container states it; None = it does not.
      fingerprint: identifies the clip; None until a decoding process has filled it in.
    """

    encoded: list[bytes]
    timestamps_s: np.ndarray
    height: int
    width: int
    audio: np.ndarray | None
    duration_s: float
    notes: tuple[str, ...] = ()
    silent: bool = False
    source: dict[str, Any] = dataclasses.field(default_factory=dict)
    stated_s: float | None = None
    fingerprint: Fingerprint | None = None
