"""Ranks of text-to-video and video-to-text retrieval, computed in blocks: the score matrix is never held as a whole."""

from collections.abc import Iterator

import numpy as np

from ..measures.checks import check_index
from ..measures.ranks import Ranks, ranks
from ..measures.rows import check_pair, cosine, distinct_rows

_CHUNK_BYTES = 64 << 20


def text_to_video(
    text: np.ndarray,
    *,
    video: np.ndarray,
    video_of_text: np.ndarray,
    same_text: np.ndarray | None = None,
    chunk_bytes: int = _CHUNK_BYTES,
) -> Ranks:
    """Rank each caption's own video among all videos, or the best of all videos that have the same caption.

    Args:
      text: float [n,E], one row per caption; normalised here.
      video: float [m,E], one row per video; normalised here.
      video_of_text: int [n], each caption's video.
      same_text: int [n], equal for equal captions: every video with an equal caption is right. None: only the
        caption's own video is.
      chunk_bytes: memory for one block of scores; the [n,m] matrix is never held as a whole.

    Raises:
      UserError: wrong shapes, a row that is zero or not finite, an index out of range.

    Two captions of video 0, one of video 1; videos 1 and 2 are equal, so the last caption ties:

    >>> video = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> text = np.array([[3.0, 1.0], [1.0, 2.0], [0.0, 5.0]])
    >>> text_to_video(text, video=video, video_of_text=np.array([0, 0, 1])).expected.tolist()
    [1.0, 3.0, 1.5]

    A caption that videos 0 and 1 share finds one of them first:

    >>> text = np.array([[0.6, 0.8], [0.6, 0.8]])
    >>> text_to_video(text, video=video[:2], video_of_text=np.array([0, 1])).expected.tolist()
    [2.0, 1.0]
    >>> text_to_video(text, video=video[:2], video_of_text=[0, 1], same_text=np.array([7, 7])).expected.tolist()
    [1.0, 1.0]
    """
    text, video, video_of_text = check_pair(text, video=video, video_of_text=video_of_text)
    holders = _holders(same_text, video_of_text=video_of_text)
    gallery, copy_of = distinct_rows(video)
    rows = []
    for block in row_blocks(len(text), columns=len(video), chunk_bytes=chunk_bytes):
        scores = cosine(text[block], gallery=gallery)[:, copy_of]
        positives = video_of_text[block]
        if same_text is not None:
            positives = np.zeros(scores.shape, dtype=bool)
            for row, number in enumerate(np.asarray(same_text)[block].tolist()):
                positives[row, holders[number]] = True
        rows.append(ranks(scores, positives=positives))
    return join(rows)


def video_to_text(
    text: np.ndarray,
    *,
    video: np.ndarray,
    video_of_text: np.ndarray,
    same_text: np.ndarray | None = None,
    chunk_bytes: int = _CHUNK_BYTES,
) -> Ranks:
    """Rank each video among the videos by their captions: a video's score with another is the best of its captions.

    Videos without a caption are neither queries nor candidates here (they remain candidates of text-to-video).
    Arguments and errors as in `text_to_video`. With `same_text`, captions equal to one of the query's own count as
    right wherever they stand, and the other videos compete with their remaining captions only.

    Returns:
      Ranks of the videos that have captions, in the order of their index.

    Video 0 finds its second caption best; video 1's best caption is one of video 0's:

    >>> video = np.array([[1.0, 0.0], [0.6, 0.8]])
    >>> text = np.array([[0.6, 0.8], [1.0, 0.0], [0.0, 1.0]])
    >>> video_to_text(text, video=video, video_of_text=np.array([0, 0, 1])).expected.tolist()
    [1.0, 2.0]
    """
    text, video, video_of_text = check_pair(text, video=video, video_of_text=video_of_text)
    by_video = np.argsort(video_of_text, kind="stable")
    captioned, starts = np.unique(video_of_text[by_video], return_index=True)
    numbers = None if same_text is None else np.asarray(same_text)[by_video]
    ends = [*starts[1:], len(text)]
    gallery, copy_of = distinct_rows(text[by_video])
    rows = []
    for block in row_blocks(len(captioned), columns=len(text), chunk_bytes=chunk_bytes):
        scores = cosine(video[captioned[block]], gallery=gallery)[:, copy_of]  # [c,n], captions by video
        if numbers is None:
            best = np.maximum.reduceat(scores, starts, axis=1)  # [c, videos with captions]
            rows.append(ranks(best, positives=np.arange(len(captioned))[block]))
        else:
            own = [np.isin(numbers, numbers[i:j]) for i, j in list(zip(starts, ends, strict=True))[block]]
            rows.append(_ranks_of_parts(scores, own=np.stack(own), starts=starts))
    return join(rows)


