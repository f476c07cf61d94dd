"""`twinreel evaluate`: zero-shot retrieval of a checkpoint on a prepared split, or of saved embeddings."""

import dataclasses
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import UserError, unknown
from ..base.parser import Parser
from ..engine.start.flags import join_run
from .options import THUMBNAILS, SplitOptions
from .protocols.words import ENGLISH

if TYPE_CHECKING:
    from ..encode.embed.encoder import Encoder
    from .embedding.embeddings import Embeddings

DESCRIPTION = """Measure zero-shot retrieval, text to video and video to text.

  twinreel evaluate runs/demo/pretrain --data runs/demo/moving_shapes --split test --out runs/demo/report
  twinreel evaluate --embeddings runs/demo/report/embeddings.npz

OUT receives index.html with its media/ (open it from disk), retrieval.json, the tables as tables.md, .tex and .csv,
ranks.npz (the rank of each query), embeddings.npz, and embedding_stats.npz (with which `twinreel monitor` compares
later data). The second form computes the same figures again from embeddings.npz; `twinreel report OUT` makes the page
again and compares several models. --json prints the content of retrieval.json on standard output, and nothing else.

--benchmark NAME keeps to the protocol of a public benchmark and refuses data that was prepared for another one; --list
prints the protocols. Where clips of its list are missing, --allow_missing is needed and every figure is marked with *.

--embeddings takes a file of any origin: text [n,E], video [m,E], video_of_text int [n] (the row of each text's video).
Rows are L2-normalised here. Ties are resolved in expectation; best- and worst-case values are reported alongside.
Large sets are counted on all devices in bounded memory; with --out, the same command continues an interrupted count.
--scores takes the scores themselves, of any model: scores [n,m] (texts by videos) and video_of_text int [n]; and, where
known, texts [n], text_ids [n], video_ids [m] and, for QB-norm, bank [b,m]: training texts by the same videos.

  twinreel evaluate --scores scores.npz --as clip4clip --as pe:reweight_scale=none
  twinreel evaluate --embeddings runs/demo/report/embeddings.npz --rerank dsl:scale=100

--as prints what another project's code prints for the same scores, with its quirks, so that a paper can be compared.
Where that depends on how its sorting routine orders equal scores, both bounds are shown:

READINGS

--compare FILE.npz compares with another model's embeddings of the same split, query by query: differences of recalls
with 95 % intervals, and the p of a paired permutation test.

Recalls are also given per group of captions and clips: by caption length, clip length, label, repeated texts and every
field of the clips' meta, with intervals, and the gap between the best and the worst group. --group_by FIELD, which may
be repeated, adds a field of clips.jsonl, such as width or source.fps.

--rerank adds rows for scores that are re-ranked, which is another protocol than plain retrieval. By other queries: dsl
(dual softmax; scale=100) and qb_norm (beta=20, k=1), which needs training texts: --bank_split train. window_max scores
a clip by the best of its --windows, where the plain rows take the mean of their embeddings. Checkpoints with a head
that sees text and clip together re-rank by it: x_pool (text-conditioned pooling, all pairs) and cross_encoder
(video-text matching, the first k=50 candidates of each query; cosine=1 adds the plain score):

  twinreel evaluate MODEL --data DIR --rerank x_pool --rerank cross_encoder:k=100 --out OUT

Where texts repeat, as class names do, "any match" rows count every clip with the same text as right. Clips are also
classified among the distinct texts if these are at most half of all. --share_duplicates adds rows in which copies of a
clip (equal input) share their captions, as equal captions share their clips."""


