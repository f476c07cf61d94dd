"""Classical descriptors of pictures, as baselines: HOG, and a bag of visual words over SIFT.

Sources: Dalal & Triggs 2005 (HOG); Lowe 2004 (SIFT); Sivic & Zisserman 2003 (visual words); Arandjelović & Zisserman
2012 (square roots of histograms). scikit-image and OpenCV compute them.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from ...base.errors import UserError

Frames = UInt8[np.ndarray, "n H W 3"]
Vectors = Float32[np.ndarray, "n D"]

SIDE = 64
"""Pixels to which HOG scales a frame."""
WORDS = 256
"""Visual words of SIFT."""
_MOST = 20_000  # SIFT descriptors from which the words are made
_SEED = 0


def hog(frames: Frames) -> Vectors:
    """Return histograms of oriented gradients, [n,1764]: cells of 8 pixels, blocks of 2 x 2 cells, nine directions.

    Raises:
      UserError: scikit-image is not installed.
    """
    try:
        from skimage import feature
    except ImportError as error:
        raise UserError("hog needs scikit-image: pip install 'twinreel[features]'") from error
    describe = functools.partial(
        feature.hog, orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2), block_norm="L2-Hys"
    )
    grey = [cv2.resize(_grey(frame), (SIDE, SIDE), interpolation=cv2.INTER_AREA) for frame in frames]
    return np.stack([np.asarray(describe(picture), np.float32) for picture in grey])


def sift(frames: Frames, *, words: Vectors) -> Vectors:
    """Return square roots of the shares of the visual words in each frame, [n,WORDS]; zeros for a frame without any."""
    found = np.zeros((len(frames), len(words)), np.float32)
    for row, keypoints in zip(found, _keypoints(frames), strict=True):
        if len(keypoints):
            nearest = np.argmin(_distances(keypoints, words), axis=1)
            row += np.sqrt(np.bincount(nearest, minlength=len(words)) / len(keypoints)).astype(np.float32)
    return found


def visual_words(clips: Iterable[Frames], *, count: int = WORDS) -> Vectors:
    """Make the words by k-means over the keypoints of clips, float32 [count,128]; the same clips give the same words.

    Args:
      clips: frames [n,H,W,3] each; not all are read where the first ones have keypoints enough.
      count: words.

    Raises:
      UserError: fewer keypoints than words.
    """
    kept, total = [], 0
    for frames in clips:
        for keypoints in _keypoints(frames):
            kept.append(keypoints)
            total += len(keypoints)
        if total >= _MOST:
            break
    if total < count:
        raise UserError(
            f"the clips have {total} SIFT keypoints, fewer than {count} visual words; give more clips, or larger frames"
        )
    cv2.setRNGSeed(_SEED)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 1e-3)
    data = np.concatenate(kept)[:_MOST]
    _, _, words = cv2.kmeans(data, count, np.zeros((0,), np.int32), stop, 1, cv2.KMEANS_PP_CENTERS)
    return np.asarray(words, np.float32)


def _keypoints(frames: Frames) -> Sequence[Any]:
    """Return SIFT descriptors of each frame, float32 [k,128]."""
    finder = cv2.SIFT.create(200)
    found = (finder.detectAndCompute(_grey(frame), np.zeros((0,), np.uint8))[1] for frame in frames)
    return [np.zeros((0, 128), np.float32) if one is None else np.asarray(one, np.float32) for one in found]


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return squared distances without those terms that are the same for all y."""
    return np.sum(y * y, axis=1)[None] - 2 * (x @ y.T)


def _grey(frame: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