def video_to_caption(
    text: np.ndarray, *, video: np.ndarray, video_of_text: np.ndarray, chunk_bytes: int = _CHUNK_BYTES
) -> Ranks:
    """Rank each captioned video's best own caption among the captions of other videos (`ranks.among_captions`).

    Arguments and errors as in `text_to_video`.

    Both captions of video 0 score higher with video 1 than its own caption does:

    >>> video = np.array([[1.0, 0.0], [0.6, 0.8]])
    >>> text = np.array([[0.6, 0.8], [0.7, 0.7], [1.0, 0.0]])
    >>> video_to_caption(text, video=video, video_of_text=np.array([0, 0, 1])).expected.tolist()
    [2.0, 3.0]
    """
    text, video, video_of_text = check_pair(text, video=video, video_of_text=video_of_text)
    captioned = np.unique(video_of_text)
    gallery, copy_of = distinct_rows(text)
    rows = []
    for block in row_blocks(len(captioned), columns=len(text), chunk_bytes=chunk_bytes):
        scores = cosine(video[captioned[block]], gallery=gallery)[:, copy_of]  # [c,n]
        found = ranks(scores, positives=captioned[block, None] == video_of_text)
        rows.append(Ranks(above=found.above, equal=found.equal))
    return join(rows)


def _ranks_of_parts(scores: np.ndarray, *, own: np.ndarray, starts: np.ndarray) -> Ranks:
    """Rank videos [c] among videos whose captions [n] are divided into those that count as right (`own`) and others."""
    right = np.maximum.reduceat(np.where(own, scores, -np.inf), starts, axis=1)
    wrong = np.maximum.reduceat(np.where(own, -np.inf, scores), starts, axis=1)
    best = right.max(axis=1, keepdims=True)
    above, equal, tied = (np.count_nonzero(part, axis=1) for part in (wrong > best, wrong == best, right == best))
    return Ranks(above=above, equal=equal, right=tied)


def _holders(same_text: np.ndarray | None, *, video_of_text: np.ndarray) -> dict[int, list[int]]:
    """Return the videos that have each text, by its number in `same_text`."""
    if same_text is None:
        return {}
    check_index(same_text, name="same_text", length=len(video_of_text), limit=np.iinfo(np.int64).max)
    found: dict[int, list[int]] = {}
    for number, place in zip(np.asarray(same_text).tolist(), video_of_text.tolist(), strict=True):
        found.setdefault(number, []).append(place)
    return found


def row_blocks(length: int, *, columns: int, chunk_bytes: int = _CHUNK_BYTES) -> Iterator[slice]:
    """Divide rows of float64 scores into slices of at most `chunk_bytes`, of one row at least.

    >>> list(row_blocks(5, columns=10, chunk_bytes=160))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 6, None)]
    """
    rows = max(1, chunk_bytes // (8 * columns))
    for start in range(0, length, rows):
        yield slice(start, start + rows)


def join(parts: list[Ranks]) -> Ranks:
    """Return the ranks of all queries from those of consecutive blocks."""
    return Ranks(
        above=np.concatenate([part.above for part in parts]),
        equal=np.concatenate([part.equal for part in parts]),
        right=np.concatenate([np.broadcast_to(part.right, part.above.shape) for part in parts]),
    )
