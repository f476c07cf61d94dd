"""Files that `twinreel evaluate` measures without a model: embeddings and scores of any origin."""

from argparse import Namespace
from typing import Any

from ..base.errors import UserError
from .results import Further, measure, rank, to_json, write


def of_file(args: Namespace) -> dict[str, Any]:
    """Measure the file that `--embeddings` or `--scores` names; with `--out`, write its report.

    Returns:
      The content of `retrieval.json`.

    Raises:
      UserError: flags that do not go together, or a file that cannot be measured.
    """
    given = {"MODEL": args.checkpoint, "--embeddings": args.embeddings, "--scores": args.scores}
    both = [f"{name} {str(value)!r}" for name, value in given.items() if value]
    if len(both) > 1:
        raise UserError(f"got both {' and '.join(both)}; give one of them")
    for name in ("prompt", "bank_split"):
        if getattr(args, name):
            raise UserError(f"--{name} {getattr(args, name)} changes what is embedded: give MODEL --data DIR --out DIR")
    further = Further.of(args)
    return _of_scores(args, further=further) if args.scores else _of_embeddings(args, further=further)


def _of_scores(args: Namespace, *, further: Further) -> dict[str, Any]:
    from .protocols.scored import Scores, score_report
    from .reports.leaderboard import write_mmeb

    if further.compare:
        raise UserError(f"--compare {further.compare[0]} goes with embeddings, not with --scores; give --embeddings")
    if further.share_duplicates:
        raise UserError("--share_duplicates finds copies of clips by their embeddings; give --embeddings, or a MODEL")
    if args.controls or args.pairs:
        raise UserError("--control and --pairs need embeddings, and --scores has none; give --embeddings, or a MODEL")
    if further.group_by:
        raise UserError(f"--group_by {further.group_by[0]} goes with embeddings, not with --scores; leave it out")
    if args.data:
        raise UserError(f"--data {args.data} gives the thumbnails of a page, and scores have none; leave it out")
    found = Scores.load(args.scores)
    results = score_report(found) | further.of_scores(found)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "retrieval.json").write_text(to_json(results), encoding="utf-8")
        write_mmeb(args.out, results=results)
    return results


def _of_embeddings(args: Namespace, *, further: Further) -> dict[str, Any]:
    from .control_flags import select
    from .counting.count import CountOptions
    from .embedding.embeddings import Embeddings

    found = select(Embeddings.load(args.embeddings), controls=args.controls, pairs=args.pairs)
    if not args.out:
        return measure(found, ranks=rank(found, options=CountOptions(progress=True)), further=further)
    from ..data.batches.records import Records

    page = {"thumbnails": args.thumbnails}
    return write(found, out=args.out, records=Records(args.data) if args.data else None, further=further, page=page)
