"""`twinreel report`: make reports again from their embeddings, and set several models side by side."""

import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import UserError
from ..base.parser import Parser
from .options import THUMBNAILS

if TYPE_CHECKING:
    from ..data.batches.records import Records
    from .runs import Run

DESCRIPTION = """Make the report of a run again, or set several models side by side.

  twinreel report runs/demo/report                                  # the page again, in its place
  twinreel report runs/demo --out runs/demo/again --data data/demo  # elsewhere, with new thumbnails
  twinreel report runs/a runs/b runs/c --out runs/compared          # three models on one page
  twinreel report base=runs/a ours=runs/s1 ours=runs/s2 --out runs/compared

RUN is a report folder (with embeddings.npz), a run with one report below it, or a file of embeddings. No model is read
and nothing is embedded: figures, groups and pages are computed again from the embeddings. Thumbnails are taken over
from the earlier reports unless --data names the prepared data to make them from.

With several RUNs, OUT/index.html compares them: figures, differences from the first RUN with 95 % intervals and the p
of a paired permutation test, recall over K, groups, and the queries on which they differ most. OUT/NAME/ is the report
of each. All must have been measured on the same clips and captions.

NAME=RUN names a model. Runs of one NAME are seeds of one model: figures are their mean, standard deviation (n - 1) and
range. Runs whose config.json differs in the seed only are put together without being asked.

Besides the page a folder receives comparison.json or retrieval.json, and the tables as tables.md, tables.tex and
tables.csv. --json prints that JSON on standard output, and nothing else."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="report", description=DESCRIPTION)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a report folder, a run, or embeddings; or NAME=RUN")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the pages; one RUN: its own by default")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder that `twinreel prepare` made, for thumbnails")
    parser.add_argument(
        "--group_by", action="append", default=[], metavar="FIELD", help="another field by which recalls are grouped"
    )
    parser.add_argument(
        "--thumbnails", type=int, default=THUMBNAILS, metavar="N", help="clips with a thumbnail on a page"
    )
    parser.add_json()
    args, _ = parser.parse(argv)
    from ..data.batches.records import Records
    from .runs import open_runs

    runs = open_runs(args.runs)
    records = Records(args.data) if args.data else None
    if len(runs) > 1:
        results = compare_runs(runs, args, records=records)
    else:
        out = args.out or runs[0].report
        if out is None:
            raise UserError(f"{runs[0].path} is not in a report folder; give --out DIR for the pages")
        results = _remake(runs[0], args, out=out, records=records)
        _print_report(out, results, args)
    if args.json:
        from .results import to_json

        sys.stdout.write(to_json(results))
    return 0


def _remake(
    run: "Run", args: Namespace, *, out: Path, records: "Records | None", earlier: Path | None = None
) -> dict[str, Any]:
    """Write the report of one run; thumbnails come from `earlier`, or else from records or its own earlier report."""
    from .results import Further, write

    page: dict[str, Any] = {"thumbnails": args.thumbnails}
    kept = earlier or (run.report if records is None else None)
    further = Further(group_by=args.group_by)
    return write(
        run.embeddings,
        out=out,
        records=records,
        history=run.history,
        further=further,
        page=page | {"earlier": kept},
        kept=run.report,
    )


def compare_runs(runs: "Sequence[Run]", args: Namespace, *, records: "Records | None") -> dict[str, Any]:
    """Write the report of each run and the page that compares them.

    Returns:
      The content of `comparison.json`.

    Raises:
      UserError: no `--out`, or runs that were measured on different clips or captions.
    """
    from .protocols.models import Measured, check_same_clips, compare_models
    from .reports.comparison_page import write_comparison
    from .reports.gallery import Gallery
    from .reports.rank_file import read_ranks
    from .results import to_json

    if args.out is None:
        raise UserError(f"{len(runs)} runs are compared on a page of their own; give --out DIR for it")
    check_same_clips([run.embeddings for run in runs], names=[run.name for run in runs])
    folders = _folders(runs)
    measured: list[Measured] = []
    pictured: Path | None = None
    for run, folder in zip(runs, folders, strict=True):
        out = args.out / folder
        results = _remake(run, args, out=out, records=records, earlier=pictured)
        _print_report(out, results, args)
        pictured = out if records is not None else None
        ranks = read_ranks(out / "ranks.npz")
        measured.append(
            Measured(name=run.name, model=run.model, embeddings=run.embeddings, ranks=ranks, results=results)
        )
    compared = compare_models(measured, group_by=args.group_by)
    (args.out / "comparison.json").write_text(to_json(compared), encoding="utf-8")
    gallery = Gallery(
        args.out, embeddings=runs[0].embeddings, records=records, earlier=args.out / folders[0], most=args.thumbnails
    )
    pages = {run.name: f"{folder}/index.html" for run, folder in zip(runs, folders, strict=True)}
    page = write_comparison(args.out, compared=compared, runs=measured, gallery=gallery, pages=pages)
    print(f"comparison: {page}", file=sys.stderr if args.json else sys.stdout)
    return compared


def _folders(runs: "Sequence[Run]") -> list[str]:
    """Return a folder for each run, named after it: plain characters, no two alike."""
    names: list[str] = []
    for run in runs:
        plain = re.sub(r"[^\w.-]+", "-", run.name).strip("-.") or "run"
        plain = f"{plain}-report" if plain == "media" else plain
        names.append(plain if plain not in names else f"{plain}-{len(names) + 1}")
    return names


def _print_report(out: Path, results: dict[str, Any], args: Namespace) -> None:
    t2v, v2t = (results[way]["R@1"] for way in ("text_to_video", "video_to_text"))
    mark = "*" if results.get("marked") else ""
    line = f"report: {out / 'index.html'} (R@1 text to video {t2v:.1f}{mark}, video to text {v2t:.1f}{mark})"
    print(line, file=sys.stderr if args.json else sys.stdout)
