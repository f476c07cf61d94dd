"""The browser of queries: a data file beside the page, and the section that a script brings to life."""

from pathlib import Path
from typing import Any

import numpy as np

from ...pages.markup import Html, tag
from ...pages.page import paragraph, script, section, write_data
from ..embedding.embeddings import Embeddings
from ..measures.ranks import Ranks
from ..measures.rows import check_pair, cosine, parts
from .examples import SEED, TOP, outlined
from .gallery import Gallery

QUERIES = "queries.js"
"""The data file in the folder of the report."""
MOST_QUERIES = 10_000
"""Queries of the browser; of more, half are the worst ranks, and half a random sample of the others."""
_ORDERS = {
    "worst": ("Worst", "by rank of the right clip, worst first"),
    "best": ("Best", "by rank, best first, then by how far the right clip scores above all others"),
    "confused": ("Most confused", "by how far a wrong clip scores above the right one"),
    "random": ("Random", f"in a random order (seed {SEED})"),
}
_LONGEST = 240  # characters of a clip's caption below its picture
_PAGES = 10  # of each order, whose pictures come first


def browser_section(
    out: Path,
    *,
    embeddings: Embeddings,
    ranks: Ranks,
    gallery: Gallery,
    same_text: np.ndarray | None = None,
    most: int = MOST_QUERIES,
) -> Html:
    """Write the browser's data and the pictures of its clips; return its section, hidden until the script runs.

    The script hides the element "static-queries" and shows the browser in its place.

    Args:
      out: folder of the report.
      embeddings: of the split, with captions.
      ranks: of text to video, the ranks that are shown.
      gallery: of the split's clips.
      same_text: as in `examples.query_card`.
      most: how many queries.
    """
    chosen = choose_queries(ranks, most=most)
    found = scored_queries(chosen, embeddings=embeddings, same_text=same_text)
    gallery.prepare(_clips_in_order(found, ranks=ranks.expected[chosen], pictures=10 * _PAGES))
    rows, clips = [], {}
    for place, query in enumerate(chosen.tolist()):
        own, best = int(found["own"][place]), found["best"][place].tolist()
        clips |= {clip: [gallery.caption(clip)[:_LONGEST], int(gallery.has(clip))] for clip in (own, *best)}
        rows.append(
            [
                embeddings.captions[query],
                round(float(ranks.expected[query]), 1),
                int(ranks.equal[query]),
                round(float(found["margin"][place]), 4),
                own,
                round(float(found["right"][place]), 3),
                best,
                [round(score, 3) for score in found["scores"][place].tolist()],
                [clip for clip, alike in zip(best, found["alike"][place].tolist(), strict=True) if alike],
            ]
        )
    total = len(embeddings.captions)
    data = {"total": total, "top": TOP, "orders": {key: about for key, (_, about) in _ORDERS.items()}}
    write_data(out / QUERIES, name="twinreelQueries", value=data | {"clips": clips, "queries": rows})
    return _section(shown=len(rows), total=total, same_text=same_text)


