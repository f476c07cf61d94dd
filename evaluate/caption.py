"""`twinreel caption`: describe media files, or a prepared split whose captions are the references."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import UserError, unknown
from ..base.parser import Parser
from .caption_results import tell_captions
from .dense_caption import add_event_flags, check_event_flags, run_dense

if TYPE_CHECKING:
    from ..data.batches.records import Records
    from ..encode.predict.captioner import Captioner
    from .measures.meteor import Meteor

DESCRIPTION = """Describe clips with a model that has a caption decoder (config.model.heads.captioning).

  twinreel caption runs/mine film.mp4 other.mp4
  twinreel caption runs/mine *.mp4 --method beam --beams 4 --json > captions.jsonl
  twinreel caption runs/mine film.mp4 --dense --subtitles subtitles
  twinreel caption runs/mine --data data/mine --split test --out runs/mine/captions
  twinreel caption runs/mine --data data/mine --split test --dense --out runs/mine/events

The first two describe files, each as a whole. With --dense a film of any length is cut into events where the model's
embeddings of its moments change, and each event is described from its own frames: start, end and caption, printed (with
--json one object per film) and written as subtitles.

With --data a prepared split is described and compared with its captions: BLEU, ROUGE-L and CIDEr-D on tokens of the
Penn Treebank, and the share of captions that equal a reference. With --dense the events are compared with the clips'
spans that have a text, in the protocols of ActivityNet Captions and SODA. METEOR is a Java program that you name:
--meteor meteor-1.5.jar (of the package pycocoevalcap, or of its authors). OUT receives captions.json and index.html, a
page with examples. From Python: `twinreel.encode.predict.captioner.load_captioner(MODEL).caption(files)`, and
`twinreel.encode.predict.dense_captioner.DenseCaptioner(captioner).caption(files)`."""
_GENERATE = ("method", "max_tokens", "beams", "length_penalty", "temperature", "top_p", "top_k")


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="caption", description=DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="a run, one of its checkpoints, or a bundle")
    parser.add_argument("files", nargs="*", metavar="FILE", help="media files")
    parser.add_argument("--data", type=Path, help="prepared data set to describe instead of files")
    parser.add_argument("--split", default="test", help="of the data set")
    parser.add_argument("--out", type=Path, metavar="DIR", help="with --data: where captions.json and the page go")
    parser.add_argument("--meteor", type=Path, metavar="JAR", help="with --data: METEOR by meteor-1.5.jar, with Java")
    parser.add_argument("--java", default="java", metavar="COMMAND", help="that runs the jar of --meteor")
    parser.add_argument("--batch_size", type=int, default=16, help="clips (--dense: moments, events) at a time")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode; 0 = one per core")
    add_event_flags(parser)
    _add_generation(parser)
    parser.add_json()
    args, _ = parser.parse(argv)
    _check(args)
    events = check_event_flags(args)
    from .measures.meteor import Meteor

    meteor = Meteor(args.meteor, java=args.java) if args.meteor else None  # refuses before the model is read
    from ..encode.predict.captioner import load_captioner

    options = {name: getattr(args, name) for name in _GENERATE if getattr(args, name) is not None}
    captioner = load_captioner(args.model, options=options)
    if events is not None:
        return run_dense(captioner, args=args, options=events, meteor=meteor)
    if args.files:
        how = {"batch_size": args.batch_size, "workers": args.workers, "seed": args.seed}
        _print_files(captioner.caption(args.files, progress=True, **how), as_json=args.json)
        return 0
    how = {"batch_size": args.batch_size, "seed": args.seed}
    results = caption_split(captioner, data=args.data, split=args.split, meteor=meteor, **how)
    if results is not None:
        from .reports.captions_page import write_captions_page

        line = caption_line(results["captions"])
        tell_captions(results, args=args, line=line, write_page=write_captions_page)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raise UserError where flags do not go together, or a number is out of range."""
    if bool(args.files) == bool(args.data):
        raise UserError("give media files to describe, or --data DIR for a prepared data set (one of the two)")
    for name in ("batch_size", "workers"):
        if getattr(args, name) < (name == "batch_size"):
            raise UserError(f"--{name} must be at least {int(name == 'batch_size')}, got {getattr(args, name)}")
    if args.out and not args.data:
        raise UserError(
            "--out goes with --data; captions of files are printed (--json: one object per line; --dense --subtitles "
            "DIR: as subtitles)"
        )
    if args.meteor and not args.data:
        raise UserError("--meteor goes with --data, whose captions are the references; leave it out")


