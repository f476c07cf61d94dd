"""Queries on which two models differ most, with the clips that each of them found."""

from collections.abc import Sequence

import numpy as np

from ...pages.markup import Html, join, tag
from ...pages.page import paragraph, section
from ..measures.rows import check_pair, cosine
from ..protocols.models import Measured, by_model, most_different
from .browser import best_clips
from .examples import TOP, written_rank
from .gallery import Gallery

_COUNT = 5  # queries of each side


def different_queries(runs: Sequence[Measured], *, model: str, gallery: Gallery) -> Html:
    """Return the queries whose ranks differ most between a model and the first one; "" where captions are not known.

    Args:
      runs: of all models.
      model: the other model.
      gallery: of the clips.
    """
    if not runs[0].embeddings.captions:
        return Html()
    first = runs[0].model
    better, worse = most_different(runs, model=model, count=_COUNT)
    parts = []
    for winner, loser, queries in ((model, first, better), (first, model, worse)):
        if queries:
            cards = [_card(query, runs=runs, models=(first, model), gallery=gallery) for query in queries]
            parts += [tag("h3", f"{winner} better than {loser}"), *cards]
    if not parts:
        return section(f"Queries: {first} and {model}", paragraph("The two rank every query alike."))
    text = (
        f"The captions whose ranks differ most, as ratios, at most {_COUNT} of each side; of several seeds the mean "
        "rank and the clips of the first. The right clip is outlined."
    )
    return section(f"Queries: {first} and {model}", paragraph(text), *parts)


def _card(query: int, *, runs: Sequence[Measured], models: tuple[str, str], gallery: Gallery) -> Html:
    embeddings = runs[0].embeddings
    caption, own = embeddings.captions[query], int(embeddings.video_of_text[query])
    rows, seen = [], False
    for name in models:
        of_model = by_model(runs)[name]
        rank = float(np.mean([run.ranks[0].expected[query] for run in of_model]))
        clips, scores = _found(of_model[0], query)
        seen = seen or own in clips
        figures = [
            gallery.figure(
                clip,
                note=join([tag("b", f"{score:.3f}"), " right clip" if clip == own else ""]),
                mark="right" if clip == own else "",
                caption=caption if clip == own else None,
            )
            for clip, score in zip(clips, scores, strict=True)
        ]
        grade = "first" if rank <= 1 else "near" if rank <= TOP else "far"
        said = tag("span", f"{name}: rank {written_rank(rank)}", class_=f"rank {grade}")
        rows.append(tag("div", said, tag("div", *figures, class_="five"), class_="found"))
    apart = "" if seen else gallery.figure(own, note=Html("right clip"), mark="right apart", caption="")
    header = tag("header", tag("q", caption, title=caption), apart)
    return tag("article", header, tag("div", *rows, class_="both"), class_="query")


def _found(run: Measured, query: int) -> tuple[list[int], list[float]]:
    """The best clips of a caption and their scores."""
    embeddings = run.embeddings
    text, video, _ = check_pair(embeddings.text, video=embeddings.video, video_of_text=embeddings.video_of_text)
    scores = cosine(text[query : query + 1], gallery=video)
    best = best_clips(scores)[0]
    return best.tolist(), scores[0, best].tolist()
