"""How `twinreel caption` tells what it found in a split: a file, a page and a line."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .results import to_json


def tell_captions(
    results: dict[str, Any], *, args: argparse.Namespace, line: str, write_page: Callable[..., Path]
) -> None:
    """Write `captions.json` and the page, and print the figures.

    Args:
      results: JSON values.
      args: of the verb: `out`, `data` and `json`.
      line: the figures.
      write_page: (folder, results=, records=) -> the path of the page.
    """
    text = to_json(results)
    if args.out:
        from ..data.batches.records import Records

        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "captions.json").write_text(text, encoding="utf-8")
        page = write_page(args.out, results=results, records=Records(args.data))
    if args.json:
        sys.stdout.write(text)
        return
    print(line)
    if args.out:
        print(f"report: {page}")
