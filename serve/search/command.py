"""The command line of `twinreel search`."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...base.errors import UserError
from ...base.parser import Parser

if TYPE_CHECKING:
    from .collection import Collection
    from .engine import Results

DESCRIPTION = """Find moments of an index by text, a clip, a picture or a sound.

  twinreel search library "a dog catches a frisbee"
  twinreel search library --like clip.mp4 --limit 5            (or a picture)
  twinreel search library --sound bark.wav
  twinreel search library "beach at night -people"             without people
  twinreel search library "beach^2" --like sunset.jpg          both, the text counts twice
  twinreel search library "a goal" --folder ~/Videos/2026 --min_duration 60 --out goals.edl --export cuts

Words of a query belong together. -word and -"a phrase" are to be avoided; ^WEIGHT behind a word, a phrase or a file
says how much it counts (1; 0.5 for what is to be avoided). The score of one term is its cosine with the best moment of
a file; several terms are combined by their standard scores. Moments of a file that answer are joined into stretches of
time.

INDEX is the folder of `twinreel index`. The model is loaded from where it lay when the index was made."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    args, _ = _parser().parse(argv)
    from .outputs import as_json, check_suffix, print_table, write_results

    outs = [Path(name) for name in args.out]
    for out in outs:
        check_suffix(out)
    collection, terms, results = _search(args)
    if args.json:
        print(json.dumps(as_json(results, terms=terms)))
    else:
        print_table(results, terms=terms)
        print(f"{results.moments:,} moments, {results.search}, {1000 * results.seconds:.0f} ms", file=sys.stderr)
    for out in outs:
        write_results(out, results=results, terms=terms)
        print(f"wrote {out}", file=sys.stderr)
    failed = _export(args, collection, results) if args.export else []
    collection.close()
    return 1 if failed else 0


def _parser() -> Parser:
    parser = Parser(verb="search", description=DESCRIPTION)
    parser.add_argument("index", metavar="INDEX", help="the folder of `twinreel index`")
    parser.add_argument("query", nargs="?", default="", metavar="TEXT", help="what to look for; see above")
    group = parser.add_argument_group("what to look for (each may be given several times, as VALUE or VALUE^WEIGHT)")
    group.add_argument("--like", action="append", default=[], metavar="FILE", help="a film or a picture")
    group.add_argument(
        "--sound", action="append", default=[], metavar="FILE", help="a sound file, or a film with sound"
    )
    group.add_argument("--minus", action="append", default=[], metavar="TEXT", help="text to be avoided")
    group.add_argument("--unlike", action="append", default=[], metavar="FILE", help="a film or picture to be avoided")
    group.add_argument(
        "--in",
        dest="within",
        default="",
        choices=("video", "audio", "transcript"),
        help="where texts are looked for (default: video)",
    )
    group = parser.add_argument_group("which files")
    group.add_argument("--folder", default="", metavar="DIR", help="files below this folder")
    group.add_argument("--after", default="", metavar="DATE", help="last written on this day or later, YYYY-MM-DD")
    group.add_argument("--before", default="", metavar="DATE", help="last written before this day")
    group.add_argument("--min_duration", type=float, metavar="S", help="seconds, at least")
    group.add_argument("--max_duration", type=float, metavar="S", help="seconds, at most")
    group.add_argument("--label", action="append", default=[], help="with this label, or any of several")
    group = parser.add_argument_group("results")
    group.add_argument("--limit", type=int, default=20, help="files")
    group.add_argument("--per_file", type=int, default=3, help="stretches of time of a file")
    group.add_argument(
        "--fold",
        nargs="?",
        type=float,
        const=0.97,
        default=0.0,
        metavar="COSINE",
        help="show files that look nearly the same as one hit (0.97 and above, unless another cosine is given)",
    )
    group.add_argument(
        "--rerank",
        default="",
        metavar="HOW",
        help="cross_encoder or x_pool: decode the best moments of the first 50 files again, and order them by the "
        "model's head of this kind (:k=20 takes fewer, :cosine=1 adds the cosine). Or a text FILE with other queries, "
        "one per line: dual softmax over them, files that answer every query sink",
    )
    group.add_argument("--rerank_scale", type=float, default=100.0, help="what multiplies the cosines in the softmax")
    group.add_argument(
        "--out",
        action="append",
        default=[],
        metavar="FILE",
        help="write hits to FILE.json, .csv, .m3u (playlist), .edl or .otio (cut lists); may be given several times",
    )
    group.add_argument("--export", default="", metavar="DIR", help="cut the stretches into MP4 files, to the frame")
    group.add_argument("--subtitles", action="store_true", help="with --export: write what is said next to each, .srt")
    group = parser.add_argument_group("model")
    group.add_argument("--model", default="", help="name of a model of the index, or where it lies now")
    parser.add_json()
    return parser


