"""The report's examples: queries with the clips that they found, and pairs of order twins."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...pages.markup import Html, join, tag
from ...pages.thumbnails import clip_figure, write_strip, write_webp
from ..embed import Embeddings
from ..measures.ranks import Ranks
from ..measures.rows import check_pair, cosine, paired_cosine
from ..protocols.twins import twin_pairs
from .pictures import clip_frames

if TYPE_CHECKING:
    from ...data.batches.records import Records

_TOP = 5
_SAMPLED, _WORST, _TWINS = 6, 4, 3


class Gallery:
    """Thumbnails of a split's clips as `<figure>` elements; each clip's file is written when it is first shown."""

    def __init__(self, out: Path, *, embeddings: Embeddings, records: "Records | None"):
        self._out, self._records, self._embeddings = out, records, embeddings
        self._split = embeddings.protocol.get("split")
        self._first_caption: dict[int, str] = {}
        for text, clip in zip(embeddings.captions, embeddings.video_of_text.tolist(), strict=False):
            self._first_caption.setdefault(clip, text)

    def caption(self, clip: int) -> str:
        """Return the first caption of a clip, or its number where captions are not known."""
        return self._first_caption.get(clip, f"clip {clip}")

    def figure(self, clip: int, *, note: Html, mark: str = "", caption: str | None = None, strip: bool = False) -> Html:
        """Return one clip as `<figure>`.

        Args:
          clip: index in the split.
          note: the line below the picture.
          mark: CSS class.
          caption: below the note; the clip's first caption by default.
          strip: frames side by side instead of the moving picture.
        """
        own = self.caption(clip)
        caption = own if caption is None else caption
        return clip_figure(self._picture(clip, strip=strip), note=note, caption=caption, alt=own, mark=mark)

    def shape(self) -> str:
        """Return the CSS aspect ratio that suits most clips."""
        ratios = [row["width"] / row["height"] for row in self._embeddings.rows if row.get("height")]
        return f"{np.clip(np.median(ratios), 0.75, 16 / 9) if ratios else 4 / 3:.3f}"

    def _picture(self, clip: int, *, strip: bool) -> str | None:
        if self._records is None:
            return None
        path = self._out / "media" / f"clip-{clip:05d}{'-strip' if strip else ''}.webp"
        if not path.exists():
            jpegs, timestamps_s = clip_frames(self._records, split=str(self._split), index=clip)
            if strip:
                write_strip(path, jpegs=jpegs)
            else:
                write_webp(path, jpegs=jpegs, timestamps_s=timestamps_s)
        return f"media/{path.name}"


def pick_queries(ranks: Ranks, *, embeddings: Embeddings, seed: int) -> tuple[list[int], list[int]]:
    """Choose captions to show: the worst ranks (of different clips), and a seeded sample of the rest; no text twice."""
    index, captions = embeddings.video_of_text, embeddings.captions
    worst: list[int] = []
    for query in np.argsort(-ranks.expected, kind="stable").tolist():
        if len(worst) == _WORST or ranks.expected[query] <= 1:
            break
        if index[query] not in index[worst] and captions[query] not in [captions[other] for other in worst]:
            worst.append(query)
    shown = {captions[query] for query in worst}
    rest = [
        query for text, query in {t: q for q, t in reversed(list(enumerate(captions)))}.items() if text not in shown
    ]
    sampled = np.random.default_rng(seed).choice(sorted(rest), size=min(_SAMPLED, len(rest)), replace=False)
    return sorted(sampled.tolist()), worst


def query_card(
    query: int, *, embeddings: Embeddings, ranks: Ranks, gallery: Gallery, same_text: np.ndarray | None = None
) -> Html:
    """Return a query with its five best clips; if no right one is among them, the query's own clip stands apart.

    Args:
      query: index of the caption.
      embeddings: of the split.
      ranks: of text to video.
      gallery: of the split's clips.
      same_text: int [n], equal for equal captions: clips with the query's text are marked, too. None: its own only.
    """
    text, video, index = check_pair(embeddings.text, video=embeddings.video, video_of_text=embeddings.video_of_text)
    scores = cosine(text[query : query + 1], gallery=video)[0]
    own = int(index[query])
    alike = set() if same_text is None else set(index[same_text == same_text[query]].tolist()) - {own}
    marks = dict.fromkeys(alike, ("alike", " same text")) | {own: ("right", " right clip")}

    def figure(clip: int, *, place: str = "", caption: str | None = None) -> Html:
        mark, name = marks.get(clip, ("", ""))
        note = join([tag("b", f"{scores[clip]:.3f}"), name])
        return gallery.figure(clip, note=note, mark=f"{mark} {place}".strip(), caption=caption)

    best = np.argsort(-scores, kind="stable")[:_TOP].tolist()
    # The own clip may have many captions: show the one that was asked for.
    figures = [figure(clip, caption=embeddings.captions[query] if clip == own else None) for clip in best]
    apart = "" if marks.keys() & set(best) else figure(own, place="apart", caption="")
    rank = ranks.expected[query]
    grade = "first" if rank <= 1 else "near" if rank <= _TOP else "far"
    tied = f", tied with {ranks.equal[query]}" if ranks.equal[query] else ""
    caption = embeddings.captions[query]
    header = tag(
        "header",
        tag("q", caption, title=caption),
        tag("span", f"rank {_number(rank)}{tied}", class_=f"rank {grade}"),
        apart,
    )
    return tag("article", header, tag("div", *figures, class_="five"), class_="query")


def twin_cards(*, embeddings: Embeddings, gallery: Gallery, seed: int) -> Html:
    """Return a few pairs of twins: the frames of both clips in order, each caption with its score on both."""
    pairs, _ = twin_pairs(embeddings)
    text, video, index = check_pair(embeddings.text, video=embeddings.video, video_of_text=embeddings.video_of_text)
    first_caption = {clip: place for place, clip in reversed(list(enumerate(index.tolist())))}
    clips = np.unique(np.sort(pairs[:, 1:], axis=1), axis=0)
    chosen = np.random.default_rng(seed).choice(len(clips), size=min(_TWINS, len(clips)), replace=False)
    cards = []
    for pair in clips[np.sort(chosen)].tolist():
        figures = []
        for own, twin in (pair, pair[::-1]):
            caption = first_caption[own]
            here, there = paired_cosine(text[[caption, caption]], second=video[[own, twin]])
            sign, grade = (">", "right") if here > there else ("<", "wrong") if here < there else ("=", "")
            note = join(["own clip ", tag("b", f"{here:.3f}"), f" {sign} twin {there:.3f}"])
            mark = f"strip {grade}".strip()
            figures.append(gallery.figure(own, note=note, mark=mark, caption=embeddings.captions[caption], strip=True))
        cards.append(tag("div", *figures, class_="pair"))
    return tag("div", *cards, class_="pairs")


def _number(rank: float) -> str:
    """A rank as a person writes it: `3`, or `3.5` where a tie halves it."""
    return f"{rank:,.0f}" if rank == int(rank) else f"{rank:,.1f}"
