"""The report's examples: queries with the clips that they found, and pairs of order twins."""

import numpy as np

from ...pages.markup import Html, join, tag
from ...pages.page import paragraph, section
from ..embedding.embeddings import Embeddings
from ..measures.ranks import Ranks
from ..measures.rows import check_pair, cosine, paired_cosine
from ..protocols.twins import twin_pairs
from .gallery import Gallery

SEED = 0
"""Of all that a page draws at random."""
TOP = 5
"""Clips that are shown for a query."""
_SAMPLED, _WORST, _TWINS = 6, 4, 3


def example_sections(
    *, embeddings: Embeddings, ranks: Ranks, gallery: Gallery, same_text: np.ndarray | None
) -> tuple[Html, ...]:
    """Return captions with their five best clips: a seeded sample, then the worst. Arguments as in `query_card`."""
    marked = outlined(same_text)
    sampled, worst = pick_queries(ranks, embeddings=embeddings, seed=SEED)

    def cards(queries: list[int]) -> Html:
        shown = {"embeddings": embeddings, "ranks": ranks, "gallery": gallery, "same_text": same_text}
        return join(query_card(query, **shown) for query in queries)

    below = f"; the {len(worst)} worst follow below" if worst else ""
    intro = (
        f"{len(sampled)} captions drawn at random (seed {SEED}{below}) and the five best clips of each, best first, "
        f"with their cosines and own captions. {marked}"
    )
    parts = [section("Example queries", paragraph(intro), cards(sampled))]
    if worst:
        failed = f"The {len(worst)} worst ranks. The caption's own clip is shown below it if none of the five is right."
        parts.append(section("Worst queries", paragraph(failed), cards(worst)))
    return tuple(parts)


def outlined(same_text: np.ndarray | None) -> str:
    """Return what the outlines of clips mean, in a sentence."""
    if same_text is None:
        return "The right clip is outlined."
    return "The caption's own clip is outlined, and so are clips with the same text (dashed); ranks are any-match."


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

    best = np.argsort(-scores, kind="stable")[:TOP].tolist()
    # The own clip may have many captions: show the one that was asked for.
    figures = [figure(clip, caption=embeddings.captions[query] if clip == own else None) for clip in best]
    apart = "" if marks.keys() & set(best) else figure(own, place="apart", caption="")
    rank = ranks.expected[query]
    grade = "first" if rank <= 1 else "near" if rank <= TOP else "far"
    tied = f", tied with {ranks.equal[query]}" if ranks.equal[query] else ""
    caption = embeddings.captions[query]
    header = tag(
        "header",
        tag("q", caption, title=caption),
        tag("span", f"rank {written_rank(rank)}{tied}", class_=f"rank {grade}"),
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


def written_rank(rank: float) -> str:
    """Return a rank as a person writes it: `3`, or `3.5` where a tie halves it."""
    return f"{rank:,.0f}" if rank == int(rank) else f"{rank:,.1f}"
