"""The tables that `twinreel prepare` prints at its end: the prepared records, and the rejected clips by reason."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich.markup
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from ..paths import PathLike
from ..sources.notes import Notes
from .duplicates import in_words
from .inputs import State

if TYPE_CHECKING:  # at run time it would load tensorflow
    from .summary import Summary

_EXAMPLES = 3  # rejected clips named per reason


def _total(report: dict[str, Any]) -> int:
    return sum(count["clips"] for count in report["counts"].values())


def print_found(
    console: Console, summary: "Summary", report: dict[str, Any], *, out: Path, done: str = "prepared"
) -> None:
    """Print clips, captions, duration and sound of each split, and the size of the whole; `done` says what was done."""
    table = Table(title=f"{done}: {out}", title_justify="left")
    for name in ("split", "clips", "rejected", "captions", "frames", "duration", "with sound"):
        table.add_column(name, justify="left" if name == "split" else "right")
    for split, count in report["counts"].items():
        found = summary.splits[split]
        table.add_row(
            split,
            f"{count['clips']:,}",
            f"{count['rejected']:,}",
            f"{found.captions:,}",
            f"{found.frames:,}",
            _duration(found.seconds),
            f"{100 * found.with_sound / max(1, found.clips):.0f} %",
        )
    console.print(table)
    per_clip = report["bytes"] / max(1, _total(report))
    console.print(f"size: {decimal(report['bytes'])}, {decimal(round(per_clip))} per clip")
    texts = report["captions"]
    for count, what in (
        (texts["empty_dropped"], "empty captions dropped"),
        (texts["from_labels"], "clips without a caption have their label as caption"),
        *in_words(report["duplicates"]),
        *((count, f"clips: {note}") for note, count in report["notes"].items()),
    ):
        if count:
            console.print(f"{count:,} {what}", style="yellow")


def print_notes(console: Console, notes: Notes) -> None:
    """Print what was left out of the source, or read otherwise than it is written."""
    for line in notes.lines():
        console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)


def print_changed(console: Console, *, out: Path, known: Mapping[str, State], states: Mapping[str, State]) -> None:
    """Print how many files have changed since a finished folder was made of them, and the first of them."""
    changed = [path for path, state in states.items() if path in known and known[path].contents != state.contents]
    if changed:
        shown = ", ".join(map(repr, sorted(changed)[:_EXAMPLES])) + ", ..." * (len(changed) > _EXAMPLES)
        text = f"{len(changed):,} files have changed since {out} was made: {shown}"
        console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


def print_rejects(console: Console, summary: "Summary") -> None:
    """Print how many clips were rejected for each reason, with the first few of them."""
    rejects = summary.rejects + summary.dropped
    if not rejects:
        return
    table = Table(title="rejected (all of them: rejects.jsonl)", title_justify="left")
    for name in ("reason", "clips", "for example"):
        table.add_column(name, justify="right" if name == "clips" else "left", overflow="fold")
    for reason, count in summary.reasons.most_common():
        lines = [line for line in rejects if line["reason"].split(": ")[0] == reason]
        table.add_row(reason, f"{count:,}", "\n".join(_example(line, reason) for line in lines[:_EXAMPLES]))
    console.print(table)


def _example(line: dict[str, Any], reason: str) -> str:
    detail = line["reason"].removeprefix(reason).removeprefix(": ")
    return rich.markup.escape(line["path"] + (f" ({detail})" if detail else ""))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def print_done(console: Console, done: dict[str, Any], *, out: PathLike) -> None:
    """Print that there is nothing to do."""
    console.print(f"{out} is prepared already ({_total(done)} clips, {decimal(done['bytes'])}); nothing to do")
