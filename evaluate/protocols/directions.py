"""Ranks of text-to-video and video-to-text retrieval: counted in blocks, the score matrix is never held as a whole."""

import numpy as np

from ..counting.count import DEFAULTS, CountOptions, count_ranks
from ..counting.questions import (
    AMONG_CAPTIONS,
    QUESTIONS,
    TEXT_TO_ANY,
    TEXT_TO_VIDEO,
    VIDEO_TO_ANY,
    VIDEO_TO_TEXT,
    Pairs,
)
from ..measures.ranks import Ranks

DIRECTIONS = (TEXT_TO_VIDEO, VIDEO_TO_TEXT)


def all_ranks(
    *,
    text: np.ndarray,
    video: np.ndarray,
    video_of_text: np.ndarray,
    same_text: np.ndarray | None = None,
    options: CountOptions = DEFAULTS,
) -> dict[str, Ranks]:
    """Rank every query of a set in every way that it admits; each pair is scored once.

    Args:
      text: float [n,E], one row per caption; normalised here.
      video: float [m,E], one row per video; normalised here.
      video_of_text: int [n], each caption's video.
      same_text: int [n], equal for equal captions; None: the any-match questions are left out.
      options: how pairs are counted; large sets are counted on the devices.

    Returns:
      `text_to_video`, `video_to_text` (among videos); `video_to_text_among_captions` where a video has several
      captions; `text_to_video_any_match` and `video_to_text_any_match` where several videos share a caption. Queries of
      the second, third and last are the captioned videos in the order of their index.

    Raises:
      UserError: wrong shapes, a row that is zero or not finite, an index out of range.
    """
    pairs = Pairs(text, video=video, video_of_text=video_of_text, same_text=same_text)
    asked = set(DIRECTIONS)
    asked |= {AMONG_CAPTIONS} if len(pairs.captioned) < len(pairs.text) else set()
    asked |= {TEXT_TO_ANY, VIDEO_TO_ANY} if pairs.videos_share_captions() else set()
    return count_ranks([one for one in QUESTIONS if one in asked], pairs=pairs, options=options)


def text_to_video(
    text: np.ndarray,
    *,
    video: np.ndarray,
    video_of_text: np.ndarray,
    same_text: np.ndarray | None = None,
    options: CountOptions = DEFAULTS,
) -> Ranks:
    """Rank each caption's own video among all videos, or the best of all videos that have the same caption.

    Args:
      text: float [n,E], one row per caption; normalised here.
      video: float [m,E], one row per video; normalised here.
      video_of_text: int [n], each caption's video.
      same_text: int [n], equal for equal captions: every video with an equal caption is right. None: only the
        caption's own video is.
      options: how pairs are counted.

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
    pairs = Pairs(text, video=video, video_of_text=video_of_text, same_text=same_text)
    question = TEXT_TO_VIDEO if same_text is None else TEXT_TO_ANY
    return count_ranks([question], pairs=pairs, options=options)[question]


def video_to_text(
    text: np.ndarray,
    *,
    video: np.ndarray,
    video_of_text: np.ndarray,
    same_text: np.ndarray | None = None,
    options: CountOptions = DEFAULTS,
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
    pairs = Pairs(text, video=video, video_of_text=video_of_text, same_text=same_text)
    question = VIDEO_TO_TEXT if same_text is None else VIDEO_TO_ANY
    return count_ranks([question], pairs=pairs, options=options)[question]


def video_to_caption(
    text: np.ndarray, *, video: np.ndarray, video_of_text: np.ndarray, options: CountOptions = DEFAULTS
) -> Ranks:
    """Rank each captioned video's best own caption among the captions of other videos (`ranks.among_captions`).

    Arguments and errors as in `text_to_video`.

    Both captions of video 0 score higher with video 1 than its own caption does:

    >>> video = np.array([[1.0, 0.0], [0.6, 0.8]])
    >>> text = np.array([[0.6, 0.8], [0.7, 0.7], [1.0, 0.0]])
    >>> video_to_caption(text, video=video, video_of_text=np.array([0, 0, 1])).expected.tolist()
    [2.0, 3.0]
    """
    pairs = Pairs(text, video=video, video_of_text=video_of_text)
    return count_ranks([AMONG_CAPTIONS], pairs=pairs, options=options)[AMONG_CAPTIONS]
