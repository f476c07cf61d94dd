"""The page of zero-shot classification, and of probes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...pages.charts import MOST_NAMED, bar_chart, confusion_matrix
from ...pages.markup import Html, join, tag
from ...pages.page import details, paragraph, section, write_page
from ...pages.tables import Row, Tile, protocol_list, table, tiles
from ..protocols.marks import mark_of
from .zero_shot_terminal import headline, remarks

_MOST_ROWS, _MOST_IN_MATRIX = 50, 400


def write_zero_shot_page(path: Path, *, results: dict[str, Any], further: Sequence[Html] = ()) -> Path:
    """Write the page of a report.

    Args:
      path: the file; its folder exists.
      results: the content of the `.json` of the same name, which lies next to the page.
      further: sections between the figures and the tables.

    Returns:
      The path.
    """
    protocol = results["protocol"]
    shown = {
        key: [f"{k}: {v}" for k, v in value.items()] if isinstance(value, dict) else value
        for key, value in protocol.items()
    }
    parts = [f"{protocol['clips']:,} clips", f"{protocol['classes']:,} classes"]
    if protocol.get("templates"):
        parts.append(f"{len(protocol['templates'])} templates")
    if protocol.get("draws", 1) > 1:
        parts.append(f"figures of the first of {protocol['draws']} draws")
    return write_page(
        path,
        kind=protocol["task"],
        title=f"{protocol.get('dataset') or 'file'} · {protocol.get('split') or 'all'}",
        subtitle=" · ".join(parts),
        sections=[
            _figures(results),
            _notes(results),
            *further,
            _classes(results["per_class"]),
            _confused(results),
            _confusion(results),
            _calibration(results),
            section("Protocol", protocol_list(shown)),
        ],
        footer=join(["The same figures are in ", tag("a", f"{path.stem}.json", href=f"{path.stem}.json"), "."]),
    )


def _figures(results: dict[str, Any]) -> Html:
    block = results.get("accuracy") or results["multilabel"]
    interval = block.get("top1_interval_95") or block.get("hit@1_interval_95")
    first = f"95 % interval {interval[0]:.1f} to {interval[1]:.1f} %; " if interval else ""
    notes = {
        "top-1": f"{first}chance {block['chance']:.1f} %",
        "mean class accuracy": "mean over the classes with clips",
    }
    notes |= {"mAP": f"over classes with clips; chance {block['chance']:.1f} %", "hit@1": first.rstrip("; ")}
    notes |= {"ECE": "calibration error, 15 bins", "majority class": "always the most frequent class"}
    shown = [(name, value) for name, value in headline(results) if name in notes or name == "top-5"]
    return tiles(
        Tile(name=name, value=f"{value:.1f}", unit=f"%{mark_of(results)}", note=notes.get(name, ""))
        for name, value in shown
    )


def _notes(results: dict[str, Any]) -> Html:
    lines = [line for line in remarks(results) if " is taken for " not in line]
    return section("Notes", *(paragraph(line) for line in lines)) if lines else Html()


def _classes(rows: list[dict[str, Any]]) -> Html:
    figure = "AP" if "AP" in rows[0] else "top1"
    head = ["AP, %" if figure == "AP" else "top-1, %", "clips"]
    head += ["predicted"] if figure == "top1" else []
    words = any(row["read_as"] != row["name"] for row in rows)
    head += ["read as"] if words else []

    def cells(row: dict[str, Any]) -> list[object]:
        value = "none" if row[figure] is None else f"{row[figure]:.1f}"
        more = [f"{row['predicted']:,}"] if figure == "top1" else []
        return [value, f"{row['n']:,}", *more, *([row["read_as"]] if words else [])]

    made = table(head, rows=[Row(name=row["name"], cells=cells(row)) for row in rows], words=words)
    return section("Classes", made if len(rows) <= _MOST_ROWS else details(f"all {len(rows):,} classes", made))


def _confused(results: dict[str, Any]) -> Html:
    if not results.get("most_confused"):
        return Html()
    rows = [
        Row(name=pair["truth"], cells=[pair["predicted"], f"{pair['count']:,}", f"{pair['share']:.1f}"])
        for pair in results["most_confused"]
    ]
    return section("Most confused", table(["taken for", "clips", "share of the class, %"], rows=rows))


def _confusion(results: dict[str, Any]) -> Html:
    names = [row["name"] for row in results["per_class"]]
    if "accuracy" not in results or len(names) > _MOST_IN_MATRIX:
        return Html()
    place = {name: number for number, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), np.int64)
    for clip in results["clips"]:
        counts[place[clip["label"]], place[clip["predicted"]]] += 1
    chart = confusion_matrix(counts.tolist(), labels=names)
    width = f"max-width: {min(1056, 360 + 48 * len(names))}px"
    text = "Counts of clips; colour shows their share of the true class."
    if len(names) > MOST_NAMED:
        text = "Colour shows the share of the true class. Classes are numbered from 0 in the order of the table above."
    return section("Confusion matrix", paragraph(text), tag("figure", chart, class_="matrix", style=width))


def _calibration(results: dict[str, Any]) -> Html:
    if "calibration" not in results:
        return Html()
    bins = results["calibration"]["bins"]
    used = [one for one in bins if one["n"]]
    chart = bar_chart(
        {
            "confidence": [100 * one["confidence"] for one in used],
            "accuracy": [100 * one["accuracy"] for one in used],
        },
        categories=[f"{100 * one['low']:.0f}–{100 * one['high']:.0f}" for one in used],
        name="calibration",
        xlabel="confidence of the first class, %",
        ylabel="%",
    )
    error, scale = results["calibration"]["ece"], results["protocol"].get("scale")
    text = (
        f"Expected calibration error {error:.1f} %{f' at scale {scale:.4g}' if scale else ''}: "
        "the mean distance between confidence and accuracy. Bins without a clip are left out."
    )
    return section("Calibration", paragraph(text), tag("figure", chart, class_="full", style="max-width: 640px"))
