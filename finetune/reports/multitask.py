"""The report of several tasks on one tower: JSON, page and the table on the terminal."""

import json
from pathlib import Path
from typing import Any

from ...pages.markup import Html, join, tag
from ...pages.page import paragraph, section, write_page
from ...pages.tables import Row, Tile, protocol_list, table, tiles


def write_multitask(figures: dict[str, Any], *, out: Path, protocol: dict[str, Any]) -> Path:
    """Write `multitask.json` and `index.html`; the folder opens from disk without a network.

    Args:
      figures: `tasks`: name -> `kind`, `metric`, `value`, `weight`; `compute` and `transfer` of `figures.multitask`.
      out: folder; has the report of each task in a folder of its name.
      protocol: how they were made.

    Returns:
      The path of the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    whole = {"protocol": protocol, **figures}
    (out / "multitask.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    tasks, transfer = figures["tasks"], figures["transfer"]
    shown = [
        Tile(name=name, value=f"{one['value']:.1f}", unit="", note=f"{one['metric']} of {one['kind']}")
        for name, one in tasks.items()
    ]
    links = [
        Row(
            name=name,
            cells=[
                f"{one['value']:.2f}",
                f"{one['weight']:.3g}",
                one["kind"],
                join([f"{one['metric']} ", tag("a", "(its report)", href=f"{name}/index.html")]),
            ],
        )
        for name, one in tasks.items()
    ]
    return write_page(
        out / "index.html",
        kind="several tasks",
        title=f"{protocol['dataset']} · {len(tasks)} tasks on one tower",
        subtitle=" · ".join(tasks),
        sections=[
            tiles(shown),
            section("Tasks", table(["value", "weight at the end", "kind", "figure"], rows=links, words=True)),
            *([_transfer(transfer, tasks=list(tasks))] if transfer else []),
            _compute(figures["compute"], count=len(tasks)),
            section("Protocol", protocol_list(protocol)),
        ],
        footer=join(["The same figures are in ", tag("a", "multitask.json", href="multitask.json"), "."]),
    )


def _transfer(rows: list[dict[str, Any]], *, tasks: list[str]) -> Html:
    """Return a table: trained on which tasks (rows), with which result on each (columns)."""
    alone = {row["tasks"][0]: row["results"][row["tasks"][0]] for row in rows if len(row["tasks"]) == 1}
    shown = []
    for row in rows:
        cells = []
        for task in tasks:
            value = row["results"].get(task)
            more = "" if len(row["tasks"]) == 1 or task not in alone or value is None else value - alone[task]
            cells.append("–" if value is None else f"{value:.2f}" + (f" ({more:+.2f})" if more != "" else ""))
        shown.append(Row(name=" + ".join(row["tasks"]), cells=cells, mark="main" if row is rows[-1] else ""))
    text = "Each row was trained on the tasks that it names; in brackets the difference to the task alone, in points."
    return section("Transfer among tasks", paragraph(text), table(tasks, rows=shown))


def _compute(compute: dict[str, Any], *, count: int) -> Html:
    rows = [
        Row(name=name, cells=[f"{compute[key]['tower'] / 1e6:,.2f}", f"{compute[key]['step'] / 1e6:,.2f}"])
        for name, key in (("together", "together"), (f"{count} runs of one task", "alone"))
    ]
    text = (
        f"The tower computes {100 * compute['tower_share']:.1f} % of what it does in runs of one task. Counted in the "
        "trace of the step: matrix products, forward and backward, of a clip whose features are not cached."
    )
    head = ["tower, MFLOP a clip", "whole step, MFLOP a clip"]
    return section("Computation", paragraph(text), table(head, rows=rows, narrow=True))


def print_multitask(figures: dict[str, Any], *, page: Path) -> None:
    """Print the main figures on standard output."""
    from rich.console import Console
    from rich.table import Table

    shown = Table("task", "kind", "figure")
    for name in ("value", "weight"):
        shown.add_column(name, justify="right")
    for name, one in figures["tasks"].items():
        shown.add_row(name, one["kind"], one["metric"], f"{one['value']:.2f}", f"{one['weight']:.3g}")
    console = Console()
    console.print(shown)
    share = 100 * figures["compute"]["tower_share"]
    console.print(
        f"tower: {share:.1f} % of the computation of runs of one task\nreport: {page}", soft_wrap=True, highlight=False
    )
