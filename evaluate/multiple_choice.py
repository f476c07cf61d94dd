"""`twinreel evaluate --multiple_choice`: choose among options, from saved embeddings or scores."""

import argparse
import sys
from typing import Any

from ..base.errors import UserError
from .results import to_json

DESCRIPTION = """
--multiple_choice measures a choice among options: --embeddings with options [n,o,E], video [n,E], answers int [n]; or
--scores with scores [n,o] and answers. Of a prepared data set, list the wrong options of a clip as `meta.foils` in the
manifest: the retrieval report then has a block `multiple_choice`."""
_NAME = "multiple_choice"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--multiple_choice`."""
    parser.add_argument("--multiple_choice", action="store_true", help="choose among the options of a file, see above")


def run(args: argparse.Namespace) -> int:
    """Run `evaluate --multiple_choice` with parsed flags."""
    from .protocols.multiple_choice import choice_report

    files = {"--embeddings": args.embeddings, "--scores": args.scores}
    given = {flag: path for flag, path in files.items() if path}
    if len(given) != 1 or args.checkpoint or args.data:
        raise UserError(
            "--multiple_choice takes --embeddings FILE.npz or --scores FILE.npz and no model; of a prepared data set "
            "whose clips have foils, `evaluate MODEL --data DIR --out DIR` measures it along with retrieval"
        )
    other = {"--zero_shot": args.zero_shot, "--as": args.read_as, "--rerank": args.rerank}
    if unfit := [flag for flag, value in other.items() if value]:
        raise UserError(f"{unfit[0]} does not go with --multiple_choice; leave one of them out")
    results = choice_report(next(iter(given.values())), scores=bool(args.scores))
    text = to_json(results)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / f"{_NAME}.json").write_text(text, encoding="utf-8")
    if args.json:
        sys.stdout.write(text)
        return 0
    for name, block in {"all": results[_NAME], **results.get("per_type", {})}.items():
        print(f"{name}: {choice_line(block)}")
    if args.out:
        print(f"report: {args.out / f'{_NAME}.json'}")
    return 0


def choice_line(block: dict[str, Any]) -> str:
    """Return the figures of multiple choice as one line.

    >>> choice_line({"accuracy": 64.0, "n": 30, "chance": 20.0, "tied": 0})
    '64.00 % of 30 questions (chance 20.0 %)'
    """
    line = f"{block['accuracy']:.2f} % of {block['n']} questions (chance {block['chance']:.1f} %)"
    if block["tied"]:
        line += f"; {block['tied']} tied, all lost or won: {block['pessimistic']:.2f} or {block['optimistic']:.2f} %"
    return line
