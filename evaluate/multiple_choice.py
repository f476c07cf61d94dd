"""`twinreel evaluate --multiple_choice`: choose among options, with a model, or from saved embeddings or scores."""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import UserError, unknown
from .options import SplitOptions
from .results import to_json

if TYPE_CHECKING:
    from ..data.batches.records import Records

DESCRIPTION = """
--multiple_choice measures a choice among options. With a model, those of the questions of a split (`questions` with
`options` and `correct` in the manifest); each option is scored by its cosine with the clip:

  twinreel evaluate MODEL --data DIR --multiple_choice --out runs/choice
  twinreel evaluate MODEL --benchmark msrvtt-mc --data DIR --out runs/msrvtt_mc

OUT receives multiple_choice.json. Or of a file: --embeddings with options [n,o,E], video [n,E], answers int [n]; or
--scores with scores [n,o] and answers. Where captions have foils (`meta.foils` in the manifest), the retrieval report
has a block `multiple_choice` of captions and foils."""
_NAME = "multiple_choice"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChoiceOptions(SplitOptions):
    """How the questions of a split are answered."""

    def settled(self) -> "ChoiceOptions":
        """Return the options with a split; raises `UserError` where the benchmark has another one."""
        from .protocols.benchmark_data import settle_split

        return dataclasses.replace(self, split=settle_split(self.benchmark, split=self.split))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--multiple_choice`."""
    parser.add_argument("--multiple_choice", action="store_true", help="choose among options, see above")


def run(args: argparse.Namespace) -> int:
    """Run `evaluate --multiple_choice` with parsed flags."""
    from .protocols.multiple_choice import choice_report

    files = {"--embeddings": args.embeddings, "--scores": args.scores}
    given = {flag: path for flag, path in files.items() if path}
    model = bool(args.checkpoint and args.data and args.out)
    if len(given) + model != 1 or (given and (args.checkpoint or args.data)):
        raise UserError(
            "--multiple_choice takes MODEL --data DIR --out DIR, or --embeddings FILE.npz, or --scores FILE.npz; give "
            "one of them"
        )
    other = {"--zero_shot": args.zero_shot, "--as": args.read_as, "--rerank": args.rerank}
    other |= {"--share_duplicates": args.share_duplicates}
    if unfit := [flag for flag, value in other.items() if value]:
        raise UserError(f"{unfit[0]} does not go with --multiple_choice; leave one of them out")
    if model:
        names = {field.name for field in dataclasses.fields(ChoiceOptions)}
        options = {key: value for key, value in vars(args).items() if key in names and value is not None}
        results = answer(args.checkpoint, data=args.data, options=ChoiceOptions(**options))
    else:
        results = choice_report(next(iter(given.values())), scores=bool(args.scores))
    if results is None:
        return 0
    text = to_json(results)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / f"{_NAME}.json").write_text(text, encoding="utf-8")
    if args.json:
        sys.stdout.write(text)
        return 0
    _print(results)
    if args.out:
        print(f"report: {args.out / f'{_NAME}.json'}")
    return 0


def answer(model: str | Path, *, data: Path, options: ChoiceOptions | None = None) -> dict[str, Any] | None:
    """Choose among the options of the questions of a split with a model.

    Args:
      model: a run, one of its checkpoints, a bundle, or public weights.
      data: folder that `twinreel prepare` made; its clips have `questions` with `options` and `correct`.
      options: how; None = the defaults.

    Returns:
      JSON values, see `protocols.multiple_choice.question_report`; None on all processes but the first.

    Raises:
      UserError: no such folder, split or model; no question with options; missing clips without `allow_missing`; a row
        that is zero or not finite.
    """
    from ..data.batches.records import Records
    from .protocols.benchmark_data import measured_coverage
    from .protocols.multiple_choice import questions_of_rows

    options = (options or ChoiceOptions()).settled()
    records = Records(data)
    if options.split not in records.splits:
        raise unknown("split", options.split, records.splits)
    coverage = measured_coverage(records, options=options)  # the quick refusals come before the model is read
    questions = questions_of_rows(list(records.rows(options.split)))
    return _answer(model, records=records, questions=questions, coverage=coverage, options=options)


def _answer(
    model: str | Path, *, records: "Records", questions: Any, coverage: dict[str, Any], options: ChoiceOptions
) -> dict[str, Any] | None:
    import jax

    from ..encode.devices.rows import rounded_up
    from ..encode.embed.encoder import load
    from .embedding.embed import embed_clips, embed_texts
    from .embedding.prepared import describe_split
    from .protocols.benchmark_data import describe_benchmark
    from .protocols.identity import identity
    from .protocols.multiple_choice import question_report

    encoder, rows = load(model), records.rows(options.split)
    about = describe_split(encoder, records=records, split=options.split)
    clips, protocol = embed_clips(
        encoder,
        records=records,
        split=options.split,
        clip_side=options.clip_side,
        batch_size=options.batch_size,
        feed=options.feed,
        progress=options.progress,
    )
    size = rounded_up(options.batch_size, mesh=encoder.mesh)
    told = {"what": "options", "batch_size": size, "progress": options.progress}
    text, truncated = embed_texts(encoder, texts=questions.texts, **told)
    if jax.process_index() != 0:
        return None
    protocol |= about | {"texts_truncated": truncated, "checkpoint": str(model), "step": encoder.meta.get("step")}
    if options.benchmark:
        protocol |= describe_benchmark(options.benchmark, protocol=protocol, rows=rows, coverage=coverage)
    protocol |= identity(encoder.model)
    found = {"video": clips.found()[questions.clips], "text": text}
    return question_report(questions, **found, protocol=protocol, coverage=coverage)


def _print(results: dict[str, Any]) -> None:
    from .protocols.marks import legend, mark_of

    mark = mark_of(results)
    for name, block in {"all": results[_NAME], **results.get("per_type", {})}.items():
        print(f"{name}: {choice_line(block, mark=mark)}")
    if interval := results[_NAME].get("interval_95"):
        print(f"95 % interval {interval[0]:.1f} to {interval[1]:.1f}")
    for line in results["protocol"].get("warnings") or []:
        print(line)
    if mark:
        print(legend(results))


def choice_line(block: dict[str, Any], *, mark: str = "") -> str:
    """Return the figures of multiple choice as one line.

    >>> choice_line({"accuracy": 64.0, "n": 30, "chance": 20.0, "tied": 0})
    '64.00 % of 30 questions (chance 20.0 %)'
    """
    line = f"{block['accuracy']:.2f}{mark} % of {block['n']} questions (chance {block['chance']:.1f} %)"
    if block["tied"]:
        low, high = (f"{block[name]:.2f}{mark}" for name in ("pessimistic", "optimistic"))
        line += f"; {block['tied']} tied, all lost or won: {low} or {high} %"
    return line
