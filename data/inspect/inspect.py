"""`twinreel inspect`: what is in a prepared folder, as text, as JSON and as a page."""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ...base.errors import UserError
from ...base.parser import Parser
from ..inspect import measure
from ..manifest import write_whole
from ..prepare.duplicates import find_duplicates
from ..text.tokenizer import load_tokenizer
from .overview import COUNTED, SPREADS, overview, remarks

_DESCRIPTION = """\
Say what is in a folder that `twinreel prepare` made: clips, durations, frame rates, sizes, captions and their tokens,
languages, sound, duplicates, what was rejected and why.

  twinreel inspect DIR                       as text
  twinreel inspect DIR --out page            page/index.html, page/inspect.json and page/sheet.jpg as well
  twinreel inspect DIR --verify              read every record too, decode every frame, compare all with what the
                                             folder says of it; exit status 1 if anything is wrong

Tokens are counted with --tokenizer (a SentencePiece .model file, a Hugging Face folder); without it one is trained on
the captions of train, as `twinreel pretrain` does. What is longer than
--context_length, begin and end included, would be cut.
"""
_BLOCKS = " ▁▂▃▄▅▆▇█"


def inspect(
    folder: Path | str,
    *,
    out: Path | str | None = None,
    tokenizer: Path | str | None = None,
    vocab_size: int = 8000,
    context_length: int = 64,
    sheet: int = 24,
    seed: int = 0,
    verify: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Measure a prepared folder and print what was found.

    Args:
      folder: the prepared folder.
      out: where to write `index.html`, `inspect.json` and `sheet.jpg`; None = nowhere.
      tokenizer: a SentencePiece .model file or what else `load_tokenizer` takes; None = trained on the captions.
      vocab_size: the largest vocabulary when it is trained.
      context_length: tokens L of a text, begin and end included.
      sheet: number of clips on the contact sheet.
      seed: of the choice of these clips.
      verify: whether to read and check every record.
      console: where the text goes; None = standard output.

    Returns:
      What is written to `inspect.json`.

    Raises:
      UserError: the folder is not prepared, or a value makes no sense.
    """
    folder, console = Path(folder), console or Console()
    if sheet < 0 or context_length < 2:
        raise UserError(f"--sheet {sheet} --context_length {context_length}: wanted 0 or more, and 2 or more")
    prepared, rows, rejects = read_folder(folder)
    figures = _measured(folder, prepared, rows, rejects)
    if tokenizer:
        used, figures["tokenizer"] = load_tokenizer(str(tokenizer)), str(tokenizer)
    elif (used := measure.train_tokenizer(rows, vocab_size=vocab_size)) is not None:
        figures["tokenizer"] = f"SentencePiece trained here (--vocab_size {vocab_size})"
    else:
        figures["tokenizer"] = "no tokenizer: there is no caption"
    for split, members in rows.items():
        figures["splits"][split] |= measure.token_figures(members, tokenizer=used, context_length=context_length)
    if verify:
        figures["verified"] = _verified(folder, prepared, rows)
    _print(console, figures)
    if out is not None:
        from .page import write_inspection  # here: matplotlib takes a second to import

        path = write_inspection(
            Path(out), figures=figures, rows=rows, folder=folder, shards=prepared["shards"], count=sheet, seed=seed
        )
        write_whole(
            Path(out) / "inspect.json", parts=[json.dumps(figures, indent=2, ensure_ascii=False, allow_nan=False), "\n"]
        )
        console.print(f"page: {path}")
    return figures


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]], list[dict[str, Any]]]:
    """Read prepare.json, the lines of clips.jsonl by split, and those of rejects.jsonl.

    Raises:
      UserError: the folder does not exist, is not prepared, or is of a version without a list of shards.
    """
    remedy = f"make it with `twinreel prepare SOURCE --out {folder}`"
    if not (folder / "prepare.json").is_file():
        raise UserError(f"{str(folder)!r} has no prepare.json: it is no prepared folder, or not finished; {remedy}")
    try:
        prepared = json.loads((folder / "prepare.json").read_text(encoding="utf-8"))
        rows: dict[str, list[dict[str, Any]]] = {split: [] for split in prepared["counts"]}
        for row in _lines(folder / "clips.jsonl"):
            rows.setdefault(row["split"], []).append(row)
        rejects = _lines(folder / "rejects.jsonl")
        if not isinstance(prepared["shards"], list):
            raise KeyError("shards")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{str(folder)!r} is damaged or of another version ({error!r}); {remedy}") from error
    return prepared, {split: members for split, members in rows.items() if members}, rejects


def _lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def _all(rows: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [row for members in rows.values() for row in members]


def _measured(
    folder: Path, prepared: dict[str, Any], rows: dict[str, list[dict[str, Any]]], rejects: list[dict[str, Any]]
) -> dict[str, Any]:
    language, how = measure.identifier()
    return {
        "folder": folder.resolve().name,
        "source": prepared["source"],
        "options": prepared["options"],
        "bytes": prepared["bytes"],
        "shards": len(prepared["shards"]),
        "notes": prepared["notes"],
        "languages_by": how,
        "splits": {
            split: {
                **measure.split_figures(members, language=language),
                "rejected": sum(line["split"] == split for line in rejects),
            }
            for split, members in rows.items()
        },
        "rejects": measure.reject_figures(rejects),
        "duplicates": _duplicates(_all(rows)),
    }


def _duplicates(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    from ..prepare.settle import counted, listed

    rows = [row for row in rows if "sha256" in row]  # a clip that has features only has no fingerprint
    if not rows:
        return None
    found = find_duplicates(rows)
    lines = listed(rows, found=found)
    return counted(rows, found=found) | {"first": lines[:10]}


def _verified(folder: Path, prepared: dict[str, Any], rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    from .verify import check_records

    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TextColumn("records"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=sum(map(len, rows.values())))
        return check_records(folder, shards=prepared["shards"], rows=rows, advance=lambda: progress.advance(task))


def bars(counts: list[int], *, width: int = 24) -> str:
    """Draw a histogram in one line of text, one character per bin; a bin that is not empty shows something.

    >>> bars([0, 1, 100, 50])
    ' ▁█▄'
    """
    top = max(counts, default=0)
    if len(counts) > width:  # neighbours share a character
        each = -(-len(counts) // width)
        return bars([sum(counts[i : i + each]) for i in range(0, len(counts), each)], width=width)
    heights = [max(8 * count // top, 1) if count else 0 for count in counts]
    return "".join(_BLOCKS[height] for height in heights)


def _print(console: Console, figures: dict[str, Any]) -> None:
    """Print all figures as tables."""
    splits = figures["splits"]
    name, size = escape(figures["folder"]), decimal(figures["bytes"])
    console.print(f"[bold]{name}[/bold]: {size} in {figures['shards']} shards, from {escape(figures['source'])}")
    table = Table(title="what is there", title_justify="left")
    for name in ("", *splits):
        table.add_column(name, justify="left" if not name else "right")
    for name, cells in overview(splits):
        table.add_row(name, *cells)
    console.print(table)
    width = 24 if console.width >= 116 else 8
    table = Table(title="how it is spread", title_justify="left")
    for name in ("", "split", "least", "median", "mean", "95 %", "most", "histogram"):
        table.add_column(name, justify="left" if name in ("", "split", "histogram") else "right")
    for key, name in SPREADS.items():
        for split, found in splits.items():
            if found[key]["counts"]:
                cells = (f"{found[key][at]:,.4g}" for at in ("min", "median", "mean", "p95", "max"))
                table.add_row(name, split, *cells, bars(found[key]["counts"], width=width))
    console.print(table)
    for key, name in COUNTED.items():
        for split, found in splits.items():
            if found[key]:
                parts = ", ".join(f"{value} {count:,}" for value, count in found[key].items())
                console.print(f"{name}, {split}: {escape(parts)}", highlight=False)
    for line in remarks(figures):
        console.print(line, style="yellow", markup=False, highlight=False)


def main(argv: list[str]) -> int:
    """Run `twinreel inspect DIR [flags]`; return 1 if `--verify` finds a fault."""
    parser = Parser(verb="inspect", description=_DESCRIPTION)
    parser.add_argument("folder", metavar="DIR", help="a folder that `twinreel prepare` made")
    parser.add_argument("--out", metavar="PAGE", help="folder for index.html, inspect.json and sheet.jpg")
    parser.add_argument(
        "--tokenizer",
        metavar="NAME",
        help="tokenizer to count with; without it one is trained",
    )
    parser.add_argument("--vocab_size", type=int, default=8000, help="the largest vocabulary, if it is trained")
    parser.add_argument("--context_length", type=int, default=64, help="tokens of a text, begin and end included")
    parser.add_argument("--sheet", type=int, default=24, metavar="N", help="clips on the contact sheet")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of these clips")
    parser.add_argument("--verify", action=argparse.BooleanOptionalAction, default=False, help="check every record")
    parser.add_json()
    args, _ = parser.parse(argv)
    fields: dict[str, Any] = vars(args)
    as_json = fields.pop("json")
    figures = inspect(fields.pop("folder"), **fields, console=Console(quiet=as_json))
    if as_json:
        print(json.dumps(figures, ensure_ascii=False, allow_nan=False))
    return 1 if figures.get("verified", {}).get("faults") else 0
