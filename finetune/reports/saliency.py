"""The report of highlights: JSON, page and the table on the terminal."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...encode.films.moments import at_moments
from ...evaluate.reports.pictures import evenly_spread, write_strips
from ...pages.markup import join, tag
from ...pages.page import paragraph, section, write_page
from ...pages.tables import Row, Tile, protocol_list, table, tiles
from ...pages.timelines import Lane, timeline
from ..examples.queries import Queries
from ..figures.saliency import BEST

if TYPE_CHECKING:
    from ...data.batches.records import Records

EXAMPLES = 12
"""How many the page shows."""


def write_highlights(
    figures: dict[str, Any],
    *,
    found: Sequence[np.ndarray],
    marks: Sequence[np.ndarray],
    queries: Queries,
    records: "Records",
    out: Path,
    protocol: dict[str, Any],
) -> Path:
    """Write `highlights.json` and `index.html`; the folder opens from disk without a network.

    Args:
      figures: of `saliency.highlight_figures`, with those of a `baseline`.
      found: of each example float64 [T], scores of the time steps.
      marks: of each example [moments, annotators].
      queries: the examples.
      records: the data set.
      out: folder, made if absent.
      protocol: how the figures were made.

    Returns:
      The path of the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = records.rows(queries.split)
    scores = [at_moments(one, moments=len(own)) for one, own in zip(found, marks, strict=True)]
    listed = [
        {
            "clip_id": rows[int(record)]["clip_id"],
            **({"text": text} if text else {}),
            "marks": own.mean(axis=1).round(3).tolist(),
            "scores": one.round(4).tolist(),
        }
        for record, text, own, one in zip(queries.record, queries.texts, marks, scores, strict=True)
    ]
    whole = {"protocol": protocol, **figures, "examples": listed}
    (out / "highlights.json").write_text(json.dumps(whole, ensure_ascii=False) + "\n", encoding="utf-8")
    shown = _chosen(scores, marks=marks, queries=queries)
    clips = {rows[int(queries.record[i])]["clip_id"]: int(queries.record[i]) for i in shown}
    strips = write_strips(out / "clips", records=records, split=queries.split, clips=clips)
    cards = []
    for i in shown:
        clip_id, usual = rows[int(queries.record[i])]["clip_id"], marks[i].mean(axis=1) / BEST
        hit = bool((marks[i][scores[i].argmax()] >= BEST).any())
        cards.append(
            timeline(
                queries.texts[i] or clip_id,
                picture=strips.get(clip_id),
                lanes=[
                    Lane(name="marks", scores=usual.tolist(), mark="truth"),
                    Lane(name="scores", scores=scores[i].tolist()),
                ],
                duration_s=float(queries.duration[i]),
                note="the best moment is a highlight" if hit else "the best moment is none",
            )
        )
    text = f"{len(shown)} examples, evenly spread from the worst to the best correlation of scores and marks."
    return write_page(
        out / "index.html",
        kind="highlights",
        title=f"{protocol['dataset']} · {queries.split}",
        subtitle=f"{len(queries):,} queries · {len(np.unique(queries.record)):,} clips",
        sections=[
            _figures(figures),
            section("Examples", paragraph(text), tag("div", *cards, class_="timelines")),
            section("Protocol", protocol_list(protocol)),
        ],
        footer=join(["The same figures are in ", tag("a", "highlights.json", href="highlights.json"), "."]),
    )


def print_figures(figures: dict[str, Any], *, page: Path) -> None:
    """Print the table of a highlight report on standard output."""
    from rich.console import Console
    from rich.table import Table

    shown = Table("marks of at least")
    for name in ("HL-mAP", "no clip seen", "HL-Hit1", "no clip seen"):
        shown.add_column(name, justify="right")
    for level, own in figures["levels"].items():
        plain = figures["baseline"]["levels"][level]
        shown.add_row(level, *(f"{one[key]:.1f}" for key in ("HL-mAP", "HL-Hit1") for one in (own, plain)))
    console = Console()
    console.print(shown)
    console.print(
        f"in percent, on {figures['n']} queries; a random moment has the best mark in {figures['chance']:.1f} %\n"
        f"report: {page}",
        soft_wrap=True,
        highlight=False,
    )


def _figures(figures: dict[str, Any]) -> Any:
    best, plain = figures["levels"]["VeryGood"], figures["baseline"]["levels"]["VeryGood"]
    note = f"no clip seen: {plain['HL-Hit1']:.1f} %, a random moment: {figures['chance']:.1f} %"
    shown = tiles(
        [
            Tile(name="HL-Hit1", value=f"{best['HL-Hit1']:.1f}", unit="%", note=note),
            Tile(name="HL-mAP", value=f"{best['HL-mAP']:.1f}", unit="%", note=f"no clip seen: {plain['HL-mAP']:.1f} %"),
        ]
    )
    rows = []
    for level, own in figures["levels"].items():
        other = figures["baseline"]["levels"][level]
        rows.append(Row(name=level, cells=[f"{one[k]:.1f}" for k in ("HL-mAP", "HL-Hit1") for one in (own, other)]))
    head = ["HL-mAP, %", "no clip seen, %", "HL-Hit1, %", "no clip seen, %"]
    text = (
        "Fair, Good and VeryGood are marks of at least 2, 3 and 4. Hit1: the moment with the highest score has such a "
        "mark by any annotator; mAP is the mean over annotators (moment_detr). Without a clip: the mean marks of the "
        "train split at each share of a clip."
    )
    return join([shown, section("Levels", table(head, rows=rows), paragraph(text, class_="aside"))])


def _chosen(scores: Sequence[np.ndarray], *, marks: Sequence[np.ndarray], queries: Queries) -> list[int]:
    """Return the numbers of examples to show, from the worst to the best, of a clip one at most."""

    def agreement(one: np.ndarray, own: np.ndarray) -> float:
        usual = own.mean(axis=1)
        spread = float(one.std() * usual.std())
        return float(((one - one.mean()) * (usual - usual.mean())).mean()) / spread if spread > 0 else 0.0

    order = np.argsort([agreement(one, own) for one, own in zip(scores, marks, strict=True)], kind="stable")
    return evenly_spread(order, record=queries.record, count=EXAMPLES)
