"""The first sections of the retrieval report: headline figures, the table, coverage."""

from typing import Any

from ...pages.markup import Html, tag
from ...pages.page import details, paragraph, section
from ...pages.tables import Tile, table, tiles
from ..protocols.marks import legend, mark_of
from ..protocols.repeated import CLASSIFICATION, repetition
from ..protocols.twins import CHANCE
from .main_tables import HEAD, retrieval_rows


def headline_tiles(results: dict[str, Any]) -> Html:
    """Return the headline figures, each with its chance level."""
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


def retrieval_section(results: dict[str, Any]) -> Html:
    """Return all rows of retrieval, the coverage, and what the rows mean."""
    sign = mark_of(results)
    ties = (
        "Scores are raw cosines, without re-ranking. Ties are resolved in expectation over a uniformly random order of "
        "the tied candidates. Where there are any, two more rows give the best case (every tie is won) and the worst "
        "case (every tie is lost). Intervals of 95 % are drawn by bootstrap over clips."
    )
    return section(
        "Retrieval",
        table((*HEAD, "queries"), rows=retrieval_rows(results)),
        *_coverage(results["coverage"]),
        *([paragraph(legend(results), class_="bad")] if sign else []),
        *(paragraph(line.replace(" %", f" %{sign}")) for line in repetition(results)),
        paragraph(ties, class_="aside"),
    )


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
