"""Frames to RGB pictures as a player shows them: size, square pixels, orientation, colours (libswscale)."""

from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from .alpha import ON_WHITE, on_white, opacity
from .colour import Colours
from .pictures import check_size

# Without these flags libswscale converts scaled pictures by a table that is 2 levels of 255 too dark, 10 bits 3 levels.
_EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


class Scaler:
    """Turns frames into RGB pictures as a player shows them: square pixels, upright, short side at most `short_side`.

    Scaling is by area (bicubic where a side grows because pixels are not square). Pictures are never enlarged. All
    pictures get the size of the first, also if the stream changes its size on the way. A picture that keeps its size is
    exactly what PyAV's `to_ndarray("rgb24")` gives (libswscale's fast conversion, up to 3 levels too dark); others are
    rounded right. Colours become 8-bit sRGB, with the matrix and range that the frame states; HDR and wide gamuts are
    mapped, see `colour`. Transparent parts are laid on white before scaling, see `alpha`.

    Attributes:
      notes: how the pictures differ from those of the file, for the clip's notes.
    """

    def __init__(self, *, short_side: int, sample_aspect: float, max_pixels: int, spare_alpha: bool = False):
        """Make the scaler.

        Args:
          short_side: pixels of the shorter side, 0 = as in the file.
          sample_aspect: width of a pixel divided by its height; values beyond 0.1 to 10 are not believed.
          max_pixels: larger pictures are refused.
          spare_alpha: whether the alpha channel may be unused: pictures in which all of it is 0 then count as opaque.
        """
        self.notes: dict[str, None] = {}  # an ordered set
        self._short_side, self._max_pixels, self._spare_alpha = short_side, max_pixels, spare_alpha
        self._aspect = sample_aspect if 0.1 <= sample_aspect <= 10 else 1.0
        self._reformatter = VideoReformatter()
        self._coded: tuple[int, int] | None = None
        self._size = (0, 0)
        self._turn = (False, False, False)
        self._colours: Colours | None = None

    def __call__(self, frame: Any) -> np.ndarray:
        """Return uint8 [H,W,3]."""
        coded = (frame.width, frame.height)
        if self._coded is None:
            self._coded, self._size = coded, self._target(frame.width, frame.height)
            self._turn = orientation(frame)
            colours = Colours(frame)
            if colours.note:
                self._colours = colours
                self.notes[colours.note] = None
        if coded != self._coded:
            self.notes["pictures change their size: all scaled to that of the first"] = None
        alpha = opacity(frame, reformatter=self._reformatter)
        if alpha is None or (self._spare_alpha and not alpha.any()):
            rgb = self._rgb(frame, *self._size)
        else:
            self.notes[ON_WHITE] = None
            rgb = on_white(self._rgb(frame, *coded), alpha=alpha)
            if self._size != coded:
                rgb = self._reformat(av.VideoFrame.from_ndarray(rgb, format="rgb24"), *self._size, to="rgb24")
        if frame.is_corrupt:
            self.notes["damaged pictures, as the decoder repaired them"] = None
        transposed, flip_x, flip_y = self._turn
        if transposed:
            rgb = rgb.transpose(1, 0, 2)
        return rgb[:: -1 if flip_y else 1, :: -1 if flip_x else 1]

    def _rgb(self, frame: Any, width: int, height: int) -> np.ndarray:
        """Return uint8 [height,width,3] in sRGB, not turned."""
        if self._colours is None:
            return self._reformat(frame, width, height, to="rgb24")
        matrix = Colorspace.BT2020 if self._colours.is_bt2020 else None
        return self._colours(self._reformat(frame, width, height, to="rgb48le", matrix=matrix))

    def _reformat(self, frame: Any, width: int, height: int, *, to: str, matrix: Any = None) -> np.ndarray:
        return self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format=to,
            src_colorspace=matrix,
            interpolation=_filter(frame, width, height),
            threads=1,
        ).to_ndarray()

    def _target(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after scaling and before turning; DecodeError if JPEG does not hold them."""
        shown = (width * self._aspect, float(height))
        scale = min(1.0, self._short_side / min(shown)) if self._short_side else 1.0
        target = max(1, round(shown[0] * scale)), max(1, round(shown[1] * scale))
        check_size(*target, max_pixels=self._max_pixels)
        return target


def _filter(frame: Any, width: int, height: int) -> int:
    if (width, height) == (frame.width, frame.height):
        return Interpolation.AREA
    grows = width > frame.width or height > frame.height
    return (Interpolation.BICUBIC if grows else Interpolation.AREA) | _EXACT


def orientation(frame: Any) -> tuple[bool, bool, bool]:
    """Return how the frame's display matrix turns it: (transpose, then flip x, flip y), in steps of 90 degrees."""
    try:
        matrix = frame.side_data.get(SideData.DISPLAYMATRIX)
        a, b, _, c, d = (
            np.frombuffer(bytes(matrix), dtype=np.int32)[:5].tolist() if matrix is not None else (1, 0, 0, 0, 1)
        )
    except ValueError:  # side data of a kind that this PyAV has no name for; the angle can be asked for all the same
        angle = np.deg2rad(frame.rotation)
        a, b, c, d = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    # A point (x, y) is shown at (a x + c y, b x + d y); y points down.
    return (False, a < 0, d < 0) if abs(a) >= abs(b) else (True, c < 0, b < 0)
