"""Faces in pictures: found, blurred, cut out, and compared, by networks from local files (OpenCV).

Detection: YuNet (Wu et al. 2023, doi:10.1007/s11633-023-1423-y). Comparison: SFace (Zhong et al. 2021,
doi:10.1109/TIP.2020.3048632). OpenCV's model zoo has both as ONNX files; none comes with this package.
"""

import collections
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from ...base.errors import UserError

SAME_PERSON = 0.363
"""Cosine of two faces by SFace from which on OpenCV takes them for one person's."""

LEAST_SIDE = 320
"""Shorter side in pixels below which frames should not be scaled before faces are looked for."""

_LONGEST = 960  # longer side in pixels of what the detector looks at; it finds faces of about 10 pixels and more
_BLUR_FROM, _COMPARE_FROM = 0.6, 0.8  # scores: blur in doubt, and compare only what is surely a face
_OVERLAP, _MOST = 0.3, 5000  # of the detector's boxes
_MARGIN = 1 / 3  # of a box, by which it is enlarged on each side: hair, ears, and what moves between frames
_CROP = 1.5  # side of the square that is cut out / side of the face's box
_CELLS = 3  # averages on each side that are left of a face
HOLD_S = 0.5
"""Seconds before and after a frame in which its faces are blurred as well, where the detector misses them."""

Find = Callable[[np.ndarray], np.ndarray]
"""A detector: uint8 RGB [H,W,3] -> int64 [n,4], left, top, right and bottom of each face in pixels, inside."""


class FaceDetector:
    """Finds faces by YuNet; one thread at a time."""

    def __init__(self, path: str | Path, *, least: float = _BLUR_FROM):
        """Read the network.

        Args:
          path: an ONNX file of YuNet.
          least: score from which on something is a face, 0 to 1.

        Raises:
          UserError: no such file, or one that is no face detector.
        """
        self._path = _checked(path, what="face detector", name="YuNet")
        with _quiet(self._path, what="YuNet's face detector"):
            self._net: Any = cv2.FaceDetectorYN.create(str(self._path), "", (64, 64), least, _OVERLAP, _MOST)
            self._net.detect(np.zeros((64, 64, 3), np.uint8))

    def __call__(self, rgb: UInt8[np.ndarray, "H W 3"]) -> Int64[np.ndarray, "n 4"]:
        """Return the boxes of faces: left, top, right, bottom in pixels, inside of the picture."""
        _, rows, scale = self.look(rgb)
        corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1) / scale
        limits = np.array([rgb.shape[1], rgb.shape[0]] * 2)
        rounded = np.concatenate([np.floor(corners[:, :2]), np.ceil(corners[:, 2:])], axis=1)
        return np.clip(rounded, 0, limits).astype(np.int64)

    def look(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the picture that was looked at (uint8 BGR), OpenCV's rows float32 [n,15] in it, and its scale."""
        scale = min(1.0, _LONGEST / max(rgb.shape[:2]))
        size = tuple(max(round(side * scale), 8) for side in rgb.shape[1::-1])
        bgr = np.ascontiguousarray(rgb[..., ::-1])
        if scale < 1:
            bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
        with _quiet(self._path, what="YuNet's face detector"):
            self._net.setInputSize(bgr.shape[1::-1])
            found = self._net.detect(bgr)[1]
        return bgr, np.zeros((0, 15), np.float32) if found is None else found, scale


class FaceFeatures:
    """Features by which the faces of two pictures are compared (SFace); one thread at a time."""

    def __init__(self, detector: str | Path, *, recogniser: str | Path):
        """Read both networks.

        Args:
          detector: an ONNX file of YuNet.
          recogniser: an ONNX file of SFace.

        Raises:
          UserError: a file that is missing, or not what it should be.
        """
        self._find = FaceDetector(detector, least=_COMPARE_FROM)
        self._path = _checked(recogniser, what="face recogniser", name="SFace")
        with _quiet(self._path, what="SFace"):
            self._net: Any = cv2.FaceRecognizerSF.create(str(self._path), "")
            self._net.feature(np.zeros((112, 112, 3), np.uint8))

    def __call__(self, rgb: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "n D"]:
        """Return the features of a picture's faces, rows of unit length; their product is a cosine."""
        bgr, rows, _ = self._find.look(rgb)
        with _quiet(self._path, what="SFace"):
            found = [self._net.feature(self._net.alignCrop(bgr, row)).reshape(-1) for row in rows]
        if not found:
            return np.zeros((0, 0), np.float32)
        made = np.stack(found).astype(np.float32)
        return made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-6)


def without_faces(
    frames: Iterable[tuple[float, np.ndarray]], *, find: Find, hold_s: float = HOLD_S
) -> Iterator[tuple[float, np.ndarray]]:
    """Blur the faces of a stream of frames; a few frames are held back.

    What is a face in one frame is blurred in those up to `hold_s` seconds before and after it, too: detectors miss
    faces in single frames.

    Args:
      frames: seconds and uint8 RGB [H,W,3], in order of time, all of one size.
      find: the detector.
      hold_s: see above.
    """
    waiting: collections.deque[tuple[float, np.ndarray]] = collections.deque()
    found: collections.deque[tuple[float, np.ndarray]] = collections.deque()
    for time, rgb in frames:
        waiting.append((time, rgb))
        found.append((time, find(rgb)))
        while waiting[0][0] + hold_s < time:
            yield _next(waiting, found, hold_s=hold_s)
    while waiting:
        yield _next(waiting, found, hold_s=hold_s)


