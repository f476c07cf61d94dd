"""Prints what fine-tuning has to say."""

from pathlib import Path
from typing import Any


def say(what: Any) -> None:
    """Print a line or a rich table on standard error."""
    from rich.console import Console

    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(what)


def silent(what: Any) -> None:
    """Print nothing: for all processes but the first."""
    del what


def print_classification(report: dict[str, Any], *, page: Path) -> None:
    """Print the table of a classification report (`report.classification_report`) on standard output."""
    from rich.console import Console
    from rich.table import Table

    low, high = report["accuracy_interval_95"]
    table = Table("class")
    for name in ("precision %", "recall %", "F1 %", "clips"):
        table.add_column(name, justify="right")
    for name, row in list(report["per_class"].items())[:40]:
        table.add_row(name, *[f"{row[key]:.1f}" for key in ("precision", "recall", "f1")], str(row["support"]))
    console = Console()
    console.print(table)
    if "extension" in report:
        named = {"old_before": "old classes before", "old": "old", "new": "new", "all": "all"}
        known = {name: report["extension"][key] for key, name in named.items()}
        shown = ", ".join(f"{name} {value:.1f} %" for name, value in known.items() if value is not None)
        console.print(f"accuracy of classes: {shown}", soft_wrap=True, highlight=False)
    console.print(
        f"accuracy {report['accuracy']:.1f} % (95 % interval {low:.1f} to {high:.1f}), balanced "
        f"{report['balanced_accuracy']:.1f} %, on {report['n']} clips; chance {report['chance']:.1f} %, "
        f"most frequent class {report['majority']:.1f} %\nreport: {page}",
        soft_wrap=True,
        highlight=False,
    )
