"""The report of several labels or of numbers: JSON, page and the table on the terminal."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...pages.markup import Html, join, tag
from ...pages.page import section, write_page
from ...pages.tables import Row, Tile, protocol_list, table, tiles
from ...pages.thumbnails import clip_figure


def write_grades(
    figures: dict[str, Any],
    *,
    out: Path,
    protocol: dict[str, Any],
    clips: list[dict[str, Any]],
    pictures: Mapping[str, str],
) -> Path:
    """Write `classification.json` and `index.html`; the folder opens from disk without a network.

    Args:
      figures: of `grades.multilabel_figures` or `number_figures`.
      out: folder, made if absent.
      protocol: how they were made.
      clips: of each clip `clip_id`, `truth` and `predicted` as words, and `error`, the worst of which are shown.
      pictures: clip_id -> picture of the clip, relative to the page, for some of them.

    Returns:
      The path of the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    whole = {"protocol": protocol, **figures, "clips": clips}
    (out / "classification.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    cards = [
        clip_figure(
            pictures[clip["clip_id"]],
            note=tag("b", clip["predicted"] or "no label"),
            caption=f"true: {clip['truth'] or 'none'} ({clip['clip_id']})",
            alt=clip["clip_id"],
        )
        for clip in sorted(clips, key=lambda clip: -clip["error"])
        if clip["clip_id"] in pictures
    ]
    return write_page(
        out / "index.html",
        kind="classification",
        title=f"{protocol['dataset']} · {protocol['split']}",
        subtitle=f"{figures['n']:,} clips",
        sections=[
            *(_labels(figures) if "per_class" in figures else _numbers(figures)),
            section("Largest errors", tag("div", *cards, class_="grid")),
            section("Protocol", protocol_list(protocol)),
        ],
        footer=join(["The same figures are in ", tag("a", "classification.json", href="classification.json"), "."]),
    )


def print_grades(figures: dict[str, Any], *, page: Path) -> None:
    """Print the main figures on standard output."""
    from rich.console import Console
    from rich.table import Table

    console, plain = Console(), figures["baseline"]
    if "per_class" in figures:
        shown = Table("class")
        for name in ("AP, %", "clips"):
            shown.add_column(name, justify="right")
        for name, row in list(figures["per_class"].items())[:40]:
            shown.add_row(name, "–" if row["ap"] is None else f"{row['ap']:.1f}", str(row["n"]))
        console.print(shown)
        text = f"mAP {figures['mAP']:.1f} % (equal scores: {plain['mAP']:.1f} %), GAP {figures['GAP']:.1f} %, "
        text += f"Hit@1 {figures['Hit@1']:.1f} %"
    else:
        corr = "undefined" if figures["corr"] is None else f"{figures['corr']:.3f}"
        text = f"MAE {figures['mae']:.4g} (the train median: {plain['mae']:.4g}), correlation {corr}"
    console.print(f"{text}, on {figures['n']} clips\nreport: {page}", soft_wrap=True, highlight=False)


def _labels(figures: dict[str, Any]) -> list[Html]:
    plain = f"equal scores: {figures['baseline']['mAP']:.1f} %"
    shown = [
        Tile(name="mAP", value=f"{figures['mAP']:.1f}", unit="%", note=plain),
        Tile(name="GAP", value=f"{figures['GAP']:.1f}", unit="%", note="20 predictions of a clip (YouTube-8M)"),
        Tile(name="Hit@1", value=f"{figures['Hit@1']:.1f}", unit="%", note="the best class is right"),
        Tile(name="F1", value=f"{figures['F1']['micro']:.1f}", unit="%", note="probability of at least 1/2, micro"),
    ]
    rows = [
        Row(name=name, cells=["–" if row["ap"] is None else f"{row['ap']:.1f}", f"{row['n']:,}"])
        for name, row in figures["per_class"].items()
    ]
    return [tiles(shown), section("Classes", table(["average precision, %", "clips"], rows=rows, narrow=True))]


def _numbers(figures: dict[str, Any]) -> list[Html]:
    corr = "–" if figures["corr"] is None else f"{figures['corr']:.3f}"
    plain = f"the train median: {figures['baseline']['mae']:.4g}"
    shown = [
        Tile(name="Mean absolute error", value=f"{figures['mae']:.3g}", note=plain),
        Tile(name="RMSE", value=f"{figures['rmse']:.3g}", note="root of the mean squared error"),
        Tile(name="Correlation", value=corr, note="Pearson"),
    ]
    parts = [tiles(shown)]
    if "sentiment" in figures:
        given = figures["sentiment"].items()
        rows = [Row(name=name, cells=["–" if value is None else f"{value:.4g}"]) for name, value in given]
        parts.append(section("Sentiment", table(["as MMSA computes it"], rows=rows, narrow=True)))
    return parts
