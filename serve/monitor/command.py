"""The command line of `twinreel monitor`."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...base.errors import UserError
from ...base.parser import Parser

if TYPE_CHECKING:
    from ...encode.embed.encoder import Encoder
    from ...evaluate.embedding.statistics import Statistics
    from .rows import RowOptions

DRIFTED = 3
"""Exit status of drift."""
DESCRIPTION = """Compare new data with the data that a model was checked on.

  twinreel monitor runs/mine --record data/prepared --canary canary.jsonl     # once
  twinreel monitor runs/mine --against ~/Videos/this_week --canary canary.jsonl --out drift
  twinreel monitor runs/mine --against library --queries queries.txt --json

--record measures reference data and writes embedding_stats.npz next to the model: count, mean and covariance of the
embeddings of each side (video, audio, text), a random sample of them, the words and lengths of the texts, and the ranks
of the canary set. `twinreel evaluate` writes such a file next to its report, too. MODEL is a run, a bundle or public
weights (with --stats FILE); or, for data that is embedded already, a file of statistics or of embeddings.

SOURCE is an index, a prepared folder, a file of embeddings (.npz of `encode --out` or `evaluate`), or media files,
folders and manifests, which are decoded and embedded. Record and check data of one kind: whole clips and the moments
of an index differ by the way they are cut.

  embeddings  Fréchet distance, shift of the mean, and MMD with a permutation test (Gretton et al. 2012)
  queries     words that the reference does not have, tokens that the vocabulary does not have, lengths (KS test)
  canary      recall of a small captioned set with its interval, and the paired difference from what was recorded

Exit status: 0 no drift, 3 drift, 2 a mistake in the command or its input."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    args, _ = _parser().parse(argv)
    if args.record and args.against:
        raise UserError("--record makes a reference and --against compares with one; give one of them")
    if not (args.record or args.against or args.queries or args.canary):
        raise UserError("nothing to compare: give --against SOURCE, --queries FILE, --canary DATA; or --record SOURCE")
    from .rows import RowOptions

    names = {field.name for field in dataclasses.fields(RowOptions)}
    rows = RowOptions(**{k: v for k, v in vars(args).items() if k in names}, progress=not args.json)
    if rows.limit < 1 or rows.batch_size < 1:
        raise UserError(f"--limit is {rows.limit} and --batch_size {rows.batch_size}; wanted at least 1")
    return _record(args, options=rows) if args.record else _check(args, options=rows)


def _parser() -> Parser:
    parser = Parser(verb="monitor", description=DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="a run, a bundle or public weights; or a file of statistics")
    parser.add_argument("--record", nargs="+", default=[], metavar="SOURCE", help="record these as the reference")
    parser.add_argument("--against", nargs="+", default=[], metavar="SOURCE", help="new data")
    parser.add_argument("--queries", type=Path, metavar="FILE", help="text queries, one per line")
    parser.add_argument("--canary", default="", metavar="DATA", help="captioned clips: a prepared folder or a manifest")
    parser.add_argument("--stats", type=Path, metavar="FILE.npz", help="reference statistics; default: with the model")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the page and drift.json; made if absent")
    parser.add_json()
    group = parser.add_argument_group("what counts as drift")
    group.add_argument("--alpha", type=float, default=0.01, help="significance level of MMD and KS tests")
    group.add_argument("--min_mmd", type=float, default=0.0, metavar="X", help="MMD^2 up to which all is well")
    group.add_argument("--max_mean_shift", type=float, metavar="X", help="of the means, in reference spreads")
    group.add_argument("--max_frechet", type=float, metavar="X", help="Fréchet distance")
    group.add_argument("--max_new_words", type=float, default=0.1, metavar="X", help="rise of the share of new words")
    group.add_argument("--max_unknown", type=float, default=0.02, metavar="X", help="rise of that of unknown tokens")
    group.add_argument(
        "--max_length_shift", type=float, default=0.1, metavar="X", help="KS statistic of lengths that is tolerated"
    )
    group.add_argument("--max_recall_drop", type=float, default=2.0, metavar="X", help="fall of canary recalls, points")
    group = parser.add_argument_group("work")
    group.add_argument("--bandwidth", type=float, default=0.0, help="of the kernel; 0 = the median distance")
    group.add_argument("--permutations", type=int, default=1000, help="of the MMD test")
    group.add_argument("--sample", type=int, default=1000, metavar="N", help="new rows in the MMD test, at most")
    group.add_argument("--split", default="test", help="of prepared folders")
    group.add_argument("--limit", type=int, default=20_000, metavar="N", help="rows or files that are taken, at random")
    group.add_argument("--seed", type=int, default=0, help="of samples and permutations")
    group.add_argument("--batch_size", type=int, default=16, help="clips that are embedded at a time")
    group.add_argument("--workers", type=int, default=0, help="processes that decode; 0 = one per core")
    group.add_argument("--max_bad_fraction", type=float, default=0.2, help="of files that cannot be decoded")
    return parser


