"""The command line of `twinreel index`."""

import json
import sys
from pathlib import Path
from typing import Any

from ...base.errors import UserError
from ...base.parser import Parser, folder

DESCRIPTION = """Index videos and pictures, so that they can be searched.

  twinreel index ~/Videos --out library --model hf:google/videoprism-lvt-base-f16r288
  twinreel search library "a dog catches a frisbee"

SOURCE is a folder (all folders below it, too), a manifest (.jsonl) or a table (.csv), see `twinreel prepare --help`; a
manifest may have captions, labels and transcripts. A subtitle file of a video's name (a.srt or a.vtt next to a.mp4) is
its transcript. MODEL is anything that `twinreel encode` takes: a run, a bundle, public weights. Its video tower embeds
each moment; its audio tower embeds the sound, if it has one, and its text tower the transcript.

Files longer than --window seconds are cut into moments that overlap. Files are decoded by several processes; those that
cannot be decoded are listed with their reasons.

Run the same command again at any time: only new and changed files are decoded, moved files keep their moments, and
deleted files leave the index. Without SOURCE, the sources of earlier runs are read again. An interrupted run resumes
where it stopped. Another --model adds its embeddings next to those of the first. --export writes them to Parquet files,
which vector databases load."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = _parser()
    args, _ = parser.parse(argv)
    out = folder(args.out, flag="--out")
    from . import database
    from .store import Store

    before = _settings(out)
    if args.drop_model:
        if before is None:
            raise UserError(f"there is no index at {str(out)!r}")
        with Store(out, settings=before) as store:
            store.drop_model(args.drop_model)
        print(f"{out}: model {args.drop_model!r} removed", file=sys.stderr)
        return 0
    if args.export:
        _export(out, Path(args.export), model=args.name, quiet=args.json)
        return 0
    detector = str(Path(args.blur_faces).expanduser().resolve()) if args.blur_faces else None
    given = {"window_s": args.window, "overlap_s": args.overlap, "fps": args.fps, "blur_faces": detector}
    chosen = {name: value for name, value in given.items() if value is not None}
    if before is None:
        settings = database.Settings(**_scaled(chosen))
    else:
        settings = database.Settings(**{name: getattr(before, name) for name in given} | chosen)
    from .build import BuildOptions, build_index
    from .models import open_model

    options = BuildOptions(
        batch_size=args.batch_size,
        workers=args.workers,
        thumbnails=not args.no_thumbnails,
        retry=args.retry,
        ann=args.ann,
        max_bad_fraction=args.max_bad_fraction,
        progress=not args.json,
    )
    source, name = _model(args.model, args.name, out=out)
    opened = open_model(source, name=name, fps=settings.fps, blur_faces=settings.blur_faces)
    found = build_index(args.sources, folder=out, opened=opened, settings=settings, options=options)
    print(json.dumps(found)) if args.json else _print_summary(found)
    return 0 if found["within_limit"] else 1


def _parser() -> Parser:
    parser = Parser(verb="index", description=DESCRIPTION)
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="folders, manifests (.jsonl) or tables (.csv)")
    parser.add_argument("--out", required=True, metavar="DIR", help="the index, a folder")
    parser.add_argument("--model", default="", help="a run, a bundle or public weights; default: the index's own model")
    parser.add_argument("--name", default="", help="of the model in the index; default: the last part of --model")
    parser.add_argument("--drop_model", default="", metavar="NAME", help="remove a model's embeddings, do nothing else")
    parser.add_argument(
        "--export",
        default="",
        metavar="DIR",
        help="write the embeddings of the model --name to Parquet files in DIR, do nothing else",
    )
    group = parser.add_argument_group("moments (the same for all models of an index)")
    group.add_argument("--window", type=float, metavar="S", help="seconds of a moment (default: 10)")
    group.add_argument("--overlap", type=float, metavar="S", help="seconds that neighbours share (default: half of it)")
    group.add_argument(
        "--fps", type=float, help="frames per second from which frames are drawn, unless the model says so (default: 8)"
    )
    group.add_argument(
        "--blur_faces",
        default="",
        metavar="FILE",
        help="blur faces before anything is computed or kept, also in exported cuts and in what `serve` plays; FILE is "
        "the ONNX file of OpenCV's YuNet. It holds for the index; later runs need not repeat it",
    )
    group = parser.add_argument_group("work")
    group.add_argument("--batch_size", type=int, default=16, help="moments that are embedded at a time")
    group.add_argument("--workers", type=int, default=0, help="processes that decode; 0 = one per core")
    group.add_argument("--no_thumbnails", action="store_true", help="keep no small picture of each moment")
    group.add_argument("--retry", action="store_true", help="decode files again that could not be decoded before")
    group.add_argument(
        "--max_bad_fraction",
        type=float,
        default=0.2,
        help="exit with status 1 if more of the files cannot be decoded; the others are indexed all the same",
    )
    group.add_argument(
        "--ann",
        default="auto",
        metavar="KIND",
        help="search by flat (exact), hnsw or ivfpq; auto is exact up to a million moments, above that hnsw if it fits "
        "in half of the memory, otherwise ivfpq",
    )
    parser.add_json()
    return parser


def _export(folder: Path, out: Path, *, model: str, quiet: bool) -> None:
    """Write the Parquet files, and tell on standard error what was written."""
    from rich.console import Console
    from rich.progress import Progress

    from .parquet import export_parquet

    with Progress(console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task("write", total=None)
        written = export_parquet(
            folder, out=out, model=model, tick=lambda done, total: bar.update(task, completed=done, total=total)
        )
    if quiet:
        print(json.dumps({str(path): rows for path, rows in written.items()}))
    for path, rows in written.items() if not quiet else ():
        print(f"wrote {path}: {rows:,} moments", file=sys.stderr)


def _settings(out: Path) -> Any:
    """Return the settings of an index that is there, or None."""
    from . import database

    if not database.exists(out):
        return None
    connection = database.connect(out)
    try:
        return database.read_settings(connection)
    finally:
        connection.close()


def _scaled(chosen: dict[str, Any]) -> dict[str, Any]:
    """Let neighbours of another --window share half of it, too."""
    if "window_s" in chosen and "overlap_s" not in chosen:
        return chosen | {"overlap_s": chosen["window_s"] / 2}
    return chosen


def _model(source: str, name: str, *, out: Path) -> tuple[str, str]:
    """Return where the model lies and its name; without --model those of the index's first model."""
    from . import database

    if source:
        return source, name
    if not database.exists(out):
        raise UserError(
            "a new index needs --model MODEL: a run, a bundle or public weights (`twinreel convert --list`)"
        )
    connection = database.connect(out)
    try:
        row = database.model_named(connection, name, folder=out)
    finally:
        connection.close()
    return row.source, row.name