def _parser() -> Parser:
    from . import control_flags, multiple_choice, zero_shot
    from .measures.published import READINGS, describe
    from .protocols.benchmark_list import add_benchmark_flags

    named = "\n".join(f"  {name:22} {describe(name)}" for name in READINGS)
    description = DESCRIPTION.replace("READINGS", named)
    parts = (control_flags, zero_shot, multiple_choice)
    description = "\n".join((description, *(part.DESCRIPTION for part in parts)))
    parser = Parser(verb="evaluate", description=description)
    parser.add_argument(
        "checkpoint", nargs="?", metavar="MODEL", help="a run, one of its checkpoints, a bundle, or public weights"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder that `twinreel prepare` made")
    parser.add_argument("--split", help="which split of it (default: that of --benchmark, or test)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the report; made if absent")
    parser.add_argument("--embeddings", type=Path, metavar="FILE.npz", help="measure these embeddings instead")
    parser.add_argument("--scores", type=Path, metavar="FILE.npz", help="measure these scores instead")
    parser.add_argument(
        "--as", dest="read_as", action="append", default=[], metavar="CODE", help="read the scores as that code does"
    )
    parser.add_argument("--rerank", action="append", default=[], metavar="METHOD", help="see above; may be repeated")
    parser.add_argument(
        "--compare", action="append", default=[], type=Path, metavar="FILE.npz", help="embeddings of another model"
    )
    parser.add_argument(
        "--group_by", action="append", default=[], metavar="FIELD", help="another field by which recalls are grouped"
    )
    parser.add_argument(
        "--thumbnails", type=int, default=THUMBNAILS, metavar="N", help="clips with a thumbnail on the page"
    )
    words = "add rows in which copies of a clip share their captions, as equal captions share their clips"
    parser.add_argument("--share_duplicates", action="store_true", help=words)
    parser.add_argument("--prompt", metavar="TEXT", help="template of the captions, such as 'a video of {}'")
    parser.add_argument("--bank_split", metavar="SPLIT", help="its captions are the query bank of --rerank qb_norm")
    parser.add_argument("--captions", help="all captions of a clip as queries (the default), or its first")
    parser.add_argument("--batch_size", type=int, default=32, help="clips embedded at a time")
    parser.add_argument("--windows", type=int, default=1, help="windows of each clip, whose embeddings are averaged")
    parser.add_argument("--window_seconds", type=float, default=0.0, help="length of a window; 0 = the whole clip")
    parser.add_argument("--clip_side", default="", help="video, or the side of the model's fusion (the default if any)")
    parser.add_argument("--allow_missing", action="store_true", help="measure although clips of the split are missing")
    for add_flags in (add_benchmark_flags, *(part.add_flags for part in parts)):
        add_flags(parser)
    parser.add_json()
    parser.add_distributed()
    return parser


def main(argv: list[str]) -> int:
    """Run the verb."""
    from . import multiple_choice, zero_shot
    from .files import of_file
    from .protocols.benchmark_list import choose_task, explained

    if explained(argv):
        return 0
    args, _ = _parser().parse(argv)
    choose_task(args)
    zero_shot.check_flags(args)
    if args.multiple_choice and not (args.checkpoint and args.data and args.out):
        return multiple_choice.run(args)
    if args.embeddings or args.scores:
        if args.zero_shot:
            return zero_shot.run(args)
        _print(of_file(args), args)
        return 0
    for name in ("checkpoint", "data", "out"):
        if getattr(args, name) is None:
            flag = "MODEL" if name == "checkpoint" else f"--{name} DIR"
            raise UserError(
                f"evaluate lacks {flag}; give MODEL --data DIR --out DIR, or --embeddings or --scores FILE.npz"
            )
    join_run(args)
    if args.zero_shot or args.multiple_choice:
        return (zero_shot if args.zero_shot else multiple_choice).run(args)
    names = {field.name for field in dataclasses.fields(EvaluateOptions)}
    options = EvaluateOptions(**{key: value for key, value in vars(args).items() if key in names and value is not None})
    results = evaluate(args.checkpoint, data=args.data, out=args.out, options=options)
    if results is not None:
        _print(results, args)
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions(SplitOptions):
    """How a split is embedded for a report, and what is measured.

    Attributes:
      captions: "all" captions of each clip as queries, or the "first"; "" = as the benchmark says, or "all".
      prompt: template that captions are put into, such as "a video of {}"; "" = as the benchmark says, or "{}".
      bank_split: another split, whose captions are the query bank of QB-norm; "" = none.
      controls: controls to measure, names of `protocols.controls.CONTROLS` or "all". Where the split has order twins,
        "shuffled_frames" is always among them.
      control_seed: seed of their random draws.
      tagger: spaCy model that finds parts of speech, for controls of nouns and verbs.
      pairs: pairs of modalities to measure, see `protocols.pairs.choose_pairs`, or "all".
      read_as: other projects' readings of the same scores, see `protocols.scored.readings`.
      rerank: methods of re-ranking, see `protocols.scored.reranked`.
      compare: files of other models' embeddings of the same split, see `protocols.comparison`.
      group_by: further fields by which recalls are grouped, see `protocols.groups`.
      thumbnails: clips that have one on the page at most.
      share_duplicates: add the rows of `protocols.repeated.shared_duplicates`.
    """

    captions: str = ""
    prompt: str = ""
    bank_split: str = ""
    controls: Sequence[str] = ()
    control_seed: int = 0
    tagger: str = ENGLISH
    pairs: Sequence[str] = ()
    read_as: Sequence[str] = ()
    rerank: Sequence[str] = ()
    compare: Sequence[Path] = ()
    group_by: Sequence[str] = ()
    thumbnails: int = THUMBNAILS
    share_duplicates: bool = False

    def settled(self) -> "EvaluateOptions":
        """Return the options with split, captions rule and prompt; `UserError` where the benchmark has others."""
        from .embedding.loaded import PLAIN, check_prompt
        from .protocols.benchmark_data import settle
        from .protocols.benchmarks import BENCHMARKS

        own = BENCHMARKS[self.benchmark].prompt if self.benchmark in BENCHMARKS else PLAIN
        given = settle(self.benchmark, split=self.split, captions=self.captions)
        return dataclasses.replace(self, **given, prompt=check_prompt(self.prompt or own))


def evaluate(
    model: str | Path, *, data: Path, out: Path, options: EvaluateOptions | None = None
) -> dict[str, Any] | None:
    """Embed a split with a model, measure retrieval, and write the report.

    Args:
      model: a run, one of its checkpoints, or a bundle.
      data: folder that `twinreel prepare` made.
      out: receives `retrieval.json`, `embeddings.npz`, `index.html` and `media/`.
      options: how the split is embedded; None = the defaults.

    Returns:
      The content of `retrieval.json`; None on all processes but the first.

    Raises:
      UserError: no such folder, split or checkpoint; missing clips without `allow_missing`; a row that is not finite.
    """
    from ..data.batches.records import Records
    from . import control_flags
    from .counting.count import CountOptions
    from .embedding.statistics import keep_statistics
    from .protocols.benchmark_data import measured_coverage
    from .protocols.groups import check_fields
    from .protocols.identity import identity
    from .results import Further, rank, write
    from .runs import around

    options = (options or EvaluateOptions()).settled()
    further = Further.of(options)
    further.check()
    control_flags.check(controls=options.controls, tagger=options.tagger, pairs=options.pairs)
    records = Records(data)
    if options.benchmark or options.split in records.splits:  # the quick refusals come before the model is read
        measured_coverage(records, options=options)
    _check_rerank(records, options=options)
    if options.split in records.splits:
        check_fields(records.rows(options.split), group_by=options.group_by)
    import jax

    from ..encode.embed.encoder import load

    encoder = load(model)
    found = embed_for_report(encoder, records=records, options=options)
    found.protocol |= {"checkpoint": str(model), "step": encoder.meta.get("step"), "seed": encoder.meta.get("seed")}
    out = Path(out)
    if jax.process_index() == 0:
        found.protocol |= identity(encoder.model)
        out.mkdir(parents=True, exist_ok=True)
        found.save(out / "embeddings.npz")  # before a count that may be interrupted
        keep_statistics(found, out=out, given=encoder.input)
    ranks = rank(found, options=CountOptions(folder=out, together=True, progress=options.progress))
    if jax.process_index() != 0:
        return None
    page = {"thumbnails": options.thumbnails}
    history = around(Path(model), name="metrics.jsonl")
    return write(found, out=out, records=records, history=history, ranks=ranks, further=further, page=page, saved=True)


def _check_rerank(records: Any, *, options: EvaluateOptions) -> None:
    """Refuse a query bank that is not there, or is the test set, and the best of a single window."""
    from .protocols.scored import WINDOW_MAX

    if WINDOW_MAX in options.rerank and options.windows < 2:
        raise UserError(f"--rerank {WINDOW_MAX} takes the best of several windows; add --windows 2 or more")
    if options.bank_split and options.bank_split not in records.splits:
        raise unknown("split (--bank_split)", options.bank_split, records.splits)
    if options.bank_split == options.split:
        raise UserError(
            f"--bank_split {options.bank_split} is the split that is measured; a query bank holds other texts, such as "
            "those of train"
        )
    if any(name.startswith("qb_norm") for name in options.rerank) and not options.bank_split:
        raise UserError("--rerank qb_norm needs training texts as a query bank; add --bank_split train")


def embed_for_report(encoder: "Encoder", *, records: Any, options: EvaluateOptions) -> "Embeddings":
    """Embed a split with everything that a report states: coverage, and shuffled clips where there are twins.

    Errors as in `evaluate`.
    """
    from .control_flags import asked
    from .embedding.embed import embed_split
    from .embedding.loaded import LoadedSplit
    from .embedding.prepared import describe_split
    from .protocols.benchmark_data import describe_benchmark, measured_coverage
    from .protocols.scored import WINDOW_MAX, joint_asked

    options = options.settled()
    split = options.split
    rows = records.rows(split) if split in records.splits else []
    about = describe_split(encoder, records=records, split=split)
    further = asked(
        controls=options.controls,
        seed=options.control_seed,
        tagger=options.tagger,
        pairs=options.pairs,
        rows=rows,
        frames=encoder.input.num_frames,
    )
    found = embed_split(
        encoder,
        loaded=LoadedSplit(records, split=split, captions=options.captions, prompt=options.prompt),
        clip_side=options.clip_side,
        batch_size=options.batch_size,
        feed=options.feed,
        asked=dataclasses.replace(
            further,
            bank_split=options.bank_split,
            keep_windows=WINDOW_MAX in options.rerank,
            joint=joint_asked(options.rerank),
        ),
        progress=options.progress,
    )
    found.protocol |= about
    found.coverage = measured_coverage(records, options=options)
    about = {"protocol": found.protocol, "rows": rows, "coverage": found.coverage}
    found.protocol |= describe_benchmark(options.benchmark, **about)
    return found


def _print(results: dict[str, Any], args: Namespace) -> None:
    """Print the table, or with --json the JSON and nothing else, on standard output."""
    from .reports.terminal import print_table
    from .results import to_json

    if args.json:
        sys.stdout.write(to_json(results))
    else:
        print_table(results)
    if args.out:
        page = "retrieval.json" if args.scores else "index.html"
        print(f"report: {args.out / page}", file=sys.stderr if args.json else sys.stdout)
