"""The page that sets several models side by side, measured on the same clips."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...pages.charts import Line, dot_chart, line_chart
from ...pages.drawing import COLOURS, MUTED
from ...pages.markup import Html, join, tag
from ...pages.page import details, paragraph, section, write_page
from ...pages.tables import Row, Tile, protocol_list, table, tiles
from ...pages.text_tables import write_tables
from ..measures.ranks import recall_at
from ..protocols.marks import legend, mark_of
from ..protocols.models import Measured, by_model
from ..protocols.retrieval import DIRECTIONS
from .charts import RANK_TICKS
from .comparison_queries import different_queries
from .comparison_tables import comparison_tables, difference_rows, group_rows, model_rows
from .gallery import Gallery
from .main_tables import HEAD, RECALLS, row_name

_MOST_TILES = 6


def write_comparison(
    out: Path, *, compared: dict[str, Any], runs: Sequence[Measured], gallery: Gallery, pages: Mapping[str, str]
) -> Path:
    """Write `out/index.html` and the tables as text.

    Args:
      out: the folder, which exists.
      compared: the content of `comparison.json`.
      runs: that were compared.
      gallery: of the clips, in `out`.
      pages: run -> its own page, relative to `out`.

    Returns:
      The path of the page.
    """
    write_tables(out, tables=comparison_tables(compared), mark=mark_of(compared))
    protocol, names = compared["protocol"], list(compared["models"])
    return write_page(
        out / "index.html",
        kind="comparison of models",
        title=f"{protocol['dataset'] or 'embeddings'} · {protocol['split'] or 'all'}",
        subtitle=f"{' · '.join(names)}: {protocol['texts']:,} captions against {protocol['videos']:,} clips",
        sections=[
            _tiles(compared),
            _models(compared, pages=pages),
            _differences(compared),
            _curves(runs),
            _groups(compared),
            *(different_queries(runs, model=name, gallery=gallery) for name in names[1:]),
            _protocol(compared),
        ],
        footer=join(
            [
                "The same figures are in ",
                tag("a", "comparison.json", href="comparison.json"),
                ", the tables in ",
                join((tag("a", name, href=name) for name in ("tables.md", "tables.tex", "tables.csv")), by=", "),
                ".",
            ]
        ),
        variables={"shape": gallery.shape()},
    )


def _tiles(compared: dict[str, Any]) -> Html:
    mark, shown = mark_of(compared), []
    for name, model in list(compared["models"].items())[:_MOST_TILES]:
        one = model["text_to_video"]["R@1"]
        note = "text → video R@1" + (f", {one['n']} seeds, ± {one['std']:.1f}" if one["n"] > 1 else "")
        shown.append(Tile(name=name, value=f"{one['mean']:.1f}", unit=f"%{mark}", note=note))
    return tiles(shown)


def _models(compared: dict[str, Any], *, pages: Mapping[str, str]) -> Html:
    links = [tag("a", name, href=page) for name, page in pages.items()]
    seeds = any(len(model["runs"]) > 1 for model in compared["models"].values())
    said = "Several seeds of one model: mean ± standard deviation (n − 1), and the range. " if seeds else ""
    return section(
        "Retrieval",
        table((*HEAD, "seeds"), rows=model_rows(compared)),
        *([paragraph(legend(compared), class_="bad")] if mark_of(compared) else []),
        paragraph(f"{said}Ties are resolved in expectation.", class_="aside"),
        paragraph("Each run has a report of its own: ", join(links, by=", "), "."),
    )


def _differences(compared: dict[str, Any]) -> Html:
    if not compared["differences"]:
        return Html()
    first = next(iter(compared["models"]))
    rows = {
        name: {row_name(way): _point(block[way]["R@1"], key="difference") for way in DIRECTIONS}
        for name, block in compared["differences"].items()
    }
    chart = dot_chart(rows, name="differences", xlabel=f"R@1 less that of {first}, percentage points",
                      lines=[(0.0, MUTED)], limits=None, signed=True)  # fmt: skip
    said = (
        "Differences in percentage points, query by query, with 95 % bootstrap intervals over clips; p of a "
        "permutation test that exchanges the two models clip by clip. Hits of several seeds are averaged first: "
        "intervals and p say what other clips would change, not what other seeds would."
    )
    return section(
        f"Differences from {first}",
        table(RECALLS, rows=difference_rows(compared)),
        paragraph(said, class_="aside"),
        tag("figure", chart, class_="full", style="max-width: 560px"),
    )


def _curves(runs: Sequence[Measured]) -> Html:
    videos = runs[0].results["protocol"]["videos"]
    ks = np.unique(np.geomspace(1, videos, 60).round().astype(int))
    figures = []
    for side, way in enumerate(DIRECTIONS):
        lines = []
        for number, (name, own) in enumerate(by_model(runs).items()):
            curves = np.array([[recall_at(run.ranks[side], k=int(k)) for k in ks] for run in own])
            band = {"low": curves.min(axis=0), "high": curves.max(axis=0)} if len(own) > 1 else {}
            style = {"colour": COLOURS[number % len(COLOURS)], "dashed": number >= len(COLOURS)}
            lines.append(Line(name=name, x=ks, y=curves.mean(axis=0), **band, **style))
        lines.append(Line(name="chance", x=ks, y=100 * ks / videos, colour=MUTED, dotted=True))
        ticks = [k for k in RANK_TICKS if k <= videos]
        drawn = line_chart(lines, name=f"recall-{side}", xlabel="K", ylabel="R@K, %", ticks=ticks, top=102)
        figures.append(tag("figure", tag("h3", row_name(way)), drawn))
    several = any(len(own) > 1 for own in by_model(runs).values())
    note = paragraph("Bands: from the lowest to the highest seed.", class_="aside") if several else ""
    return section("Recall at K", tag("div", *figures, class_="charts"), note)


def _groups(compared: dict[str, Any]) -> Html:
    if not compared["groups"]:
        return Html()
    figures = []
    for name, field in compared["groups"].items():
        models = field["models"]
        groups = models[next(iter(models))][DIRECTIONS[0]]
        rows = {
            f"{group}  ({one['clips']:,})": {
                model: _point(own[DIRECTIONS[0]][group]["R@1"], key="value") for model, own in models.items()
            }
            for group, one in groups.items()
        }
        chart = dot_chart(rows, name=f"groups-{re.sub('[^A-Za-z0-9]+', '-', name)}", xlabel="R@1, %")
        head = ("R@1, %", "95 % interval", "less the first", "95 % interval", "queries", "clips")
        folded = details("Differences, both directions", table(head, rows=group_rows(compared, name)))
        figures.append(tag("figure", tag("h3", field["title"].capitalize()), chart, folded))
    text = "Text → video R@1 of each group, with 95 % bootstrap intervals over clips, and the number of clips."
    return section("Groups", paragraph(text), tag("div", *figures, class_="charts groups"))


def _protocol(compared: dict[str, Any]) -> Html:
    names = [run["name"] for model in compared["models"].values() for run in model["runs"]]
    rows = [
        Row(name=key.replace("_", " "), cells=[_short(values[name]) for name in names])
        for key, values in compared["differs"].items()
    ]
    differs = [tag("h3", "What differs between the runs"), table(names, rows=rows)] if rows else []
    return section("Protocol", protocol_list(compared["protocol"]), *differs)


def _short(value: Any, *, most: int = 28) -> str:
    text = "unknown" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if re.fullmatch("[0-9a-f]{40,}", text):
        return text[:12]
    return text if len(text) <= most else f"…{text[1 - most :]}"  # the ends of paths differ


def _point(one: Mapping[str, Any], *, key: str) -> tuple[float, float | None, float | None]:
    return one[key], one["low"], one["high"]