def _print_summary(found: dict[str, Any]) -> None:
    """Tell on standard error what was done."""
    counts = ", ".join(f"{found[key]:,} {key}" for key in ("added", "changed", "moved", "removed", "unchanged"))
    if found["forgotten"]:
        counts += f", {found['forgotten']:,} left out: deleted by `twinreel forget`"
    print(f"{found['index']}: {found['files']:,} files, {found['moments']:,} moments ({counts})", file=sys.stderr)
    from ...evaluate.measures.neighbours import has_faiss

    kinds = ", ".join(f"{side} {kind}" for side, kind in found["search"].items())
    without = "" if has_faiss() else " by NumPy (FAISS, for large collections: pip install 'twinreel[serve]')"
    print(f"  model {found['model']}; search: {kinds or 'nothing yet'}{without}", file=sys.stderr)
    failed = found["failed"]
    if failed:
        print(f"  not decoded: {len(failed):,} files (--retry tries them again)", file=sys.stderr)
    for one in failed[:10]:
        detail = f": {one['detail']}" if one["detail"] else ""
        print(f"    {one['path']}: {one['reason']}{detail}", file=sys.stderr)
    if len(failed) > 10:
        print(f"    and {len(failed) - 10:,} more (--json lists all)", file=sys.stderr)
    if not found["within_limit"]:
        print("  that is more than --max_bad_fraction allows", file=sys.stderr)
