"""The figures of a retrieval report as a table on standard output."""

from typing import Any

from rich.console import Console
from rich.table import Table

from ..protocols.repeated import ROWS, repetition

_KEYS = ("R@1", "R@5", "R@10", "MdR", "MnR")


def print_table(results: dict[str, Any]) -> None:
    """Print the figures of a report (the content of `retrieval.json`) as one table, and remarks below it."""
    protocol = results["protocol"]
    table = Table()
    for name in ("", *_KEYS):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for key, name in {"text_to_video": "text to video", "video_to_text": "video to text", **ROWS}.items():
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


def remarks(results: dict[str, Any]) -> list[str]:
    """Return a line for each thing that the table alone would hide, such as repeated texts and missing clips."""
    protocol, coverage = results["protocol"], results["coverage"]
    lines = repetition(results)
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
    return lines
