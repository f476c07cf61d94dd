"""`twinreel predict`: apply a fine-tuned checkpoint to media files."""

import argparse
import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...base.errors import UserError
from ...base.parser import Parser
from ..reports.predictions import print_predictions

DESCRIPTION = """Apply a checkpoint of `twinreel finetune` to media files.

  twinreel predict runs/fights a.mp4 b.mp4
  twinreel predict runs/fights clips/*.mp4 --json > labels.jsonl
  twinreel predict runs/moments film.mp4 --text "the red square falls" --text "a star turns"
  twinreel predict runs/odd day1.mp4 day2.mp4 --threshold 0.8
  twinreel predict runs/faces a.mp4 b.mp4 c.mp4 --embeddings faces.npz
  twinreel predict runs/answers film.mp4 --question "what falls after the red square?" --question "how many shapes?"

What is printed depends on the model's task; scores are in percent in tables, from 0 to 1 in JSON. With --json each
object stands on a line of its own:
  classify    {"path", "label", "probability", "probabilities"}; of several labels {"path", "labels", "probabilities"},
              of numbers {"path", "value"}
  localise    {"path", "duration_s", "text"?, "spans": [{"start_s", "end_s", "score", "label"?}]}, best first
  highlight   {"path", "duration_s", "text"?, "moments": [{"start_s", "end_s", "score"}]} in order of time
  summarise   {"path", "duration_s", "summary_s", "shots": [{"start_s", "end_s", "score", "chosen"}]} in order of time;
              `twinreel summarise` writes the summary as a film, with key frames and a page
  anomaly     {"path", "duration_s", "score", "spans": [{"start_s", "end_s", "score"}], "moments": likewise}: highest
              score, stretches above --threshold and all time steps, in order of time; files may last hours
  identify    {"first", "second", "score", "threshold", "same"} for each pair of the files: the cosine of their
              embeddings, and whether they show the same identity; at least two files
  recommend   {"clip_id", "score"} of the clips that come next, best first: FILE ... is the history, clip ids of the
              run's data or media files in order of time
  answer      {"path", "question", "answer", "score", "scores": {answer: score}}, best first
  multitask   {"task", ...}: the lines of each of its tasks for a file, with the name of the task
A model that was tuned on texts needs --text, one that answers needs --question, and where it chooses among options
--option, twice or more; there is a line for each file and text, or question. Files are decoded, sampled and
cropped as the clips that the model was evaluated on. From Python: `twinreel.load("runs/fights").predict(files)`."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="predict", description=DESCRIPTION)
    parser.add_argument("checkpoint", help="a bundle, a checkpoint, or a workdir (what its report measures)")
    parser.add_argument("files", nargs="+", metavar="FILE", help="media files; of sessions also ids of clips")
    parser.add_argument(
        "--text", action="append", default=[], help="what to find in each file; may be given repeatedly"
    )
    parser.add_argument(
        "--question", action="append", default=[], help="what is asked about each file; may be given repeatedly"
    )
    parser.add_argument("--option", action="append", default=[], help="an answer to choose among; give two or more")
    words = "classes, spans, answers or next clips, the best first; 0 = all"
    parser.add_argument("--top_k", type=int, default=3, help=words)
    parser.add_argument("--windows", type=int, default=1, help="windows of each file whose probabilities are averaged")
    parser.add_argument(
        "--threshold",
        type=float,
        help="the score from which a stretch counts as an anomaly, or two files as one identity; default: the model's",
    )
    parser.add_argument(
        "--embeddings", default="", metavar="FILE.npz", help="of identities: also write the embeddings of the files"
    )
    words = "of models of faces that were cut out: the ONNX file of OpenCV's YuNet, which finds them"
    parser.add_argument("--crop_faces", default="", metavar="FILE", help=words)
    parser.add_argument("--batch_size", type=int, default=16, help="files, or windows of long files, at a time")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode; 0 = one per core")
    parser.add_argument("--json", action="store_true", help="print JSON on standard output, one object per line")
    parser.add_argument("--out", metavar="FILE.jsonl", help="also write these JSON lines to a file")
    args, _ = parser.parse(argv)
    for name, least in (("top_k", 0), ("windows", 1), ("batch_size", 1), ("workers", 0)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} must be at least {least}, got {getattr(args, name)}")
    predictor = open_predictor(args.checkpoint, files=args.files)
    if args.crop_faces:
        predictor.crop_faces(args.crop_faces)
    how: dict[str, Any] = {"batch_size": args.batch_size, "workers": args.workers, "progress": True}
    how |= _flags(args, takes=set(inspect.signature(predictor.predict).parameters), predictor=predictor)
    if args.embeddings:
        found = _embedded(args, predictor=predictor, how=how)
    else:
        found = list(predictor.predict(args.files, **how))
    shown = [_top(one, count=args.top_k or None) for one in found]
    if args.out:
        write_lines(Path(args.out), shown)
        print(f"wrote {args.out}: {len(shown)} lines", file=sys.stderr)
    if args.json:
        for one in shown:
            print(json.dumps(one, ensure_ascii=False))
    else:
        print_predictions(shown, count=args.top_k or 3)
    return 0


def _flags(args: argparse.Namespace, *, takes: set[str], predictor: Any) -> dict[str, Any]:
    """Return the flags that a model takes; raise UserError for one that it does not.

    Args:
      args: of the command line.
      takes: the arguments of its `predict`.
      predictor: the model.
    """
    if args.windows > 1 and "windows" not in takes:
        raise UserError(f"--windows={args.windows}: this model looks at each file as a whole; leave --windows out")
    if args.threshold is not None and "threshold" not in takes:
        raise UserError(f"--threshold={args.threshold:g} is for models of anomalies and identities; leave it out")
    if args.text and "texts" not in takes:
        raise UserError(f"no text asks the model of {args.checkpoint}; leave --text out")
    if (args.question or args.option) and "questions" not in takes:
        raise UserError(f"the model of {args.checkpoint} answers no questions; leave --question and --option out")
    if args.embeddings and not hasattr(predictor, "embed"):
        raise UserError(f"--embeddings={args.embeddings} is for models of identities; use `twinreel encode`")
    given = {"windows": args.windows, "threshold": args.threshold, "texts": args.text}
    given |= {"questions": args.question, "options": args.option}
    if "count" in takes:
        given["count"] = args.top_k or len(predictor.clip_ids) or 1
    return {name: value for name, value in given.items() if name in takes}


def _embedded(args: argparse.Namespace, *, predictor: Any, how: dict[str, Any]) -> list[dict[str, Any]]:
    """Write `paths` and `embeddings` float32 [n,E] to a npz file, and return the pairs of the files."""
    import numpy as np

    embeddings = predictor.embed(args.files, **{key: value for key, value in how.items() if key != "threshold"})
    path = Path(args.embeddings)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial.npz")
    np.savez(partial, paths=np.array(args.files), embeddings=embeddings)
    partial.replace(path)
    print(f"wrote {path}: {len(embeddings)} embeddings", file=sys.stderr)
    return predictor.pairs(args.files, embeddings=embeddings, threshold=how["threshold"])


def check_files(files: Sequence[str]) -> None:
    """Raise UserError if a file does not exist, or is a folder; names all of them."""
    folders = [file for file in files if Path(file).is_dir()]
    missing = [file for file in files if not Path(file).exists()]
    if folders:
        raise UserError(f"{folders[0]} is a folder; give the files in it: {Path(folders[0]) / '*'}")
    if missing:
        raise UserError(f"{len(missing)} of {len(files)} files do not exist: {', '.join(missing[:10])}")


def open_predictor(checkpoint: str, *, files: Sequence[str]) -> Any:
    """Load a fine-tuned model, after a check of the files that it is to be applied to.

    Raises:
      UserError: nothing readable there, a model without a head, or files that do not exist; of a model of sessions they
        may be clip ids.
    """
    from ...encode.predict.load import predictor_of
    from ...zoo.load import locate

    located = locate(checkpoint)
    if not located.spec.task_heads:
        raise UserError(
            f"{located.path} is a model without a head, so it has no classes to choose from; fine-tune it first "
            f"(`twinreel finetune --init {checkpoint} ...`), or embed files with `twinreel encode {checkpoint}`"
        )
    if "recommend" not in located.spec.task_heads:
        check_files(files)
    return predictor_of(located)


def write_lines(path: Path, values: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines; the file is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in values), encoding="utf-8")
    partial.replace(path)


def _top(one: dict[str, Any], *, count: int | None) -> dict[str, Any]:
    """Keep the best classes or spans; moments, and spans next to them, are all kept: they are in order of time."""
    for name in ("probabilities", "scores"):
        if name in one:
            return {**one, name: dict(list(one[name].items())[:count])}
    return {**one, "spans": one["spans"][:count]} if "spans" in one and "moments" not in one else one
