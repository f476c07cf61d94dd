"""Several views or windows of a clip, one embedding."""

from collections.abc import Callable, Sequence

import numpy as np


def embed_views(embed: Callable[[np.ndarray], np.ndarray], video: np.ndarray) -> np.ndarray:
    """Embed clips; of several views (or windows) the unit embeddings are averaged and made unit length again.

    Args:
      embed: uint8 `[b,T,H,W,3]` -> `[b,E]`, rows of unit length. It is called with one view at a time, so that it
        compiles for one shape.
      video: uint8 `[b,T,H,W,3]`, or `[b,V,T,H,W,3]` with V views; or features `[b,T,C]`.

    Returns:
      float32 `[b,E]`.
    """
    if video.ndim in (3, 5):
        return np.asarray(embed(video), np.float32)
    return mean_of_views([embed(np.ascontiguousarray(video[:, v])) for v in range(video.shape[1])])


def views_of(rows: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Return the rows of each view of clips: `video` `[b,T,H,W,3]` and, where there is one, its mask `[b,T]`.

    Args:
      rows: `video` uint8 `[b,T,H,W,3]` or `[b,V,T,H,W,3]`; `video_mask` bool `[b,T]` or `[b,V,T]`, if
        frames are masked.
    """
    if rows["video"].ndim == 5:
        return [rows]
    count = rows["video"].shape[1]
    return [{key: np.ascontiguousarray(value[:, v]) for key, value in rows.items()} for v in range(count)]


def mean_of_views(views: Sequence[np.ndarray]) -> np.ndarray:
    """Average the unit embeddings `[b,E]` of several views and make them unit length again; one view stays as it is.

    Returns:
      float32 `[b,E]`.
    """
    if len(views) == 1:
        return np.asarray(views[0], np.float32)
    mean = np.mean([np.asarray(view, np.float64) for view in views], axis=0)
    length = np.linalg.norm(mean, axis=1, keepdims=True)
    # Views that cancel out have no direction in common: the first one stands for the clip.
    return np.where(length > 1e-6, mean / np.maximum(length, 1e-6), views[0]).astype(np.float32)