def _search(args: Any) -> "tuple[Collection, list[Any], Results]":
    """Open the index, embed the query with its model, and search."""
    from .collection import Collection
    from .engine import SearchOptions
    from .filters import Filters
    from .opened import open_for
    from .query import embed_terms, side_of
    from .rerank import parse_rerank

    terms = _terms(args)
    if not terms:
        raise UserError("nothing to look for; give TEXT, --like FILE or --sound FILE")
    if args.subtitles and not args.export:
        raise UserError("--subtitles belongs to --export DIR")
    if not any(term.weight > 0 for term in terms):
        raise UserError("the query names only what to avoid; add what to look for")
    name, where = model_of(args)
    collection = Collection(Path(args.index), model=name)
    terms = [
        dataclasses.replace(
            term,
            side=side_of(
                term.kind,
                within=args.within if term.kind == "text" else "",
                sides=collection.sides,
                name=collection.model.name,
            ),
        )
        for term in terms
    ]
    filters = Filters(
        folder=args.folder,
        after=args.after,
        before=args.before,
        min_duration=args.min_duration,
        max_duration=args.max_duration,
        labels=tuple(args.label),
    )
    filters.files(collection.connection)  # mistakes first: loading a model takes a while
    parse_rerank(args.rerank)
    opened = open_for(collection, given=where)
    wanted = embed_terms(terms, opened=opened, settings=collection.settings)
    options = SearchOptions(limit=args.limit, per_file=args.per_file, fold=args.fold)
    given: dict[str, Any] = {"wanted": wanted, "filters": filters, "options": options}
    return collection, terms, _ranked(args, collection, opened=opened, **given)


def _ranked(
    args: Any, collection: "Collection", *, opened: Any, wanted: list[Any], filters: Any, options: Any
) -> "Results":
    """Search, and re-rank as `--rerank` says."""
    from .engine import search
    from .rerank import check_rerank, parse_rerank, rerank_jointly

    joint = parse_rerank(args.rerank)
    if joint is None:
        bank = opened.encoder.encode_text(_bank(Path(args.rerank))) if args.rerank else None
        options = dataclasses.replace(options, bank=bank, scale=args.rerank_scale)
        return search(collection, wanted, filters=filters, options=options)
    check_rerank(joint, wanted=wanted, opened=opened)
    first = search(collection, wanted, filters=filters, options=dataclasses.replace(options, limit=joint.k))
    results, failed = rerank_jointly(first, asked=joint, wanted=wanted, collection=collection, opened=opened)
    for line in failed:
        print(f"left out: {line}", file=sys.stderr)
    return dataclasses.replace(results, hits=results.hits[: options.limit])


def _terms(args: Any) -> list[Any]:
    """Return the terms of the command line, those to be avoided last."""
    from .query import parse_text, weighted

    found = parse_text(args.query) if args.query else []
    for kind, sign, values in (
        ("like", 1.0, args.like),
        ("sound", 1.0, args.sound),
        ("text", -1.0, args.minus),
        ("like", -1.0, args.unlike),
    ):
        found += [weighted(value, kind=kind, side="video", sign=sign) for value in values]
    return sorted(found, key=lambda term: term.weight < 0)


def model_of(args: Any) -> tuple[str, str]:
    """Return the name of a model of the index, and where it lies now; "" = as the index says."""
    from ..index import database

    if not args.model:
        return "", ""
    connection = database.connect(Path(args.index))
    try:
        names = [model.name for model in database.read_models(connection)]
    finally:
        connection.close()
    return (args.model, "") if args.model in names else ("", args.model)


def _bank(path: Path) -> list[str]:
    """Return the queries of a file, one per line."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--rerank {path} cannot be read ({error}); give a text file with a query per line") from error
    if not any(lines):
        raise UserError(f"--rerank {path} has no query; write one per line")
    return [line for line in lines if line]


def _export(args: Any, collection: "Collection", results: "Results") -> list[str]:
    """Cut the stretches; return what went wrong."""
    from rich.console import Console
    from rich.progress import Progress

    from .export import export_hits

    total = sum(len(hit.spans) for hit in results.hits)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("cut", total=total)
        made, failed = export_hits(
            results.hits,
            collection=collection,
            folder=Path(args.export),
            subtitles=args.subtitles,
            tick=lambda: bar.advance(task),
        )
    print(f"{args.export}: {len(made)} files", file=sys.stderr)
    for line in failed:
        print(f"  not cut: {line}", file=sys.stderr)
    return failed
