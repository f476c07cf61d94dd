"""What is counted: for each query the score of its best right candidate, and which candidates are right.

The score of a pair is `measures.rows.paired_cosine`, whose arithmetic does not depend on where the rows stand or how
scores are divided into blocks. `host` and `devices` decide most pairs by less exact scores and a bound on their error;
the pairs that they leave open are decided here.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from ..measures.checks import check_index
from ..measures.ranks import Ranks
from ..measures.rows import paired_cosine, row_numbers, unit_pair

TEXT_TO_VIDEO = "text_to_video"
VIDEO_TO_TEXT = "video_to_text"
AMONG_CAPTIONS = "video_to_text_among_captions"
TEXT_TO_ANY = "text_to_video_any_match"
VIDEO_TO_ANY = "video_to_text_any_match"
BY_TEXT = (TEXT_TO_VIDEO, TEXT_TO_ANY)
"""Questions of texts, among videos. Those of videos are among groups of captions (videos), or single captions."""
QUESTIONS = (*BY_TEXT, VIDEO_TO_TEXT, VIDEO_TO_ANY, AMONG_CAPTIONS)
_PAIRS = 256  # scored at a time: 1 MiB of rows as float64 at width 512, which a CPU's cache holds
_GROUPS = 2048  # groups of captions decided at a time
_PART = 1 << 20  # right pairs listed at a time


class Pairs:
    """Texts, videos, and exact scores of their pairs.

    Attributes:
      text: the texts' rows [n,E].
      video: the videos' rows [m,E].
      video_of_text: int64 [n].
      same_text: int64 [n], equal for equal captions, from 0; None where no question asks.
      decided: pairs, or groups of captions with a video, that were left open and scored exactly so far.
      order: int64 [n], the texts by video; those of video `captioned[g]` are `order[starts[g] : starts[g + 1]]`.
    """

    def __init__(
        self,
        text: np.ndarray,
        *,
        video: np.ndarray,
        video_of_text: np.ndarray,
        same_text: np.ndarray | None = None,
        right: tuple[np.ndarray, np.ndarray] | None = None,
    ):
        """Check the arrays; errors as in `measures.rows.check_pair`.

        Args:
          text: float [n,E].
          video: float [m,E].
          video_of_text: int [n].
          same_text: int [n], equal for equal captions: right for any match is each video that has the caption.
          right: instead of these, the pairs (text, video) that are right for any match, int [p] each.
        """
        self.text, self.video, index = unit_pair(text, video=video, video_of_text=video_of_text)
        self.video_of_text = index
        self.same_text = None
        if same_text is not None:
            limit = np.iinfo(np.int64).max
            numbers = check_index(same_text, name="same_text", length=len(index), limit=limit)
            self.same_text = np.unique(numbers, return_inverse=True)[1]
            self._shared = np.unique(self.same_text * len(self.video) + index)
        elif right is not None:
            self.same_text = np.arange(len(index))
            self._shared = np.unique(right[0] * len(self.video) + right[1])
        self.order = np.argsort(index, kind="stable")
        self.captioned, first = np.unique(index[self.order], return_index=True)
        self.starts = np.append(first, len(index))
        self._numbers: tuple[np.ndarray, np.ndarray] | None = None
        self._scored, self.decided = 0, 0
        self._own = self._exact(np.arange(len(index)), index)

    def videos_share_captions(self) -> bool:
        """Return whether any caption belongs to two videos."""
        return self.same_text is not None and len(self._shared) > len(np.unique(self._shared // len(self.video)))

    def scores(self, texts: np.ndarray, videos: np.ndarray) -> np.ndarray:
        """Return the exact scores of pairs, float64 [k]."""
        found = self._own[texts]
        other = np.flatnonzero(self.video_of_text[texts] != videos)
        self._scored += len(other)
        if self._scored <= 2 * (len(self.text) + len(self.video)):
            found[other] = self._exact(texts[other], videos[other])
            return found
        # So many pairs are near their right ones where rows repeat; pairs of equal rows are then computed once.
        if self._numbers is None:
            self._numbers = row_numbers(self.text.raw), row_numbers(self.video.raw)
        keys = self._numbers[0][texts[other]] * len(self.video) + self._numbers[1][videos[other]]
        _, first, place = np.unique(keys, return_index=True, return_inverse=True)
        found[other] = self._exact(texts[other[first]], videos[other[first]])[place]
        return found

    def _exact(self, texts: np.ndarray, videos: np.ndarray) -> np.ndarray:
        found = np.empty(len(texts))
        for start in range(0, len(texts), _PAIRS):
            part = slice(start, start + _PAIRS)
            found[part] = paired_cosine(self.text[texts[part]], second=self.video[videos[part]])
        return found

    def right(self, question: str, *, texts: np.ndarray, videos: np.ndarray) -> np.ndarray:
        """Return which pairs are right for a question, bool [k]."""
        if question not in (TEXT_TO_ANY, VIDEO_TO_ANY):
            return self.video_of_text[texts] == videos
        assert self.same_text is not None
        keys = self.same_text[texts] * len(self.video) + videos
        return self._shared[np.minimum(np.searchsorted(self._shared, keys), len(self._shared) - 1)] == keys

    def best(self, question: str) -> np.ndarray:
        """Return the exact score of the best right candidate: float64 [n] of texts, [m] of videos (inf: no caption)."""
        found = np.full(len(self.text if question in BY_TEXT else self.video), -np.inf)
        for texts, videos in self._right_pairs(question):
            np.maximum.at(found, texts if question in BY_TEXT else videos, self.scores(texts, videos))
        return np.where(np.isneginf(found), np.inf, found)

    def tied_groups(self, question: str, *, best: np.ndarray) -> np.ndarray:
        """Return for each video how many videos have a right caption with its best score, int64 [m]."""
        tied = np.zeros(len(self.video), np.int64)
        for texts, videos in self._right_pairs(question):
            at_best = self.scores(texts, videos) == best[videos]
            keys = np.unique(self.video_of_text[texts[at_best]] * len(self.video) + videos[at_best])
            tied += np.bincount(keys % len(self.video), minlength=len(tied))
        return tied

    def _right_pairs(self, question: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield all right pairs (text, video) in parts; captions of one video come in one part."""
        if question not in (TEXT_TO_ANY, VIDEO_TO_ANY):
            yield self.order, self.video_of_text[self.order]
            return
        assert self.same_text is not None
        numbers, videos = np.divmod(self._shared, len(self.video))
        asked = self.same_text[self.order]
        begins = np.searchsorted(numbers, asked)
        sizes = np.searchsorted(numbers, asked, side="right") - begins
        before = np.cumsum(sizes) - sizes
        part = np.repeat(before[self.starts[:-1]] // _PART, np.diff(self.starts))
        for number in np.unique(part):
            here = part == number
            yield np.repeat(self.order[here], sizes[here]), videos[spread(begins[here], sizes[here])]


def spread(begins: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return `begins[k], begins[k] + 1, ...`, `sizes[k]` numbers of each k, one after another.

    >>> spread(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    return np.arange(sizes.sum()) + np.repeat(begins - (np.cumsum(sizes) - sizes), sizes)


class Count:
    """Counts of one question, filled block by block."""

    def __init__(self, question: str, *, pairs: Pairs):
        self.question, self._pairs = question, pairs
        self.by_text = question in BY_TEXT
        self.best = pairs.best(question)
        self.counts = np.zeros((3, len(self.best)), np.int64)  # above, equal, right
        # A video that is above by a wrong caption, and so is not left open, may tie by a right one.
        self._tied = pairs.tied_groups(question, best=self.best) if question == VIDEO_TO_ANY else 0

    def add_above(self, queries: np.ndarray | slice, *, above: np.ndarray) -> None:
        """Add decided candidates above the best right one; each query at most once in a call."""
        self.counts[0, queries] += above

    def add_pairs(self, texts: np.ndarray, *, videos: np.ndarray, scores: np.ndarray) -> None:
        """Add pairs by their exact scores. Of a question among groups, each text is the only caption of its group.

        Args:
          texts: int [k].
          videos: int [k].
          scores: float64 [k].
        """
        queries = texts if self.by_text else videos
        tied = scores == self.best[queries]
        right = tied & self._pairs.right(self.question, texts=texts, videos=videos)
        self._add(queries, scores > self.best[queries], tied & ~right, right)

    def add_groups(self, first: np.ndarray, *, texts: np.ndarray, videos: np.ndarray, scores: np.ndarray) -> None:
        """Add groups of captions: a video's score is its best caption's, of those that count as right and others apart.

        Args:
          first: int [g], the first pair of each group.
          texts: int [k], the captions of one group after another.
          videos: int [k], of a group all the same.
          scores: float64 [k].
        """
        queries = videos[first]
        right, best = self._pairs.right(self.question, texts=texts, videos=videos), self.best[queries]
        wrong, own = (np.maximum.reduceat(np.where(kind, scores, -np.inf), first) for kind in (~right, right))
        self._add(queries, wrong > best, wrong == best, own == best)

    def _add(self, queries: np.ndarray, above: np.ndarray, equal: np.ndarray, right: np.ndarray) -> None:
        if self.question == VIDEO_TO_ANY:
            right = np.zeros_like(right)  # `_tied` has them all
        for count, kind in zip(self.counts, (above, equal, right), strict=True):
            np.add.at(count, queries[kind], 1)

    def ranks(self) -> Ranks:
        """Return the ranks of all texts, or of the videos that have captions."""
        found = self.counts + np.array([0, 0, 1])[:, None] * self._tied
        above, equal, right = found if self.by_text else found[:, self._pairs.captioned]
        return Ranks(above=above, equal=equal, right=1 if self.question == AMONG_CAPTIONS else right)


def decide(counts: Sequence[Count], *, pairs: Pairs, texts: np.ndarray, videos: np.ndarray) -> None:
    """Score pairs exactly, once for all questions, and count them.

    Args:
      counts: of questions among single candidates (`Count.add_pairs`).
      pairs: the rows.
      texts: int [k].
      videos: int [k].
    """
    pairs.decided += len(texts)
    scores = pairs.scores(texts, videos)
    for count in counts:
        count.add_pairs(texts, videos=videos, scores=scores)


def decide_groups(counts: Sequence[Count], *, pairs: Pairs, groups: np.ndarray, videos: np.ndarray) -> None:
    """Score videos with groups of captions exactly, once for all questions, and count them.

    Args:
      counts: of questions of videos among groups.
      pairs: the rows.
      groups: int [k], places in `Pairs.captioned`.
      videos: int [k].
    """
    pairs.decided += len(groups)
    for part in range(0, len(groups), _GROUPS):
        chosen = groups[part : part + _GROUPS]
        begins, sizes = pairs.starts[chosen], pairs.starts[chosen + 1] - pairs.starts[chosen]
        texts, queries = pairs.order[spread(begins, sizes)], np.repeat(videos[part : part + _GROUPS], sizes)
        scores, first = pairs.scores(texts, queries), np.cumsum(sizes) - sizes
        for count in counts:
            count.add_groups(first, texts=texts, videos=queries, scores=scores)
