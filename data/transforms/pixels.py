"""Functions of decoded frames, uint8 [T,H,W,3] -> uint8 [T,H,W,3]: all frames of a clip are treated alike."""

import cv2
import numpy as np

LUMA = (0.299, 0.587, 0.114)  # Rec. 601


def grey(video: np.ndarray) -> np.ndarray:
    """Make frames grey, still with three channels."""
    plane = cv2.cvtColor(flat(video), cv2.COLOR_RGB2GRAY)
    return cv2.cvtColor(plane, cv2.COLOR_GRAY2RGB).reshape(video.shape)


def jitter(video: np.ndarray, *, brightness: float, contrast: float, saturation: float, hue: float = 0) -> np.ndarray:
    """Scale brightness, contrast (about the clip's mean grey) and saturation by factors, and turn the hue.

    The four are one affine map of the colours, rounded and clipped once. The hue turns by `hue` of a full circle about
    the grey axis, in the plane of equal luma of YIQ.
    """
    to_grey = np.tile(np.asarray(LUMA), (3, 1))
    colours = saturation * np.eye(3) + (1 - saturation) * to_grey
    colours = brightness * contrast * (_hue(hue) @ colours)
    mean = float(np.dot(cv2.mean(flat(video))[:3], LUMA))
    offset = (1 - contrast) * brightness * mean
    return colour_map(video, colours, offset=offset)


def colour_map(video: np.ndarray, matrix: np.ndarray, *, offset: float) -> np.ndarray:
    """Map each pixel's colour c to `matrix @ c + offset`, rounded and clipped; matrix [3,3]."""
    affine = np.concatenate([matrix, np.full((3, 1), offset)], axis=1)
    return cv2.transform(flat(video), affine).reshape(video.shape)


def look_up(video: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Replace each value by that of a table, uint8 [256] or, for each channel its own, [256,3]."""
    columns = np.broadcast_to(table[:, None] if table.ndim == 1 else table, (256, 3))
    return cv2.LUT(flat(video), np.ascontiguousarray(columns[None])).reshape(video.shape)


def blur(video: np.ndarray, *, sigma: float) -> np.ndarray:
    """Blur with a Gaussian of `sigma` pixels, cut off at 3 sigma; the picture is reflected at its edges."""
    taps = 2 * int(np.ceil(3 * sigma)) + 1
    return each(video, lambda frame, into: cv2.GaussianBlur(frame, (taps, taps), sigma, dst=into))


def noise(video: np.ndarray, *, std: float, seed: int, per_frame: bool) -> np.ndarray:
    """Add Gaussian noise of standard deviation `std` (grey levels), the same or another one in each frame."""
    drawn = np.random.Generator(np.random.SFC64(seed))
    shape = video.shape if per_frame else video.shape[1:]
    grain = np.rint(std * drawn.standard_normal(shape, dtype=np.float32)).clip(-255, 255).astype(np.int16)
    return np.clip(video + grain, 0, 255).astype(np.uint8)


def rotate(video: np.ndarray, *, degrees: float) -> np.ndarray:
    """Turn anticlockwise about the middle; bilinear, what comes in from outside is black."""
    height, width = video.shape[1:3]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return warp(video, matrix)


def warp(video: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Move pixels by an affine map [2,3] of (x, y), from old places to new; bilinear, black from outside."""
    size = (video.shape[2], video.shape[1])
    return each(video, lambda frame, into: cv2.warpAffine(frame, matrix, size, dst=into, flags=cv2.INTER_LINEAR))


def sharpen(video: np.ndarray, *, factor: float) -> np.ndarray:
    """Blend frames with smoothed ones: 0 is smooth, 1 leaves them, more sharpens. The outermost pixels stay."""
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13

    def one(frame: np.ndarray, into: np.ndarray) -> None:
        smooth = cv2.filter2D(frame, -1, kernel)
        cv2.addWeighted(frame, factor, smooth, 1 - factor, 0, dst=into)
        for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
            into[edge] = frame[edge]

    return each(video, one)


def each(video: np.ndarray, function) -> np.ndarray:
    """Call `function(frame, into)` for each frame and return what it wrote."""
    out = np.empty(video.shape, np.uint8)
    for frame, into in zip(video, out, strict=True):
        function(frame, into)
    return out


def flat(video: np.ndarray) -> np.ndarray:
    """Put the frames below each other: uint8 [T*H,W,3], one picture for OpenCV."""
    return np.ascontiguousarray(video).reshape(-1, *video.shape[2:])


def _hue(turn: float) -> np.ndarray:
    if not turn:
        return np.eye(3)
    angle = 2 * np.pi * turn
    cos, sin = np.cos(angle), np.sin(angle)
    to_yiq = np.array([LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
    turned = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    return np.linalg.inv(to_yiq) @ turned @ to_yiq
