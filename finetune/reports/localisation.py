"""The report of localisation: JSON, page and the table on the terminal."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...evaluate.reports.pictures import evenly_spread, write_strips
from ...pages.markup import Html, join, tag
from ...pages.page import paragraph, section, write_page
from ...pages.tables import Row, Tile, protocol_list, table, tiles
from ...pages.timelines import Lane, timeline
from ..examples.queries import Queries
from ..figures.localisation import RECALL_AT, overlap_of_best

if TYPE_CHECKING:
    from ...data.batches.records import Records

EXAMPLES = 12
"""How many the page shows."""
_SHOWN = 3  # spans of a lane


def write_localisation(
    figures: dict[str, Any],
    *,
    found: Sequence[np.ndarray],
    queries: Queries,
    records: "Records",
    out: Path,
    protocol: dict[str, Any],
) -> Path:
    """Write `localisation.json` and `index.html`; the folder opens from disk without a network.

    Args:
      figures: of `localisation.moment_figures` or `action_figures`, with those of a `baseline`.
      found: of each example float64 [k,4]: start, end (fractions of the clip), score, class.
      queries: the examples.
      records: the data set.
      out: folder, made if absent.
      protocol: how the figures were made.

    Returns:
      The path of the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = records.rows(queries.split)
    whole = {"protocol": protocol, **figures, "examples": _listed(found, queries=queries, rows=rows)}
    (out / "localisation.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    shown = _chosen(found, queries=queries)
    clips = {rows[int(queries.record[i])]["clip_id"]: int(queries.record[i]) for i in shown}
    strips = write_strips(out / "clips", records=records, split=queries.split, clips=clips)
    cards = [_card(i, found=found[i], queries=queries, row=rows[int(queries.record[i])], strips=strips) for i in shown]
    by_class = "per_class" in figures
    asked = f"{len(queries.labels):,} classes" if by_class else f"{len(queries):,} queries"
    text = (
        f"{len(shown)} examples, evenly spread from the worst to the best overlap of the first span with a true one. "
        f"Each lane shows the first {_SHOWN} spans; hover for their times and scores."
    )
    return write_page(
        out / "index.html",
        kind="localisation",
        title=f"{protocol['dataset']} · {queries.split}",
        subtitle=f"{asked} · {len(clips_of(queries)):,} clips",
        sections=[
            *(_action_tables(figures) if by_class else _moment_tables(figures)),
            section("Examples", paragraph(text), tag("div", *cards, class_="timelines")),
            section("Protocol", protocol_list(protocol)),
        ],
        footer=join(["The same figures are in ", tag("a", "localisation.json", href="localisation.json"), "."]),
    )


def clips_of(queries: Queries) -> list[int]:
    """Return the records that the examples are about."""
    return np.unique(queries.record).tolist()


def print_figures(figures: dict[str, Any], *, page: Path) -> None:
    """Print the table of a localisation report on standard output."""
    from rich.console import Console
    from rich.table import Table

    shown = Table("figure")
    for name in ("model", "no clip seen"):
        shown.add_column(name, justify="right")
    for name, own, plain in _pairs(figures):
        shown.add_row(name, f"{own:.1f}", f"{plain:.1f}")
    console = Console()
    console.print(shown)
    console.print(f"in percent, on {figures['n']} examples\nreport: {page}", soft_wrap=True, highlight=False)


def _pairs(figures: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Name, value and baseline of the main figures, in percent."""
    plain = figures["baseline"]
    if "per_class" in figures:
        names = [name for name in figures if name.startswith("mAP@")]
        rows = [(name, 100 * figures[name], 100 * plain[name]) for name in names]
        return [("mAP, mean of 0.5 to 0.95", 100 * figures["average"], 100 * plain["average"]), *rows]
    names = [name for name in figures["grounding"] if name.startswith(("R@", "mIoU"))]
    rows = [(name, figures["grounding"][name], plain["grounding"][name]) for name in names]
    own, other = (one["moment_retrieval"]["full"]["MR-mAP"]["average"] for one in (figures, plain))
    return [*rows, ("MR-mAP", own, other)]


def _moment_tables(figures: dict[str, Any]) -> list[Html]:
    hits, plain = figures["grounding"], figures["baseline"]["grounding"]
    low, high = figures["R1_interval"]
    spread = f"95 % interval: {low:.1f} to {high:.1f} %; " if low is not None else ""
    lengths = figures["moment_retrieval"]
    shown = [
        Tile(
            name="R@1, overlap > 0.5",
            value=f"{hits['R@1,IoU>0.5']:.1f}",
            unit="%",
            note=f"{spread}no clip seen: {plain['R@1,IoU>0.5']:.1f} %",
        ),
        Tile(name="R@1, overlap > 0.7", value=f"{hits['R@1,IoU>0.7']:.1f}", unit="%", note="of the first true span"),
        Tile(name="Mean overlap", value=f"{hits['mIoU']:.1f}", unit="%", note="of the first span found"),
        Tile(name="MR-mAP", value=f"{lengths['full']['MR-mAP']['average']:.1f}", unit="%", note="overlaps 0.5 to 0.95"),
    ]
    rows = [
        Row(
            name=f"R@{k}, overlap > {m}",
            cells=[f"{hits[f'R@{k},IoU>{m}']:.1f}", f"{hits[f'R@{k},IoU>={m}']:.1f}", f"{plain[f'R@{k},IoU>{m}']:.1f}"],
        )
        for k in (1, 5)
        for m in RECALL_AT
    ]
    by_length = [
        Row(
            name=name,
            cells=[_cell(block["MR-R1"]["0.5"]), _cell(block["MR-R1"]["0.7"]), _cell(block["MR-mAP"].get("average"))],
        )
        for name, block in lengths.items()
    ]
    note = (
        "A hit is an overlap above the threshold (2D-TAN, mmaction2) or of at least it (QVHighlights). Without "
        "a clip: the one span, as a share of the clip, that suits most queries of the train split."
    )
    ranges = "Of all true spans of a query, and of those up to 10 s, 30 s and 150 s only (moment_detr)."
    head = ["above, %", "at least, %", "no clip seen, %"]
    return [
        tiles(shown),
        section("Moments", table(head, rows=rows), paragraph(note, class_="aside")),
        section(
            "By length", table(["R1@0.5, %", "R1@0.7, %", "mAP, %"], rows=by_length), paragraph(ranges, class_="aside")
        ),
    ]


def _action_tables(figures: dict[str, Any]) -> list[Html]:
    plain = figures["baseline"]
    shown = [
        Tile(
            name="mAP",
            value=f"{100 * figures['average']:.1f}",
            unit="%",
            note=f"mean over overlaps 0.5 to 0.95; no clip seen: {100 * plain['average']:.1f} %",
        ),
        Tile(name="mAP at 0.5", value=f"{100 * figures['mAP@0.5']:.1f}", unit="%", note="ActivityNet"),
        Tile(name="mAP at 0.75", value=f"{100 * figures['mAP@0.75']:.1f}", unit="%", note="ActivityNet"),
        Tile(
            name="mAP, 0.3 to 0.7",
            value=f"{100 * figures['thumos']['average']:.1f}",
            unit="%",
            note="THUMOS's overlaps",
        ),
    ]
    rows = [
        Row(name=name, cells=[f"{100 * values[0]:.1f}", f"{100 * values[5]:.1f}", f"{100 * np.mean(values):.1f}"])
        for name, values in sorted(figures["per_class"].items())
    ]
    return [tiles(shown), section("Classes", table(["AP@0.5, %", "AP@0.75, %", "mean AP, %"], rows=rows))]


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _chosen(found: Sequence[np.ndarray], *, queries: Queries) -> list[int]:
    """Return the numbers of examples to show, from the worst to the best, of a clip one at most."""
    overlap = [
        overlap_of_best(spans, truth=truth / duration)
        for spans, truth, duration in zip(found, queries.spans, queries.duration, strict=True)
    ]
    return evenly_spread(np.argsort(overlap, kind="stable"), record=queries.record, count=EXAMPLES)


def _card(i: int, *, found: np.ndarray, queries: Queries, row: dict[str, Any], strips: dict[str, str]) -> Html:
    duration = float(queries.duration[i])
    names = queries.labels or ("",)
    truth = [
        (start, end, names[label])
        for (start, end), label in zip(
            (queries.spans[i] / duration).tolist(), queries.span_labels[i].tolist(), strict=True
        )
    ]
    spans = [(a, b, f"{names[int(label)]} {100 * score:.0f} %".strip()) for a, b, score, label in found.tolist()]
    overlap = overlap_of_best(found, truth=queries.spans[i] / duration)
    lanes = [Lane(name="true", spans=truth, mark="truth"), Lane(name="first", spans=spans[:1])]
    lanes += [Lane(name="next", spans=spans[1:_SHOWN], mark="second")] if len(spans) > 1 else []
    true = ", ".join(f"{start * duration:.1f} s {name}" for start, _, name in truth if name)
    first = ", ".join(f"{a * duration:.1f} s {names[int(label)]}" for a, _, _, label in found[:_SHOWN].tolist())
    words = f" · true: {true} · found: {first or 'nothing'}" if queries.labels else ""
    return timeline(
        queries.texts[i] or row["clip_id"],
        picture=strips.get(row["clip_id"]),
        lanes=lanes,
        duration_s=duration,
        note=f"overlap {100 * overlap:.0f} %{words}",
    )


def _listed(found: Sequence[np.ndarray], *, queries: Queries, rows: Any) -> list[dict[str, Any]]:
    """One JSON value per example: the clip, the text, its true spans and the spans found, in seconds."""
    listed = []
    for i, spans in enumerate(found):
        duration = float(queries.duration[i])
        names = queries.labels or ("",)
        text = {"text": queries.texts[i]} if queries.texts[i] else {}
        listed.append(
            {
                "clip_id": rows[int(queries.record[i])]["clip_id"],
                **text,
                "truth": [
                    [*span, *((names[label],) if names[label] else ())]
                    for span, label in zip(queries.spans[i].tolist(), queries.span_labels[i].tolist(), strict=True)
                ],
                "found": [
                    [
                        round(a * duration, 3),
                        round(b * duration, 3),
                        round(score, 5),
                        *((names[int(n)],) if names[int(n)] else ()),
                    ]
                    for a, b, score, n in spans.tolist()
                ],
            }
        )
    return listed
