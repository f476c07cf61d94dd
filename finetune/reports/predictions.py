"""Predictions for files as a table on standard output."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def print_predictions(found: Sequence[dict[str, Any]], *, count: int) -> None:
    """Print what a fine-tuned model said of files.

    Args:
      found: JSON values of its `predict`.
      count: moments of a file that are shown, where a model scores all of them.
    """
    if not found:
        print("one file: there is no pair", file=sys.stderr)
        return
    if "task" in found[0]:
        for task in dict.fromkeys(one["task"] for one in found):
            Console(highlight=False, markup=False).print(task)
            own = [{key: value for key, value in one.items() if key != "task"} for one in found if one["task"] == task]
            print_predictions(own, count=count)
        return
    for key, tabled in _TABLES.items():
        if key in found[0]:
            table = tabled(found)
            break
    else:
        table = _times(found, count=count)
    Console(highlight=False, markup=False, soft_wrap=True).print(table)


def _table(*names: str, numbers: Sequence[str] = ()) -> Table:
    """Return an empty table; columns in `numbers` are set to the right."""
    table = Table()
    for name in names:
        table.add_column(name, justify="right" if name in numbers else "left")
    return table


def _classes(found: Sequence[dict[str, Any]]) -> Table:
    table = _table("file", "class", "%", "next", numbers=["%"])
    for one in found:
        (label, probability), *others = one["probabilities"].items()
        table.add_row(one["path"], label, f"{100 * probability:.1f}", _others(others))
    return table


def _answers(found: Sequence[dict[str, Any]]) -> Table:
    table = _table("file", "question", "answer", "%", "next", numbers=["%"])
    for one in found:
        others = list(one.get("scores", {}).items())[1:]
        table.add_row(one["path"], one["question"], one["answer"], f"{100 * one['score']:.1f}", _others(others))
    return table


def _others(others: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {100 * value:.1f}" for name, value in others)


def _values(found: Sequence[dict[str, Any]]) -> Table:
    table = _table("file", "value", numbers=["value"])
    for one in found:
        table.add_row(one["path"], f"{one['value']:.4g}")
    return table


def _pairs(found: Sequence[dict[str, Any]]) -> Table:
    table = _table("file", "file", "cosine", "identity", numbers=["cosine"])
    for one in found:
        verdict = {None: "no threshold known", True: "same", False: "different"}[one.get("same")]
        table.add_row(one["first"], one["second"], f"{one['score']:.3f}", verdict)
    return table


def _next(found: Sequence[dict[str, Any]]) -> Table:
    table = _table("next clip", "cosine", numbers=["cosine"])
    for one in found:
        table.add_row(one["clip_id"], f"{one['score']:.3f}")
    return table


_TABLES = {"probabilities": _classes, "question": _answers, "value": _values, "second": _pairs, "clip_id": _next}
"""A key of the first prediction -> its table."""


def _times(found: Sequence[dict[str, Any]], *, count: int) -> Table:
    asked, named = "text" in found[0], any("label" in span for one in found for span in one.get("spans", ()))
    numbers = ("from, s", "to, s", "score, %")
    table = _table("file", *["text"] * asked, *numbers, *["class"] * named, numbers=numbers)
    for one in found:
        best = one.get("spans", [shot for shot in one.get("shots", ()) if shot["chosen"]])
        if "spans" not in one and "shots" not in one:
            best = sorted(one["moments"], key=lambda moment: -moment["score"])[:count]
        cells = [one["path"], *([one["text"]] if asked else [])]
        for span in best:
            label = [span["label"]] if named else []
            table.add_row(
                *cells, f"{span['start_s']:.2f}", f"{span['end_s']:.2f}", f"{100 * span['score']:.1f}", *label
            )
        if not best:
            highest = f"{100 * one['score']:.1f}" if "score" in one else ""
            table.add_row(*cells, "nothing", "", highest, *([""] if named else []))
    return table