def _next(waiting: collections.deque, found: collections.deque, *, hold_s: float) -> tuple[float, np.ndarray]:
    time, rgb = waiting.popleft()
    while found and found[0][0] < time - hold_s:
        found.popleft()
    near = [boxes for at, boxes in found if at <= time + hold_s]
    return time, blur(rgb, boxes=np.concatenate(near)) if near else rgb


def blur(rgb: UInt8[np.ndarray, "H W 3"], *, boxes: Int64[np.ndarray, "n 4"]) -> UInt8[np.ndarray, "H W 3"]:
    """Return a picture in which each box, enlarged by a third on each side, is left as at most 3 x 3 averages.

    The averages are taken of the picture before anything was blurred and interpolated between; nothing else of the box
    remains, so it cannot be undone.
    """
    if not len(boxes):
        return rgb
    made, (height, width) = rgb.copy(), rgb.shape[:2]
    for left, top, right, bottom in np.unique(boxes, axis=0).tolist():
        wide, high = (int(np.ceil(_MARGIN * max(side, 1))) for side in (right - left, bottom - top))
        x = slice(max(left - wide, 0), min(right + wide, width))
        y = slice(max(top - high, 0), min(bottom + high, height))
        part = rgb[y, x]
        if part.size:
            cells = [min(_CELLS, max(1, side // 4)) for side in part.shape[1::-1]]
            small = cv2.resize(part, cells, interpolation=cv2.INTER_AREA)
            made[y, x] = cv2.resize(small, part.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return made


def track(boxes: Sequence[Int64[np.ndarray, "n 4"]]) -> Float64[np.ndarray, "T 3"] | None:
    """Follow one face through the frames of a clip: that which is largest in any of them.

    In other frames it is the face whose centre is nearest to where it was last seen. Where none is found, the square is
    interpolated in between, and stays as it is before the first and after the last one.

    Args:
      boxes: of each frame in order of time, as a detector returns them.

    Returns:
      The middle (x, y) and the side in pixels of a square around the face, with a margin, of each frame; None where
      there is no face in any.
    """
    squares = np.full((len(boxes), 3), np.nan)
    rows = [np.stack([(b[:, 0] + b[:, 2]) / 2, (b[:, 1] + b[:, 3]) / 2, _side(b)], axis=1) for b in boxes]
    largest = [row[:, 2].max() if len(row) else 0.0 for row in rows]
    if not any(largest):
        return None
    begin = int(np.argmax(largest))
    first = rows[begin][np.argmax(rows[begin][:, 2])]
    for numbers in (range(begin, len(rows)), range(begin, -1, -1)):
        last = first
        for number in numbers:
            row = rows[number]
            if len(row):
                last = row[np.argmin(np.linalg.norm(row[:, :2] - last[:2], axis=1))]
                squares[number] = last
    squares[begin] = first
    seen = np.flatnonzero(~np.isnan(squares[:, 0]))
    every = np.arange(len(squares))
    whole = np.stack([np.interp(every, seen, squares[seen, column]) for column in range(3)], axis=1)
    whole[:, 2] *= _CROP
    return whole


def cut_square(
    rgb: UInt8[np.ndarray, "H W 3"], *, square: Float64[np.ndarray, "3"], side: int
) -> UInt8[np.ndarray, "S S 3"]:
    """Return a square of a picture, scaled to `side` pixels; beyond the picture its edge is repeated.

    Args:
      rgb: the picture.
      square: its middle (x, y) and its side in pixels.
      side: S.
    """
    size = max(round(float(square[2])), 1)
    left, top = (round(float(middle) - size / 2) for middle in square[:2])
    above, below = max(0, -top), max(0, top + size - rgb.shape[0])
    before, behind = max(0, -left), max(0, left + size - rgb.shape[1])
    padded = np.pad(rgb, ((above, below), (before, behind), (0, 0)), mode="edge")
    part = np.ascontiguousarray(padded[top + above :, left + before :][:size, :size])
    how = cv2.INTER_AREA if size > side else cv2.INTER_LINEAR
    return cv2.resize(part, (side, side), interpolation=how)


def _side(boxes: np.ndarray) -> np.ndarray:
    return np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]).astype(np.float64)


def _checked(path: str | Path, *, what: str, name: str) -> Path:
    found = Path(path).expanduser()
    if not found.is_file():
        raise UserError(
            f"there is no {what} at {str(path)!r}; give an ONNX file of {name} (OpenCV's model zoo has one: nothing is "
            "downloaded here)"
        )
    return found


@contextlib.contextmanager
def _quiet(path: Path, *, what: str) -> Iterator[None]:
    """Keep OpenCV's remarks off standard error, and turn its errors into one that a user can act on."""
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    except cv2.error as error:
        reason = str(error).partition("error: ")[2].partition(" in function")[0] or str(error)
        raise UserError(f"{path} does not work as {what} in OpenCV {cv2.__version__}: {reason.strip()}") from error
    finally:
        cv2.utils.logging.setLogLevel(before)
