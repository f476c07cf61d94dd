"""When a window may be reached by seeking: only where its pictures are certain to equal those decoded from the start.

A decoder that starts in the middle of a file lacks whatever the beginning established: a palette, reference pictures,
parameters that are sent once, an offset between joined recordings. So a seek is trusted only if

- the container keeps an index of key pictures with their time stamps (MP4 and QuickTime, Matroska and WebM) and states
  a duration that reaches beyond the window's start;
- the codec restarts at a key picture by its specification, or each picture stands alone, without a palette;
- the first picture used is intra-coded and marked as a key picture by the decoder, not by the container alone;
- this picture has the size, format, colours and orientation of the file's first picture.

Every other file is decoded from the start, which takes longer and is always right.
"""

from typing import Any, NamedTuple

from av.video.frame import PictureType

from .colour import stated_peak
from .scale import orientation

_INDEXED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})  # as libavformat names the demuxers
_RESTART = frozenset({"h264", "hevc", "vp8", "vp9", "av1"})  # codecs whose key pictures reset every reference


class Appearance(NamedTuple):
    """How pictures are to be shown: the same after a seek as at the start of the file, or the seek is not trusted."""

    pixels: str
    width: int
    height: int
    colours: tuple[int, ...]
    peak_nits: float | None
    turn: tuple[bool, bool, bool]

    @classmethod
    def of(cls, frame: Any) -> "Appearance":
        """Return the appearance of a PyAV frame."""
        tags = (frame.colorspace, frame.color_range, frame.color_trc, frame.color_primaries)
        return cls(
            pixels=frame.format.name,
            width=frame.width,
            height=frame.height,
            colours=tuple(int(tag) for tag in tags),
            peak_nits=stated_peak(frame),
            turn=orientation(frame),
        )


class FirstPicture(NamedTuple):
    """The first picture of a file: its time stamp in seconds, and its appearance."""

    stamp: float
    appearance: Appearance


def may_seek(container: Any, video: Any, *, start_s: float) -> bool:
    """Return whether container and codec allow to seek to a window.

    Args:
      container: the open PyAV container.
      video: its video stream.
      start_s: start of the window in seconds from the first picture.
    """
    coded = video.codec_context
    if container.format.name not in _INDEXED or coded.pix_fmt in (None, "pal8"):
        return False
    if video.metadata.get("alpha_mode") == "1":  # decoded by a decoder that does not mark key pictures
        return False
    if not coded.codec.intra_only and coded.codec.canonical_name not in _RESTART:
        return False
    # Matroska of joined recordings states the duration of the first one, or none; stamps beyond it are ambiguous.
    return container.duration is not None and start_s < container.duration / 1e6


def restarts_at(frame: Any, *, first: FirstPicture) -> bool:
    """Return whether decoding can start at this picture, the first after a seek."""
    return (
        bool(frame.key_frame)
        and frame.pict_type == PictureType.I
        and frame.pts is not None
        and Appearance.of(frame) == first.appearance
    )