def choose_queries(ranks: Ranks, *, most: int) -> np.ndarray:
    """Return the queries that are shown, int [k], in random order: all, or the worst ranks and a sample of the others.

    >>> one = Ranks(above=np.array([0, 7, 0, 0, 9, 0]), equal=np.zeros(6))
    >>> sorted(choose_queries(one, most=9).tolist()), set(choose_queries(one, most=4).tolist()) >= {1, 4}
    ([0, 1, 2, 3, 4, 5], True)
    """
    rng, n = np.random.default_rng(SEED), len(ranks.above)
    if n <= most:
        return rng.permutation(n)
    worst_first = np.argsort(-ranks.expected, kind="stable")
    sample = rng.choice(worst_first[most // 2 :], most - most // 2, replace=False)
    return rng.permutation(np.concatenate([worst_first[: most // 2], sample]))


def scored_queries(
    chosen: np.ndarray, *, embeddings: Embeddings, same_text: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Score captions with all clips, in blocks.

    Args:
      chosen: int [k], captions.
      embeddings: of the split.
      same_text: int [n], equal for equal captions, whose clips are right, too; None: a caption's own clip only.

    Returns:
      `own` int [k], the caption's clip; `best` int [k,t], the best clips, best first, `scores` float [k,t] and `alike`
      bool [k,t], whether a clip that is not the own one has the same text; `right` float [k], the score of the own
      clip; `margin` float [k], the best wrong score less the best right one (negative where the query succeeds; 0 where
      all clips are right).
    """
    text, video, index = check_pair(embeddings.text, video=embeddings.video, video_of_text=embeddings.video_of_text)
    holders: dict[int, list[int]] = {}
    if same_text is not None:
        for number, clip in zip(same_text.tolist(), index.tolist(), strict=True):
            holders.setdefault(number, []).append(clip)
    found: list[dict[str, Any]] = []
    for block in parts(len(chosen), width=len(video)):
        queries = chosen[block]
        scores, own = cosine(text[queries], gallery=video), index[queries]
        right = np.zeros(scores.shape, bool)
        right[np.arange(len(queries)), own] = True
        if same_text is not None:
            for row, number in enumerate(same_text[queries].tolist()):
                right[row, holders[number]] = True
        best = best_clips(scores)
        wrong = np.where(right, -np.inf, scores).max(axis=1)
        margin = wrong - np.where(right, scores, -np.inf).max(axis=1)
        found.append(
            {
                "own": own,
                "best": best,
                "scores": np.take_along_axis(scores, best, axis=1),
                "alike": np.take_along_axis(right, best, axis=1) & (best != own[:, None]),
                "right": scores[np.arange(len(queries)), own],
                "margin": np.where(np.isfinite(margin), margin, 0.0),
            }
        )
    return {key: np.concatenate([part[key] for part in found]) for key in found[0]}


def best_clips(scores: np.ndarray, *, count: int = TOP) -> np.ndarray:
    """Return the clips with the highest scores [k,m], int [k,count], best first, equal ones in their order.

    >>> best_clips(np.array([[0.1, 0.9, 0.9, 0.3]]), count=3).tolist()
    [[1, 2, 3]]
    """
    count = min(count, scores.shape[1])
    least = np.partition(scores, -count, axis=1)[:, -count, None]
    order = np.empty((len(scores), count), np.int64)
    for row, (values, limit) in enumerate(zip(scores, least, strict=True)):
        high = np.flatnonzero(values >= limit)
        order[row] = high[np.argsort(-values[high], kind="stable")][:count]
    return order


def _clips_in_order(found: dict[str, np.ndarray], *, ranks: np.ndarray, pictures: int) -> list[int]:
    """Return the clips of all queries, those of the first queries of each order first."""
    margin = found["margin"]
    orders = [np.lexsort((-margin, -ranks)), np.lexsort((margin, ranks)), np.argsort(-margin), np.arange(len(ranks))]
    first = np.stack([order[:pictures] for order in orders], axis=1).ravel()  # the orders take turns
    queries = dict.fromkeys([*first.tolist(), *range(len(ranks))])
    return [clip for query in queries for clip in (int(found["own"][query]), *found["best"][query].tolist())]


def _section(*, shown: int, total: int, same_text: np.ndarray | None) -> Html:
    which = f"All {total:,} captions"
    if shown < total:
        which = (
            f"{shown:,} of {total:,} captions (the {shown // 2:,} worst ranks and a random sample of the others, seed "
            f"{SEED})"
        )
    intro = f"{which}, each with its {TOP} best clips, best first, with their cosines and own captions."
    tabs = [
        tag("button", name, type="button", role="tab", id=f"order-{key}", data_order=key, aria_controls="queries")
        for key, (name, _) in _ORDERS.items()
    ]
    search = tag("input", type="search", id="filter", placeholder="words of the caption", autocomplete="off")
    made = section(
        "Queries",
        paragraph(f"{intro} {outlined(same_text)}"),
        tag(
            "div",
            tag("div", *tabs, class_="tabs", role="tablist", aria_label="Order of the queries"),
            tag("label", "Filter", search),
            class_="bar",
        ),
        tag("p", class_="aside", id="found", role="status"),
        tag("div", id="queries", role="tabpanel", tabindex="0"),
        tag(
            "nav",
            tag("button", "← Previous", type="button", id="previous"),
            tag("label", "Page", tag("input", type="number", id="page", min="1", value="1"), tag("span", id="pages")),
            tag("button", "Next →", type="button", id="next"),
            class_="pager",
            aria_label="Pages of queries",
        ),
    )
    hidden = tag("div", made, id="browser", hidden="hidden")
    return Html(hidden + tag("script", " ", src=QUERIES) + script("browser.js"))
