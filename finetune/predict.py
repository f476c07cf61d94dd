"""`twinreel predict`: label media files with a fine-tuned checkpoint."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..base.errors import UserError
from ..base.parser import Parser

DESCRIPTION = """Label media files with a checkpoint of `twinreel finetune`.

  twinreel predict runs/fights a.mp4 b.mp4
  twinreel predict runs/fights clips/*.mp4 --json > labels.jsonl

Prints the most probable classes of each file with their probabilities in percent, as a table; with --json one JSON
object a line: {"path", "label", "probability", "probabilities"}, probabilities from 0 to 1. Files are decoded, sampled
and cropped as the clips that the model was evaluated on. From Python: `twinreel.load("runs/fights").predict(files)`."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="predict", description=DESCRIPTION)
    parser.add_argument("checkpoint", help="a bundle, a checkpoint, or the workdir of a run (its newest checkpoint)")
    parser.add_argument("files", nargs="+", metavar="FILE", help="media files")
    parser.add_argument("--top_k", type=int, default=3, help="classes per file, the most probable first; 0 = all")
    parser.add_argument("--windows", type=int, default=1, help="windows of each file whose probabilities are averaged")
    parser.add_argument("--batch_size", type=int, default=16, help="files at a time")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode; 0 = one per core")
    parser.add_argument("--json", action="store_true", help="print JSON on standard output, one object per file")
    parser.add_argument("--out", metavar="FILE.jsonl", help="also write these JSON lines to a file")
    args, _ = parser.parse(argv)
    for name, least in (("top_k", 0), ("windows", 1), ("batch_size", 1), ("workers", 0)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} must be at least {least}, got {getattr(args, name)}")
    check_files(args.files)
    predictor = open_predictor(args.checkpoint)
    found = predictor.predict(
        args.files, batch_size=args.batch_size, windows=args.windows, workers=args.workers, progress=True
    )
    shown = [_top(one, count=args.top_k or len(predictor.labels)) for one in found]
    if args.out:
        write_lines(Path(args.out), shown)
        print(f"wrote {args.out}: {len(shown)} files", file=sys.stderr)
    if args.json:
        for one in shown:
            print(json.dumps(one, ensure_ascii=False))
    else:
        _print_table(shown)
    return 0


def check_files(files: Sequence[str]) -> None:
    """Raise UserError if a file does not exist, or is a folder; names all of them."""
    folders = [file for file in files if Path(file).is_dir()]
    missing = [file for file in files if not Path(file).exists()]
    if folders:
        raise UserError(f"{folders[0]} is a folder; give the files in it: {Path(folders[0]) / '*'}")
    if missing:
        raise UserError(f"{len(missing)} of {len(files)} files do not exist: {', '.join(missing[:10])}")


def open_predictor(checkpoint: str) -> Any:
    """Load a fine-tuned model.

    Raises:
      UserError: nothing readable there, or a model without a head.
    """
    from ..encode.predictor import load_predictor
    from ..zoo.load import locate

    located = locate(checkpoint)
    if not located.spec.task_heads:
        raise UserError(
            f"{located.path} is a model without a head, so it has no classes to choose from; fine-tune it first "
            f"(`twinreel finetune --init {checkpoint} ...`), or embed files with `twinreel encode {checkpoint}`"
        )
    return load_predictor(located)


def write_lines(path: Path, values: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines; the file is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in values), encoding="utf-8")
    partial.replace(path)


def _top(one: dict[str, Any], *, count: int) -> dict[str, Any]:
    return {**one, "probabilities": dict(list(one["probabilities"].items())[:count])}


def _print_table(found: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("file", "class")
    table.add_column("%", justify="right")
    table.add_column("next")
    for one in found:
        (label, probability), *others = one["probabilities"].items()
        rest = ", ".join(f"{name} {100 * value:.1f}" for name, value in others)
        table.add_row(one["path"], label, f"{100 * probability:.1f}", rest)
    Console(highlight=False, markup=False, soft_wrap=True).print(table)
