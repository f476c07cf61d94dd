"""The report's examples: queries with the clips that they found, and pairs of order twins."""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .embed import Embeddings
from .metrics import Ranks, check_pair, cosine, paired_cosine
from .pictures import clip_frames, write_sheet, write_webp
from .twins import twin_pairs

if TYPE_CHECKING:
    from ..data.batches.records import Records

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

    def figure(self, clip: int, *, note: str, mark: str = "", caption: str | None = None, sheet: bool = False) -> str:
        """Return one clip as `<figure>`.

        Args:
          clip: index in the split.
          note: HTML below the picture.
          mark: CSS class.
          caption: text below the note; the clip's first caption by default.
          sheet: frames side by side instead of the moving picture.
        """
        caption = self.caption(clip) if caption is None else caption
        return (
            f'<figure class="clip {mark}">{self._picture(clip, sheet=sheet)}'
            f'<figcaption><span class="note">{note}</span>'
            f'<span class="own" title="{escape(caption)}">{escape(caption)}</span></figcaption></figure>'
        )

    def shape(self) -> str:
        """Return the CSS aspect ratio that suits most clips, `W / H`."""
        ratios = [row["width"] / row["height"] for row in self._embeddings.rows if row.get("height")]
        return f"{np.clip(np.median(ratios), 0.75, 16 / 9) if ratios else 4 / 3:.3f}"

    def _picture(self, clip: int, *, sheet: bool) -> str:
        if self._records is None:
            return '<span class="blank"></span>'
        path = self._out / "media" / f"clip-{clip:05d}{'-sheet' if sheet else ''}.webp"
        if not path.exists():
            jpegs, timestamps_s = clip_frames(self._records, split=str(self._split), index=clip)
            if sheet:
                write_sheet(path, jpegs=jpegs)
            else:
                write_webp(path, jpegs=jpegs, timestamps_s=timestamps_s)
        alt = escape(self.caption(clip))
        return f'<img src="media/{path.name}" alt="{alt}" loading="lazy" decoding="async">'


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


def query_card(query: int, *, embeddings: Embeddings, ranks: Ranks, gallery: Gallery) -> str:
    """Return one query with its five best clips, the right one marked, and the right one behind if it is not there."""
    text, video, index = check_pair(embeddings.text, video=embeddings.video, video_of_text=embeddings.video_of_text)
    scores = cosine(text[query : query + 1], gallery=video)[0]
    right = int(index[query])
    best = np.argsort(-scores, kind="stable")[:_TOP].tolist()
    figures = [
        gallery.figure(
            clip,
            note=f"<b>{scores[clip]:.3f}</b>" + (" right clip" if clip == right else ""),
            mark="right" if clip == right else "",
            # The right clip may have many captions: show the one that was asked for.
            caption=embeddings.captions[query] if clip == right else None,
        )
        for clip in best
    ]
    rank = ranks.expected[query]
    verdict = "first" if rank <= 1 else "near" if rank <= _TOP else "far"
    tied = f", tied with {ranks.equal[query]}" if ranks.equal[query] else ""
    apart = ""
    if right not in best:
        apart = gallery.figure(right, note=f"<b>{scores[right]:.3f}</b> right clip", mark="right apart", caption="")
    caption = escape(embeddings.captions[query])
    return (
        f'<article class="query"><header><q title="{caption}">{caption}</q>'
        f'<span class="rank {verdict}">rank {_number(rank)}{tied}</span>{apart}</header>'
        f'<div class="strip">{"".join(figures)}</div></article>'
    )


def twin_cards(*, embeddings: Embeddings, gallery: Gallery, seed: int) -> str:
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
            sign, verdict = (">", "right") if here > there else ("<", "wrong") if here < there else ("=", "")
            note = f"own clip <b>{here:.3f}</b> {escape(sign)} twin {there:.3f}"
            mark = f"sheet {verdict}"
            figures.append(gallery.figure(own, note=note, mark=mark, caption=embeddings.captions[caption], sheet=True))
        cards.append(f'<div class="pair">{"".join(figures)}</div>')
    return "".join(cards)


def _number(rank: float) -> str:
    """A rank as a person writes it: `3`, or `3.5` where a tie halves it."""
    return f"{rank:,.0f}" if rank == int(rank) else f"{rank:,.1f}"
