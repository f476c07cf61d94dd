"""The figures of a retrieval report as a table on standard output."""

from typing import Any

from rich.console import Console
from rich.table import Table

from ..protocols.repeated import ROWS, repetition
from ..protocols.retrieval import INTERVALS
from ..protocols.scored import READ_AS, RERANKED
from .further import flat, shown

_KEYS = ("R@1", "R@5", "R@10", "MdR", "MnR")


def print_table(results: dict[str, Any]) -> None:
    """Print the figures of a report (the content of `retrieval.json`) as one table, and remarks below it."""
    protocol = results["protocol"]
    table = Table()
    for name in ("", *_KEYS):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for key, name in ROWS.items():
        if block := results.get(key):
            table.add_row(name, *(f"{block[k]:.1f}" for k in _KEYS))
            if block["optimistic"] != block["pessimistic"]:
                for bound in ("optimistic", "pessimistic"):
                    table.add_row(f"  {bound}", *(f"{block[bound][k]:.1f}" for k in _KEYS), style="dim")
    console = Console(markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"zero-shot retrieval, {protocol['dataset'] or 'embeddings'} / {protocol['split'] or 'all'}: "
        f"{protocol['texts']} texts, {protocol['videos']} videos"
    )
    console.print(table)
    for line in remarks(results):
        console.print(line)
    for name, block in results.get(RERANKED, {}).items():
        console.print(_reranked(name, block))
    for name, block in results.get(READ_AS, {}).items():
        console.print(_reading(name, block))


def _reranked(name: str, block: dict[str, Any]) -> Table:
    """Return the figures of re-ranked scores."""
    table = Table(title=f"re-ranked: {name}", title_justify="left")
    for key in ("", *_KEYS):
        table.add_column(key, justify="right" if key else "left", no_wrap=True)
    for key in ("text_to_video", "video_to_text"):
        if key in block:
            table.add_row(ROWS[key], *(f"{block[key][k]:.1f}" for k in _KEYS))
    return table


def _reading(name: str, block: dict[str, Any]) -> Table:
    """Return another project's figures under its own names; two bounds where the order of ties decides."""
    table = Table(title=f"as {name}: {block['about']}", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for key, value in flat(block["figures"]):
        table.add_row(key, shown(value))
    return table


def remarks(results: dict[str, Any]) -> list[str]:
    """Return a line for each thing that the table alone would hide, such as repeated texts and missing clips."""
    protocol, coverage = results["protocol"], results["coverage"]
    lines = repetition(results)
    for key, drawn in results.get(INTERVALS, {}).items():
        ends = (f"{name} {one['low']:.1f} to {one['high']:.1f}" for name, one in drawn.items())
        lines.append(f"95 % intervals, {ROWS[key]}: {', '.join(ends)}")
    if protocol["videos_without_text"]:
        lines.append(f"{protocol['videos_without_text']} videos have no text: candidates only")
    if protocol.get("benchmark"):
        lines.append(f"benchmark {protocol['benchmark']}, subset id {str(protocol['subset_id'])[:16]}")
    if coverage["missing"]:
        lines.append(f"coverage {100 * coverage['fraction']:.2f} %: {coverage['missing']} clips are missing")
    if twins := results.get("order_twins"):
        shuffled = twins["accuracy_shuffled"]
        lines.append(
            f"order twins {twins['accuracy']:.1f} % of {twins['n']} captions (chance 50 %)"
            + (f", frames shuffled {shuffled:.1f} %" if shuffled is not None else "")
        )
    if pairs := results.get("minimal_pairs"):
        shares = (f"{name} {one['accuracy']:.1f} %" for name, one in pairs.items())
        lines.append(f"minimal pairs (chance 50 %): {', '.join(shares)}")
    if block := results.get("multiple_choice"):
        chance = f"chance {block['chance']:.1f} %"
        lines.append(f"multiple choice, caption and foils: {block['accuracy']:.1f} % of {block['n']} clips ({chance})")
    return lines
