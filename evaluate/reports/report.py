"""The page of the retrieval report: one folder that opens from disk, without network, fonts or scripts."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pages.markup import Html, join, tag
from ...pages.page import details, paragraph, section, write_page
from ...pages.tables import Row, Tile, protocol_list, table, tiles
from ..embed import Embeddings
from ..measures.ranks import RECALL_AT, Ranks
from ..measures.rows import check_pair, cosine
from ..protocols.directions import text_to_video
from ..protocols.marks import legend, mark_of
from ..protocols.repeated import CLASSIFICATION, ROWS, caption_numbers, repetition
from ..protocols.retrieval import INTERVALS
from ..protocols.twins import CHANCE
from .charts import cosine_map, minimal_pair_chart, rank_histogram, recall_curves, score_histogram, training_curves
from .controls import further_sections
from .examples import Gallery, pick_queries, query_card, twin_cards
from .further import comparison_section, readings_section, reranked_section, row_name

if TYPE_CHECKING:
    from ...data.batches.records import Records

_KEYS = (*(f"R@{k}" for k in RECALL_AT), "MdR", "MnR")
_HEAT_CLIPS, _SCORE_CLIPS = 100, 1000
_SEED = 0


def write_report(
    out: Path,
    *,
    results: dict[str, Any],
    embeddings: Embeddings,
    ranks: tuple[Ranks, Ranks],
    records: "Records | None" = None,
    history: Path | None = None,
) -> Path:
    """Write `out/index.html` and its pictures, `out/media/`.

    Args:
      out: the folder; made if absent. Thumbnails of an earlier report in it are replaced.
      results: the content of `retrieval.json`.
      embeddings: the embeddings that `results` was measured on; without captions the page has no examples.
      ranks: of text to video and video to text, see `retrieval.retrieval_ranks`.
      records: the prepared data set, for thumbnails; None for a page without them.
      history: `metrics.jsonl` of the training run, for the curves; None for a page without them.

    Returns:
      The path of the page.
    """
    media = out / "media"
    media.mkdir(parents=True, exist_ok=True)
    for old in media.glob("clip-*.webp"):
        old.unlink()
    same_text = caption_numbers(embeddings) if "text_to_video_any_match" in results else None
    gallery = Gallery(out, embeddings=embeddings, records=records)
    protocol = results["protocol"]
    return write_page(
        out / "index.html",
        kind="zero-shot retrieval",
        title=f"{protocol['dataset'] or 'embeddings'} · {protocol['split'] or 'all'}",
        subtitle=_subtitle(protocol),
        sections=[
            _figures(results),
            _table(results),
            comparison_section(results),
            reranked_section(results),
            *further_sections(results),
            readings_section(results),
            section("Protocol", protocol_list(protocol)),
            _twins(results, embeddings=embeddings, gallery=gallery),
            _minimal_pairs(results),
            *_queries(embeddings=embeddings, ranks=ranks[0], gallery=gallery, same_text=same_text),
            _charts(embeddings=embeddings, ranks=ranks, same_text=same_text),
            _training(history),
        ],
        footer=join(
            [
                "The same figures are in ",
                tag("a", "retrieval.json", href="retrieval.json"),
                "; ",
                tag("code", "twinreel evaluate --embeddings embeddings.npz"),
                " computes them again. Clips longer than six seconds are played faster here.",
            ]
        ),
        variables={"shape": gallery.shape()},
    )


def _subtitle(protocol: dict[str, Any]) -> str:
    parts = [f"{protocol['texts']:,} captions against {protocol['videos']:,} clips"]
    if protocol["frames"]:
        parts.append(f"{protocol['frames']} frames per clip")
    if protocol["step"] is not None:
        parts.append(f"checkpoint at step {protocol['step']:,}")
    return " · ".join(parts)


def _figures(results: dict[str, Any]) -> Html:
    """The headline figures, each with its chance level."""
    t2v, v2t, videos = results["text_to_video"], results["video_to_text"], results["protocol"]["videos"]
    shown = [
        ("Text → video R@1", t2v["R@1"], f"chance {_percent(100 / videos)}"),
        ("Video → text R@1", v2t["R@1"], f"chance {_percent(100 / v2t['n'])}"),
        ("Text → video R@5", t2v["R@5"], f"chance {_percent(min(100, 500 / videos))}"),
    ]
    if block := results.get("text_to_video_any_match"):
        shown.append(("Any match R@1", block["R@1"], f"text → video; chance {_percent(block['chance_R@1'])}"))
    if block := results.get(CLASSIFICATION):
        shown.append(
            (
                "Classification top-1",
                block["top1"],
                f"of {block['classes']:,} texts; chance {_percent(block['chance'])}",
            )
        )
    if twins := results.get("order_twins"):
        shuffled = twins["accuracy_shuffled"]
        note = (
            f"frames shuffled {shuffled:.1f} %{mark_of(results)}" if shuffled is not None else f"chance {CHANCE:.0f} %"
        )
        shown.append(("Order twins", twins["accuracy"], note))
    mark = mark_of(results)
    made = [Tile(name=name, value=f"{value:.1f}", unit=f"%{mark}", note=note) for name, value, note in shown]
    made.insert(3, Tile(name="Median rank", value=f"{t2v['MdR']:g}{mark}", note=f"text → video, of {videos:,}"))
    return tiles(made)


def _percent(value: float) -> str:
    return f"{value:.1f} %" if value >= 0.1 else f"{value:.2g} %"


def _table(results: dict[str, Any]) -> Html:
    """All rows, with best and worst cases where there are ties, and the coverage."""
    rows, sign = [], mark_of(results)
    for key in ROWS:
        if block := results.get(key):
            rows.append(_row(row_name(key), block, n=f"{block['n']:,}", mark="main", sign=sign))
            if drawn := results.get(INTERVALS, {}).get(key):
                ends = (
                    f"{drawn[k]['low']:.1f}{sign} – {drawn[k]['high']:.1f}{sign}" if k in drawn else "" for k in _KEYS
                )
                rows.append(Row(name="95 % interval", cells=[*ends, ""], mark="bound"))
            if block["optimistic"] != block["pessimistic"]:
                rows.append(_row("best case", block["optimistic"], mark="bound", sign=sign))
                rows.append(_row("worst case", block["pessimistic"], mark="bound", sign=sign))
    head = ("R@1, %", "R@5, %", "R@10, %", "median rank", "mean rank", "queries")
    ties = (
        "Scores are raw cosines, without re-ranking. Ties are resolved in expectation over a uniformly random order of "
        "the tied candidates. Where there are any, two more rows give the best case (every tie is won) and the worst "
        "case (every tie is lost). Intervals of 95 % are drawn by bootstrap over clips."
    )
    return section(
        "Retrieval",
        table(head, rows=rows),
        *_coverage(results["coverage"]),
        *([paragraph(legend(results), class_="bad")] if sign else []),
        *(paragraph(line.replace(" %", f" %{sign}")) for line in repetition(results)),
        paragraph(ties, class_="aside"),
    )


def _row(name: str, figures: dict[str, float], *, mark: str, sign: str, n: str = "") -> Row:
    return Row(name=name, cells=[*(f"{figures[key]:.2f}{sign}" for key in _KEYS), n], mark=mark)


def _coverage(coverage: dict[str, Any]) -> list[Html]:
    if coverage["expected"] is None:
        unknown = "Coverage unknown: these embeddings came without a list of the clips of the split."
        return [paragraph(unknown, class_="aside")]
    line = f"Coverage {_exact(100 * coverage['fraction'])} %: {coverage['found']:,} of {coverage['expected']:,} clips."
    missing = coverage["missing"]
    if not missing:
        return [paragraph(line, class_="aside")]
    clips = [tag("li", tag("code", clip["clip_id"]), " ", clip["reason"]) for clip in coverage["missing_clips"]]
    return [
        paragraph(line, class_="bad"),
        details(f"{missing:,} missing clip{'s' * (missing != 1)}", tag("ul", *clips)),
    ]


def _exact(percent: float) -> str:
    """A percentage that is 100 only where nothing is missing."""
    return "100" if percent == 100 else f"{min(percent, 99.99):.2f}"


def _twins(results: dict[str, Any], *, embeddings: Embeddings, gallery: Gallery) -> Html:
    twins = results.get("order_twins")
    if not twins:
        return Html()
    shuffled, sign = twins["accuracy_shuffled"], mark_of(results)
    control = (
        [] if shuffled is None else [", and ", tag("b", f"{shuffled:.1f} %{sign}"), " when the frames are shuffled"]
    )
    text = paragraph(
        "Twins show the same events in a different order, and their captions differ in the same way; only a model that "
        f"uses the order of frames can tell them apart. Of {twins['n']:,} captions ",
        tag("b", f"{twins['accuracy']:.1f} %{sign}"),
        " score their own clip above its twin",
        *control,
        f". Chance is {CHANCE:.0f} %. Each pair below is shown with its frames from first to last.",
    )
    cards = twin_cards(embeddings=embeddings, gallery=gallery, seed=_SEED) if embeddings.captions else ""
    return section("Order twins", text, cards)


def _minimal_pairs(results: dict[str, Any]) -> Html:
    pairs = results.get("minimal_pairs")
    if not pairs:
        return Html()
    text = paragraph(
        "Each pair is a caption and its foil, the same caption with one thing changed. A model wins a pair if the "
        f"caption scores above the foil on the caption's own clip. Chance is {CHANCE:.0f} %: an attribute that stays "
        "there is not seen in the clip or not read in the caption. Bars are 95 % confidence intervals (Wilson)."
    )
    sign = mark_of(results)
    ordered = sorted(pairs.items(), key=lambda item: -item[1]["accuracy"])
    rows = [
        Row(
            name=name,
            cells=[
                f"{one['accuracy']:.1f}{sign}",
                f"{one['low']:.1f}{sign} to {one['high']:.1f}{sign}",
                f"{one['n']:,}",
            ],
        )
        for name, one in ordered
    ]
    figures = table(("accuracy, %", "95 % interval", "pairs"), rows=rows, narrow=True)
    caption = tag("figcaption", "Share of pairs in which the caption scores above its foil; dotted: chance.")
    chart = tag("figure", minimal_pair_chart(pairs), caption)
    return section("Minimal pairs", text, tag("div", chart, tag("div", figures), class_="charts"))


def _queries(
    *, embeddings: Embeddings, ranks: Ranks, gallery: Gallery, same_text: np.ndarray | None
) -> tuple[Html, ...]:
    """Captions with their five best clips: a seeded sample, then the worst."""
    if not embeddings.captions:
        return ()
    marked = "The right clip is outlined."
    if same_text is not None:
        index = embeddings.video_of_text
        ranks = text_to_video(embeddings.text, video=embeddings.video, video_of_text=index, same_text=same_text)
        marked = (
            "The caption's own clip is outlined, and so are clips with the same text (dashed); ranks are any-match."
        )
    sampled, worst = pick_queries(ranks, embeddings=embeddings, seed=_SEED)

    def cards(queries: list[int]) -> Html:
        shown = {"embeddings": embeddings, "ranks": ranks, "gallery": gallery, "same_text": same_text}
        return join(query_card(query, **shown) for query in queries)

    below = f"; the {len(worst)} worst follow below" if worst else ""
    intro = (
        f"{len(sampled)} captions drawn at random (seed {_SEED}{below}) and the five best clips of each, best first, "
        f"with their cosines and own captions. {marked}"
    )
    parts = [section("Example queries", paragraph(intro), cards(sampled))]
    if worst:
        failed = f"The {len(worst)} worst ranks. The caption's own clip is shown below it if none of the five is right."
        parts.append(section("Worst queries", paragraph(failed), cards(worst)))
    return tuple(parts)


def _charts(*, embeddings: Embeddings, ranks: tuple[Ranks, Ranks], same_text: np.ndarray | None) -> Html:
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


def _training(history: Path | None) -> Html:
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
