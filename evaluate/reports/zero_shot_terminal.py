"""The figures of zero-shot classification on standard output."""

from typing import Any

from rich.console import Console
from rich.table import Table

from ..protocols.marks import legend, mark_of
from ..protocols.zero_shot import never_occurring

_WORST = 5


def print_zero_shot(results: dict[str, Any]) -> None:
    """Print the figures of a report (the content of `zero_shot.json`) as a table, and remarks below it."""
    print_classes(results, title=f"rule {results['protocol']['rule']}", more=[])


def print_classes(results: dict[str, Any], *, title: str, more: list[str]) -> None:
    """Print the figures of classification as a table.

    Args:
      results: of `zero_shot_report` or `probe_report`.
      title: what stands behind the task and the numbers of clips and classes.
      more: lines below the table, before the remarks.
    """
    console = Console(markup=False, highlight=False, soft_wrap=True)
    protocol = results["protocol"]
    where = f"{protocol.get('dataset') or 'file'} / {protocol.get('split') or 'all'}"
    console.print(f"{protocol['task']}, {where}: {protocol['clips']} clips, {protocol['classes']} classes, {title}")
    table = Table()
    table.add_column("figure")
    table.add_column("%", justify="right")
    for name, value in headline(results):
        table.add_row(name, f"{value:.2f}{mark_of(results)}")
    console.print(table)
    for line in [*more, *remarks(results)]:
        console.print(line)


def headline(results: dict[str, Any]) -> list[tuple[str, float]]:
    """Return the names and values, in percent, of the figures that stand first."""
    if "multilabel" in results:
        block = results["multilabel"]
        names = [key for key in block if key.startswith(("mAP", "hit@1", "perr", "gap"))]
        return [(key, block[key]) for key in names if isinstance(block[key], float)]
    block, mean = results["accuracy"], results["mean_class_accuracy"]
    shown = [(f"top-{key[3:]}", block[key]) for key in block if key.startswith("top") and key[3:].isdigit()]
    for given, other in results.get("reranked", {}).items():
        shown += [(f"top-{key[3:]}, {given}", other[key]) for key in other if key.startswith("top")]
    return [
        *shown,
        ("mean class accuracy", mean["over_truth"]),
        ("  classes only predicted count 0", mean["over_truth_or_predicted"]),
        ("ECE", results["calibration"]["ece"]),
        ("majority class", block["majority"]),
        ("chance", block["chance"]),
    ]


def remarks(results: dict[str, Any]) -> list[str]:
    """Return a line for each thing that the table alone would hide."""
    protocol, coverage = results["protocol"], results["coverage"]
    lines = list(protocol.get("warnings") or [])
    single = "accuracy" in results
    block, name = (results["accuracy"], "top1") if single else (results["multilabel"], "hit@1")
    if interval := block[f"{name}_interval_95"]:
        lines.append(f"{name}: 95 % interval {interval[0]:.1f} to {interval[1]:.1f}")
    low, high = block["pessimistic"][name], block["optimistic"][name]
    if low != high:
        lines.append(f"{name} with all ties lost or won: {low:.2f} or {high:.2f}")
    if absent := never_occurring(results["per_class"]):
        few = ", ".join(absent[:_WORST]) + (" …" if len(absent) > _WORST else "")
        lines.append(f"classes without a clip, which can only be wrong answers: {few} ({len(absent)})")
    for pair in results.get("most_confused", [])[:_WORST]:
        lines.append(f"{pair['truth']} is taken for {pair['predicted']}: {pair['count']} ({pair['share']:.0f} %)")
    if coverage["missing"]:
        lines.append(f"coverage {100 * coverage['fraction']:.2f} %: {coverage['missing']} clips are missing")
    return lines + ([legend(results)] if mark_of(results) else [])