def _encoder(args: argparse.Namespace) -> "Encoder | None":
    """Load the model; None if the command line names a file."""
    if args.model.endswith(".npz"):
        return None
    from ...encode.embed.encoder import load

    return load(args.model)


def _record(args: argparse.Namespace, *, options: "RowOptions") -> int:
    """Write the reference statistics."""
    from .reference import identity_of, measure_canary, place_of, record
    from .rows import read_queries, read_sources

    if args.model.endswith(".npz"):
        place, encoder = Path(args.model), None
    else:
        place, encoder = place_of(args.model, stats=args.stats), _encoder(args)
    if args.canary and encoder is None:
        raise UserError(f"--canary {args.canary} has to be embedded: give the MODEL, and --stats {args.model}")
    queries = read_queries(args.queries) if args.queries else []
    digest = identity_of(encoder)["model_sha256"] if encoder else ""
    data = read_sources(args.record, encoder=encoder, options=options, digest=digest)
    canary = measure_canary(args.canary, encoder=encoder, options=options) if args.canary and encoder else None
    made = record(data, queries=queries, canary=canary, encoder=encoder)
    made.save(place)
    told = {"stats": str(place), "sides": {name: side.count for name, side in made.sides.items()}}
    told |= {"texts": made.texts.count if made.texts else 0, "canary": len(canary.above) if canary else 0}
    if args.json:
        print(json.dumps(told))
    else:
        sides = ", ".join(f"{count:,} of {name}" for name, count in told["sides"].items())
        print(f"wrote {place}: embeddings {sides}; {told['texts']:,} texts; {told['canary']:,} canary captions")
    return 0


def _check(args: argparse.Namespace, *, options: "RowOptions") -> int:
    """Compare, print and write; return the exit status."""
    from ...evaluate.embedding.statistics import Statistics
    from .check import Thresholds, findings
    from .reference import find
    from .report import print_results, write_report

    names = [field.name for field in dataclasses.fields(Thresholds)]
    thresholds = Thresholds(**{name: getattr(args, name) for name in names})
    place = find(args.model, stats=args.stats)
    reference = Statistics.load(place)
    results: dict[str, Any] = _measured(args, reference=reference, options=options)
    results["drift"] = findings(results, thresholds=thresholds)
    results |= {"reference": str(place), "thresholds": dataclasses.asdict(thresholds)}
    if args.out:
        page = write_report(args.out, results=results)
        print(f"report: {page}", file=sys.stderr)
    print(json.dumps(results, allow_nan=False)) if args.json else print_results(results)
    return DRIFTED if results["drift"] else 0


def _measured(args: argparse.Namespace, *, reference: "Statistics", options: "RowOptions") -> dict[str, Any]:
    """Return `sides`, `texts` and `canary`, as far as they were asked for."""
    from .check import TestOptions, compare_canary, compare_sides, compare_texts
    from .check import Thresholds as Limits
    from .reference import check_model, measure_canary, of_tokens
    from .rows import Data, read_queries, read_sources

    test = TestOptions(**{name: getattr(args, name) for name in ("bandwidth", "permutations", "sample", "seed")})
    encoder = _encoder(args)
    results: dict[str, Any] = {"model": args.model, "against": args.against, "notes": []}
    data = Data()
    if args.against:
        check_model(reference, encoder=encoder)
        digest = str(reference.model.get("model_sha256") or "")
        data = read_sources(args.against, encoder=encoder, options=options, digest=digest)
        if (before := reference.made.get("kind")) != data.kind:
            note = f"the reference was recorded from {before}, the new data are {data.kind}: cut or decoded differently"
            results["notes"].append(note)
    texts = read_queries(args.queries) if args.queries else data.texts
    if args.queries and encoder is not None and args.against and "text" in reference.sides:
        data.sides["text"] = encoder.encode_text(texts)
    if args.against:
        limits = Limits(alpha=args.alpha)
        results["sides"] = compare_sides(reference, data=data, thresholds=limits, options=test)
    if texts and (args.queries or reference.texts is not None):
        results["texts"] = compare_texts(reference, texts=texts, **of_tokens(encoder, texts))
    if args.canary:
        if encoder is None or reference.canary is None:
            lacks = "MODEL" if encoder is None else "a recorded canary set: add --canary to --record"
            raise UserError(f"--canary {args.canary} needs {lacks}")
        now = measure_canary(args.canary, encoder=encoder, options=options)
        results["canary"] = compare_canary(reference.canary, now=now)
    return results
