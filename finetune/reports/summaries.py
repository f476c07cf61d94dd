"""The report of summaries: JSON, page and the table on the terminal."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...encode.films.moments import at_moments
from ...encode.films.summary import choose
from ...evaluate.reports.pictures import evenly_spread, write_strips
from ...pages.markup import Html, join, tag
from ...pages.page import paragraph, section, write_page
from ...pages.tables import Row, Tile, protocol_list, table, tiles
from ...pages.timelines import Lane, timeline
from ..examples.annotators import Annotations
from ..examples.queries import Queries

if TYPE_CHECKING:
    from ...data.batches.records import Records

EXAMPLES = 8
"""How many the page shows."""
_ROWS = {
    "model": "model",
    "untrained": "representative, untrained",
    "random": "random scores",
    "uniform": "evenly spread shots",
    "annotators": "annotators",
}
_COLUMNS = {"F_mean": "F mean, %", "F_max": "F max, %", "kendall": "Kendall", "spearman": "Spearman"}


def write_summaries(
    figures: dict[str, Any],
    *,
    found: Sequence[np.ndarray],
    annotations: Sequence[Annotations],
    queries: Queries,
    records: "Records",
    out: Path,
    protocol: dict[str, Any],
) -> Path:
    """Write `summaries.json` and `index.html`; the folder opens from disk without a network.

    Args:
      figures: of `summaries.summary_figures`, with `changes` of `summaries.change_figures`.
      found: of each example float64 [T,3], what `TimelinePredictor.head` gives.
      annotations: of each example.
      queries: the examples.
      records: the data set.
      out: folder, made if absent.
      protocol: how the figures were made; has the `share`.

    Returns:
      The path of the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = records.rows(queries.split)
    listed = [
        _example(output, said=said, row=rows[int(record)], share=protocol["share"])
        for output, said, record in zip(found, annotations, queries.record, strict=True)
    ]
    whole = {"protocol": protocol, **figures, "examples": listed}
    (out / "summaries.json").write_text(json.dumps(whole, ensure_ascii=False) + "\n", encoding="utf-8")
    order = np.argsort([one["agreement"] for one in listed], kind="stable")
    shown = evenly_spread(order, record=queries.record, count=EXAMPLES)
    clips = {listed[i]["clip_id"]: int(queries.record[i]) for i in shown}
    strips = write_strips(out / "clips", records=records, split=queries.split, clips=clips)
    cards = [_card(listed[i], picture=strips.get(listed[i]["clip_id"])) for i in shown]
    text = f"{len(shown)} films, evenly spread from the worst to the best correlation of scores and annotators."
    return write_page(
        out / "index.html",
        kind="summaries",
        title=f"{protocol['dataset']} · {queries.split}",
        subtitle=f"{len(queries):,} films",
        sections=[
            _figures(figures, share=protocol["share"]),
            _changes(figures["changes"]),
            section("Examples", paragraph(text), tag("div", *cards, class_="timelines")),
            section("Protocol", protocol_list(protocol)),
        ],
        footer=join(["The same figures are in ", tag("a", "summaries.json", href="summaries.json"), "."]),
    )


def print_figures(figures: dict[str, Any], *, page: Path) -> None:
    """Print the table of a report on summaries on standard output."""
    from rich.console import Console
    from rich.table import Table

    shown = Table("")
    for name in _COLUMNS.values():
        shown.add_column(name, justify="right")
    for row in _rows(figures):
        shown.add_row(row.name, *map(str, row.cells))
    console = Console()
    console.print(shown)
    lines = [
        f"changes of shots {near}: recall {one['recall']:.1f} %, precision {one['precision']:.1f} %; as many evenly "
        f"spread: recall {one['even']:.1f} %"
        for near, one in figures["changes"].items()
        if isinstance(one, dict)
    ]
    text = "\n".join([f"on {figures['n']} films", *lines, f"report: {page}"])
    console.print(text, soft_wrap=True, highlight=False)


