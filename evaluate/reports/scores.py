"""Sections of the retrieval report with charts: ranks and scores, and the curves of the training run."""

import json
from pathlib import Path

import numpy as np

from ...pages.markup import Html, tag
from ...pages.page import paragraph, section
from ..embedding.embeddings import Embeddings
from ..measures.ranks import Ranks
from ..measures.rows import check_pair, cosine
from .charts import cosine_map, rank_histogram, recall_curves, score_histogram, training_curves

_HEAT_CLIPS, _SCORE_CLIPS = 100, 1000


def scores_section(*, embeddings: Embeddings, ranks: tuple[Ranks, Ranks], same_text: np.ndarray | None) -> Html:
    """Return the curves of recall, the histogram of ranks, and the scores.

    Args:
      embeddings: of the split.
      ranks: of text to video and video to text.
      same_text: int [n], equal for equal captions, which are then right pairs, too; None: own clips only.
    """
    t2v, v2t = ranks
    total = len(embeddings.video)
    similarity, _ = _first_similarity(embeddings, clips=_HEAT_CLIPS)
    shown = len(similarity)
    which = f"The first {shown} of {total:,} clips" if total > shown else f"All {total:,} clips"
    several = " (first caption of each)" if len(embeddings.text) > len(np.unique(embeddings.video_of_text)) else ""
    own = "" if same_text is None else " Only a text's own clip counts."
    scores, scored = _first_similarity(embeddings, clips=_SCORE_CLIPS)
    right = np.eye(len(scores), dtype=bool)
    if same_text is not None:
        right |= same_text[scored][:, None] == same_text[scored]
    figures = (
        (
            recall_curves(text_to_video=t2v, video_to_text=v2t, videos=total),
            f"Share of queries whose right answer is among the first K.{own}",
        ),
        (rank_histogram(text_to_video=t2v, video_to_text=v2t), f"Ranks of the right answers.{own}"),
        (
            cosine_map(similarity),
            f"{which}{several}, similar clips side by side. Right pairs lie on the diagonal; blocks around it are "
            "clips that look or read alike.",
        ),
        (
            score_histogram(scores, right=right),
            "Cosines of right pairs and of all others: the further apart, the better the towers agree.",
        ),
    )
    cells = [tag("figure", svg, tag("figcaption", text)) for svg, text in figures]
    return section("Ranks and scores", tag("div", *cells, class_="charts"))


def _first_similarity(embeddings: Embeddings, *, clips: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of the first `clips` captioned clips with their first captions, similar clips side by side.

    Returns:
      float64 [c,c], captions by clips, and the index of each caption, int [c].
    """
    text, video, index = check_pair(embeddings.text, video=embeddings.video, video_of_text=embeddings.video_of_text)
    captioned, captions = np.unique(index, return_index=True)
    chosen, captions = captioned[:clips], captions[:clips]
    order = _chain(cosine(video[chosen], gallery=video[chosen]))
    return cosine(text[captions[order]], gallery=video[chosen[order]]), captions[order]


def _chain(similarity: np.ndarray) -> list[int]:
    """Walk from the first item to the nearest one not yet seen, and so on."""
    order, left = [0], set(range(1, len(similarity)))
    while left:
        order.append(max(left, key=lambda item: (similarity[order[-1], item], -item)))
        left.remove(order[-1])
    return order


def training_section(history: Path | None) -> Html:
    """Return the curves of a `metrics.jsonl`; "" without one."""
    if history is None:
        return Html()
    lines, broken = [], 0
    for line in history.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:  # a run that was killed may leave half a line
            broken += 1
    svg = training_curves(lines)
    if not svg:
        return Html()
    left_out = f"Unreadable lines of {history.name} left out: {broken}."
    note = paragraph(left_out, class_="aside") if broken else ""
    return section("Training", tag("figure", svg, class_="full"), note)