def _add_generation(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how captions are written")
    group.add_argument("--method", help="greedy (default), beam or sample")
    group.add_argument("--max_tokens", type=int, help="the most tokens; default: the model's context length")
    group.add_argument("--beams", type=int, help="hypotheses of the beam search; default 4")
    group.add_argument("--length_penalty", type=float, help="of the beam search; above 0 favours long captions")
    group.add_argument("--temperature", type=float, help="of sampling")
    group.add_argument("--top_p", type=float, help="sample from the likeliest tokens of this total probability")
    group.add_argument("--top_k", type=int, help="sample from so many likeliest tokens; 0 = all")
    group.add_argument("--seed", type=int, default=0, help="of sampling")


def caption_split(
    captioner: "Captioner",
    *,
    data: Path,
    split: str = "test",
    batch_size: int = 16,
    seed: int = 0,
    meteor: "Meteor | None" = None,
) -> dict[str, Any] | None:
    """Describe the clips of a prepared split, and compare with their captions.

    Args:
      captioner: the model.
      data: folder that `twinreel prepare` made.
      split: whose clips have captions; those without are left out and counted.
      batch_size: clips at a time.
      seed: of sampling.
      meteor: the program that computes METEOR; None = without.

    Returns:
      JSON values: `captions`, the figures of `measures.captions.caption_scores`, and `METEOR` if asked for; `protocol`;
      `clips`, of each its `clip_id`, `caption`, `score`, `references` and its own `ROUGE-L`. None on all processes but
      the first.

    Raises:
      UserError: no such folder or split, no caption in it, or no clip that can be read.
    """
    import jax

    from ..data.batches.records import Records
    from .measures.captions import caption_scores, ptb_tokens, rouge_l

    records = Records(data)
    if split not in records.splits:
        raise unknown("split", split, records.splits)
    rows = records.rows(split)
    described = [i for i in range(len(rows)) if rows[i]["captions"]]
    if not described:
        raise UserError(f"no clip of split {split!r} in {data} has a caption to compare with; choose another --split")
    found = dict(_captions(captioner, records=records, split=split, only=described, batch_size=batch_size, seed=seed))
    if not found:
        raise UserError(f"none of the clips of split {split!r} can be read; prepare them again")
    if jax.process_index() != 0:
        return None
    texts = [ptb_tokens(one["caption"]) for one in found.values()]
    references = [[ptb_tokens(text) for text in rows[i]["captions"]] for i in found]
    own, figures = rouge_l(texts, references=references), caption_scores(texts, references=references)
    if meteor is not None:
        with meteor as program:
            figures["METEOR"] = program.scores(texts, references=references)["corpus"]
    clips = [
        {"clip_id": rows[i]["clip_id"], **one, "references": rows[i]["captions"], "ROUGE-L": round(float(share), 4)}
        for (i, one), share in zip(found.items(), own, strict=True)
    ]
    protocol = {"dataset": records.folder.resolve().name, "split": split, "clips": len(found)}
    protocol |= {"clips_without_caption": len(rows) - len(described), "damaged": len(described) - len(found)}
    protocol |= {"model": captioner.source, "tokens": "Penn Treebank, without Java", "seed": seed}
    protocol |= {name: getattr(captioner.options, name) for name in _GENERATE}
    protocol |= {"meteor": meteor.about} if meteor is not None else {}
    return {"captions": figures, "protocol": protocol, "clips": clips}


def _captions(
    captioner: "Captioner", *, records: "Records", split: str, only: list[int], batch_size: int, seed: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield record and caption of each clip that can be read; all processes must take them all."""
    import jax
    import numpy as np

    from ..data.batches.pipeline import eval_batches
    from ..data.options import DataOptions, FeedOptions
    from ..encode.devices.rows import rounded_up
    from ..encode.predict.captioner import SOUND
    from .progress import track

    size = rounded_up(batch_size, mesh=captioner.mesh)
    feed = FeedOptions(batch_size=1, dir=str(records.folder))
    batches = eval_batches(
        DataOptions(input=captioner.spec.input, feed=feed),
        tokenizer=captioner.tokenizer,
        split=split,
        batch_size=size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        only=np.array(only),
        records=records,
    )
    for batch in track(batches, what="describe clips", total=len(only), batch_size=size, progress=True):
        rows = {key: batch[key] for key in ("video", "video_mask", *SOUND, "clip_index", "valid") if key in batch}
        for record, valid, one in captioner.caption_rows(rows, size=size, seed=seed):
            if valid:
                yield record, one


def _print_files(found: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        for one in found:
            print(json.dumps(one, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("file", "caption")
    for one in found:
        table.add_row(one["path"], one["caption"])
    Console(highlight=False, markup=False, soft_wrap=True).print(table)


def caption_line(figures: dict[str, Any]) -> str:
    """Return the figures of captions as one line.

    >>> caption_line({"BLEU-4": 0.25, "ROUGE-L": 0.5, "CIDEr-D": 1.0, "exact": 0.1, "n": 40})
    'BLEU-4 25.0, ROUGE-L 50.0, CIDEr-D 100.0, exact 10.0 % of 40 clips'
    """
    names = ("BLEU-4", "ROUGE-L", "CIDEr-D", "METEOR", "exact")
    shown = [f"{name} {100 * figures[name]:.1f}" for name in names if name in figures]
    return f"{', '.join(shown)} % of {figures['n']} clips"