def _rows(figures: dict[str, Any]) -> list[Row]:
    made = []
    for key, name in _ROWS.items():
        values = [figures[key].get(column) for column in _COLUMNS]
        cells = [
            "" if value is None else f"{value:.1f}" if column.startswith("F") else f"{value:.3f}"
            for column, value in zip(_COLUMNS, values, strict=True)
        ]
        made.append(Row(name=name, cells=cells, mark="main" if key == "model" else ""))
    return made


def _figures(figures: dict[str, Any], *, share: float) -> Html:
    own, plain, people = (figures[key] for key in ("model", "random", "annotators"))
    shown = []
    for key, name in (("F_mean", "F, mean of annotators"), ("F_max", "F, nearest annotator")):
        note = f"random scores: {plain[key]:.1f} %"
        shown.append(Tile(name=name, value=f"{own[key]:.1f}", unit="%", note=note))
    if own["kendall"] is not None:
        known = people["kendall"]
        note = "random scores: 0" + ("" if known is None else f", annotators among themselves: {known:.3f}")
        shown.append(Tile(name="Kendall's tau", value=f"{own['kendall']:.3f}", note=note))
    text = (
        f"Summaries are the shots that a knapsack chooses within {100 * share:g} % of a film. F counts frames of "
        "0.1 s, against each annotator's summary: their mean (TVSum), and the nearest (SumMe). Kendall and Spearman "
        "are rank correlations of scores, means over annotators. Annotators are measured against the others."
    )
    return join(
        [
            tiles(shown),
            section("Figures", table(list(_COLUMNS.values()), rows=_rows(figures)), paragraph(text, class_="aside")),
        ]
    )


def _changes(changes: dict[str, Any]) -> Html:
    if not changes:
        return Html()
    rows = [
        Row(name=near, cells=[f"{one[key]:.1f}" for key in ("recall", "precision", "even")])
        for near, one in changes.items()
        if isinstance(one, dict)
    ]
    text = (
        f"{changes['changes']:,} known changes in {changes['n']:,} films, {changes['found']:,} found; each is matched "
        "once. The last column is the recall of as many evenly spread."
    )
    head = ["recall, %", "precision, %", "evenly spread, %"]
    return section("Changes of shots", table(head, rows=rows), paragraph(text, class_="aside"))


def _example(output: np.ndarray, *, said: Annotations, row: Any, share: float) -> dict[str, Any]:
    """Return a film's scores, shots and summary as JSON values."""
    seconds, steps = float(row["duration_s"]), len(output)
    starts = np.flatnonzero(output[:, 1])
    edges = np.append(starts, steps) * seconds / steps
    values = np.add.reduceat(output[:, 0], starts) / np.diff(np.append(starts, steps))
    usual, scores = said.mean, at_moments(output[:, 0], moments=said.scores.shape[1])
    spread = float(scores.std() * usual.std())
    agreement = float(((scores - scores.mean()) * (usual - usual.mean())).mean()) / spread if spread > 0 else 0.0
    return {
        "clip_id": row["clip_id"],
        "duration_s": seconds,
        "scores": output[:, 0].round(4).tolist(),
        "annotators": usual.round(4).tolist(),
        "shots": np.column_stack([edges[:-1], edges[1:]]).round(3).tolist(),
        "summary": choose(values, seconds=np.diff(edges), share=share),
        "agreement": round(agreement, 4),
    }


def _card(one: dict[str, Any], *, picture: str | None) -> Html:
    seconds = one["duration_s"]
    shots = [(start / seconds, end / seconds, "") for start, end in one["shots"]]
    return timeline(
        one["clip_id"],
        picture=picture,
        lanes=[
            Lane(name="people", scores=one["annotators"], mark="truth"),
            Lane(name="scores", scores=one["scores"]),
            Lane(name="shots", spans=shots, mark="second"),
            Lane(name="kept", spans=[shots[number] for number in one["summary"]]),
        ],
        duration_s=seconds,
        note=f"correlation {one['agreement']:.2f}",
    )
