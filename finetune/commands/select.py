"""`twinreel select`: the clips that are worth labelling next."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import __version__
from ...base.errors import UserError, unknown
from ...base.parser import Parser
from ...base.text_lines import text_lines
from .predict import write_lines

if TYPE_CHECKING:
    from ...data.batches.records import Records
    from ..figures.selection import Selection, SelectOptions
    from ..inputs.predicted import ClipModel

DESCRIPTION = """Choose the clips that are worth labelling next.

  twinreel select runs/demo/pretrain --data data/films --budget 50 --out next.jsonl
  twinreel select runs/fights --data data/films --budget 50 --by both --out runs/fights/next.jsonl
  twinreel select runs/fights --data data/films --labelled done.txt --budget 50 --out next.jsonl
  twinreel select runs/demo/pretrain --data data/known --budget 20 --curve --out try.jsonl

Ways (--by):
  k_centre     clips that cover the others: each is the farthest from all labelled and chosen ones (Sener & Savarese
               2018); looks at features alone, so any model with a video tower will do
  uncertainty  the clips about which the model is least certain: highest entropy of its predictions
  both         of the most uncertain clips, --candidates times as many as the budget, a k-centre cover
  random       to compare with

Predictions are those of MODEL if it is a run of `twinreel finetune` for task classify. With any other model they come
from a linear probe of its features, trained on the labelled clips of the split.
Labelled clips are those of the split that have labels, or what --labelled names: a file (an id per line, or JSON lines
with clip_id, such as an earlier list), or a split. OUT gets JSON lines in the order in which to label: rank, clip_id,
path, reason, and entropy, margin, distance and nearest where they are known. The page beside it shows the clips.

--curve asks whether it is worth the effort, on a data set whose labels are known: clips are chosen round by round, a
linear probe is trained after each, and its accuracy on the test split stands next to that of random choice."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    from ..figures.selection import SelectOptions

    args, _ = _parser().parse(argv)
    options = SelectOptions(budget=args.budget, by=args.by, candidates=args.candidates, seed=args.seed)
    if args.batch_size < 1:
        raise UserError(f"--batch_size must be at least 1, got {args.batch_size}")
    out = Path(args.out)
    if out.suffix != ".jsonl":
        raise UserError(f"--out must be a .jsonl file, got {args.out!r}")
    facts, lines = select(args, options=options, out=out)
    if args.json:
        print(json.dumps({**facts, "clips": lines}, ensure_ascii=False))
    else:
        _print(facts, lines=lines, out=out)
    return 0


def select(args: argparse.Namespace, *, options: "SelectOptions", out: Path) -> tuple[dict[str, Any], list[dict]]:
    """Choose the clips; write the list and the page.

    Returns:
      How they were chosen (with `curve` where it was simulated), and the lines of the list.

    Raises:
      UserError: no such split, model or clip; no predictions to be had; nothing left to choose.
    """
    from ...data.batches.records import Records
    from ..inputs.predicted import ClipModel

    records = Records(args.data)
    labelled, other = _checked(records, args=args)
    model = ClipModel(args.model)
    probed = not model.labels and options.by in ("uncertainty", "both")
    if probed:
        _check_labels(records, split=args.split, labelled=labelled)
    of = {"records": records, "folder": out.parent / "features", "batch_size": args.batch_size}
    curve = _curve(model, args=args, options=options, of=of) if args.curve else None
    found = model.of_split(args.split, **of)
    probability, source, several = found.probability, "predictions of the model", model.several
    if probed:
        of_probe = {"split": args.split, "features": found.features, "labelled": labelled}
        probability, source, several = _probed(records, **of_probe)
    features, taken = found.features, labelled
    if other:  # labelled clips of another split are centres, too
        features = np.concatenate([features, model.of_split(other, **of).features])
        taken = np.concatenate([labelled, np.ones(len(features) - len(labelled), bool)])
    chosen = _choose(features, probability=probability, labelled=taken, options=options, several=several)
    rows = records.rows(args.split)
    lines = _lines(chosen, rows=rows, probability=probability, several=several, options=options)
    facts = _facts(records, args=args, options=options, chosen=chosen, labelled=taken, kind=found.kind)
    facts |= {"predictions": source} if options.by in ("uncertainty", "both") else {}
    _write(out, lines=lines, facts=facts, curve=curve, records=records, split=args.split, chosen=chosen)
    return facts | ({"curve": curve} if curve else {}), lines


def _checked(records: "Records", *, args: argparse.Namespace) -> tuple[np.ndarray, str]:
    """Return what `labelled_clips` does, once splits and flags are known to fit; without clips left, of a new start."""
    for name in ("split", *(["test_split"] if args.curve else [])):
        if getattr(args, name) not in records.splits:
            raise unknown(f"split (--{name})", getattr(args, name), records.splits)
    labelled, other = labelled_clips(records, split=args.split, named=args.labelled)
    if labelled.all() and not args.curve:
        raise UserError(
            f"all {len(labelled)} clips of split {args.split!r} have labels, so none is left to choose; name those "
            "that are to count as labelled with --labelled, or ask for --curve"
        )
    if labelled.all():  # all are known: the list is what one would label first
        if args.by in ("uncertainty", "both"):
            raise UserError(
                f"all {len(labelled)} clips of split {args.split!r} have labels, so there is no list by {args.by}; add "
                "--by k_centre, or name those that are to count as labelled with --labelled (the curve has all ways)"
            )
        labelled = np.zeros(len(labelled), bool)
    return labelled, other


def labelled_clips(records: "Records", *, split: str, named: str) -> tuple[np.ndarray, str]:
    """Return which clips of a split are labelled, bool [n], and another split whose clips are, or "".

    Args:
      records: the data set.
      split: of the clips.
      named: a file of clip ids, a split, or "" for the clips that have labels.

    Raises:
      UserError: neither file nor split, or ids that no clip has.
    """
    rows = records.rows(split)
    if not named:
        return np.array([bool(row["labels"]) for row in rows], bool), ""
    if named in records.splits:
        return np.full(len(rows), named == split), "" if named == split else named
    path = Path(named)
    if not path.is_file():
        raise UserError(
            f"--labelled {named!r} is neither a file nor a split (splits: {', '.join(sorted(records.splits))})"
        )
    ids = _ids(path)
    place = {row["clip_id"]: number for number, row in enumerate(rows)}
    if missing := [one for one in ids if one not in place]:
        if len(missing) == len(ids):
            raise UserError(f"no clip of split {split!r} has an id of {named!r}, such as {missing[0]!r}")
        raise unknown(f"clip of split {split!r} in {named!r}:", missing[0], list(place)[:1000])
    found = np.zeros(len(rows), bool)
    found[[place[one] for one in ids]] = True
    return found, ""


def _ids(path: Path) -> list[str]:
    found = []
    for number, line in enumerate(text_lines(path, flag="--labelled"), start=1):
        text = line.strip()
        if text.startswith("{"):
            try:
                text = str(json.loads(text)["clip_id"])
            except (json.JSONDecodeError, KeyError) as error:
                raise UserError(f"{path}:{number} is no JSON object with clip_id: {line[:60]!r}") from error
        found += [text] if text else []
    if not found:
        raise UserError(f"{path} names no clip; give an id per line, or leave --labelled out")
    return found


def _probed(
    records: "Records", *, split: str, features: np.ndarray, labelled: np.ndarray
) -> tuple[np.ndarray, str, bool]:
    """Return what a probe of the labelled clips predicts for all, its name, and whether a clip has several labels."""
    from ...evaluate.protocols.probe_data import ProbeSet, check_trainable
    from ...evaluate.protocols.probe_linear import linear_probe
    from ..figures.selection import scaled

    targets, classes, several = _targets(records, splits=[split])
    features = scaled(features)
    rows = np.flatnonzero(labelled & targets[0].any(axis=1))
    train = ProbeSet(features=features[rows], targets=targets[0][rows])
    check_trainable(train, classes=classes, several=several)
    whole = ProbeSet(features=features, targets=targets[0])
    how = {"validation": None, "several": several, "join": False, "say": lambda _: None}
    scores = linear_probe(train, test=whole, **how).scores
    return scores, f"a linear probe of {len(rows)} labelled clips", several


def _check_labels(records: "Records", *, split: str, labelled: np.ndarray) -> None:
    """Raise UserError unless some labelled clip says what it is."""
    rows = records.rows(split)
    if not any(rows[number]["labels"] for number in np.flatnonzero(labelled).tolist()):
        raise UserError(
            f"the model has no classifier, and no labelled clip of split {split!r} has labels in the manifest, so "
            "there are no predictions; give a run of `twinreel finetune`, or use --by k_centre"
        )


def _targets(records: "Records", *, splits: Sequence[str]) -> tuple[list[np.ndarray], list[str], bool]:
    """Return by split bool [n,c], the names of the classes, and whether a clip has several."""
    rows = [list(records.rows(split)) for split in splits]
    classes = sorted({label for part in rows for row in part for label in row["labels"]})
    place = {name: number for number, name in enumerate(classes)}
    found = [np.zeros((len(part), len(classes)), bool) for part in rows]
    for targets, part in zip(found, rows, strict=True):
        for number, row in enumerate(part):
            targets[number, [place[label] for label in row["labels"]]] = True
    return found, classes, any((targets.sum(axis=1) > 1).any() for targets in found)


def _curve(model: "ClipModel", *, args: argparse.Namespace, options: "SelectOptions", of: dict) -> dict[str, Any]:
    """Simulate the learning curve."""
    from rich.console import Console
    from rich.progress import Progress

    from ...evaluate.protocols.probe_data import ProbeSet
    from ..figures.selection_curve import CurveOptions, learning_curves

    records: Records = of["records"]
    how = CurveOptions(start=args.start or options.budget, rounds=args.rounds, draws=args.draws, select=options)
    splits = [args.split, args.test_split]
    targets, _, several = _targets(records, splits=splits)
    sets = []
    for split, own in zip(splits, targets, strict=True):
        rows = np.flatnonzero(own.any(axis=1))
        sets.append(ProbeSet(features=model.of_split(split, **of).features[rows], targets=own[rows]))
    if not len(sets[0]) or not len(sets[1]):
        raise UserError(f"--curve needs labels in the splits {args.split!r} and {args.test_split!r}")
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("learning curve", total=how.draws * len(how.ways) * (how.rounds + 1))
        told = {"tick": lambda: bar.advance(task)}
        return learning_curves(sets[0], test=sets[1], several=several, options=how, **told)


def _choose(
    features: np.ndarray, *, probability: Any, labelled: np.ndarray, options: "SelectOptions", several: bool
) -> "Selection":
    from rich.console import Console
    from rich.progress import Progress

    from ..figures.selection import select_clips

    if probability is not None and len(probability) < len(features):  # clips of another split are not chosen
        rest = np.full((len(features) - len(probability), probability.shape[1]), 1 / probability.shape[1])
        probability = np.concatenate([probability, rest])
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("choose", total=options.budget)
        how = {"options": options, "several": several, "tick": lambda done: bar.update(task, completed=done)}
        return select_clips(features, probability=probability, labelled=labelled, **how)


def _lines(
    chosen: "Selection", *, rows: Any, probability: Any, several: bool, options: "SelectOptions"
) -> list[dict[str, Any]]:
    from ..figures.selection import entropy, margin

    doubt = lead = None
    if probability is not None:
        doubt = entropy(probability, several=several)
        lead = margin(probability, several=several)
    found = []
    for rank, index in enumerate(chosen.index.tolist()):
        row = rows[index]
        one: dict[str, Any] = {"rank": rank + 1, "clip_id": row["clip_id"], "path": row.get("file") or ""}
        if doubt is not None and lead is not None:
            one |= {"entropy": round(float(doubt[index]), 6), "margin": round(float(lead[index]), 6)}
        distance = float(chosen.distance[rank])
        if np.isfinite(distance):
            nearest = int(chosen.nearest[rank])
            one["distance"] = round(distance, 6)
            one["nearest"] = rows[nearest]["clip_id"] if nearest < len(rows) else ""
        found.append({**one, "reason": _reason(one, by=options.by)})
    return found


def _reason(one: dict[str, Any], *, by: str) -> str:
    parts = []
    if by in ("uncertainty", "both"):
        parts.append(f"entropy {one['entropy']:.2f}, lead {100 * one['margin']:.0f} points")
    if by in ("k_centre", "both"):
        apart = f"{one['distance']:.3g} from the nearest" if "distance" in one else "nearest to the mean of all clips"
        parts.append(apart)
    return "; ".join(parts) or "drawn at random"


def _facts(
    records: "Records",
    *,
    args: argparse.Namespace,
    options: "SelectOptions",
    chosen: "Selection",
    labelled: Any,
    kind: str,
) -> dict[str, Any]:
    first = [float(one) for one in chosen.distance[:1] if np.isfinite(one)] if options.by == "k_centre" else []
    return {
        "dataset": records.folder.resolve().name,
        "split": args.split,
        "model": args.model,
        "by": options.by,
        "budget": options.budget,
        "candidates": options.candidates if options.by == "both" else "",
        "labelled": int(labelled.sum()),
        "unlabelled": int((~labelled).sum()),
        "features": kind,
        "radius_before": first[0] if first else None,
        "radius": chosen.radius if np.isfinite(chosen.radius) else None,
        "seed": options.seed,
        "twinreel": __version__,
    }


def _write(
    out: Path, *, lines: list[dict], facts: dict, curve: Any, records: "Records", split: str, chosen: "Selection"
) -> None:
    from ...evaluate.reports.pictures import write_thumbnails
    from ..reports.selection import SHOWN, write_selection_page

    write_lines(out, lines)
    names = [one["clip_id"] for one in lines[:SHOWN]]
    shown = dict(zip(names, chosen.index.tolist(), strict=False))
    pictures = write_thumbnails(out.with_name(f"{out.stem}_clips"), records=records, split=split, clips=shown)
    write_selection_page(out.with_suffix(".html"), lines=lines, facts=facts, pictures=pictures, curve=curve)


def _print(facts: dict[str, Any], *, lines: list[dict[str, Any]], out: Path) -> None:
    for one in lines[:10]:
        print(f"{one['rank']:>3}  {one['clip_id']}  {one['reason']}")
    if len(lines) > 10:
        print(f"     … and {len(lines) - 10} more")
    for way, gain in (facts.get("curve") or {}).get("against_random", {}).items():
        print(f"{way}: {gain['mean']:+.2f} ± {gain['standard_error']:.2f} points against random choice")
    print(f"list: {out}\npage: {out.with_suffix('.html')}")
    if len(lines) < facts["budget"]:
        print(f"note: only {len(lines)} clips are left to choose", file=sys.stderr)


def _parser() -> Parser:
    parser = Parser(verb="select", description=DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="a run, a checkpoint, a bundle, or public weights")
    parser.add_argument("--data", required=True, metavar="DIR", help="folder that `twinreel prepare` made")
    parser.add_argument("--budget", type=int, required=True, help="clips to choose; with --curve in each round")
    parser.add_argument("--out", required=True, metavar="FILE.jsonl", help="the list; the page is written beside it")
    parser.add_argument("--by", default="k_centre", help="k_centre, uncertainty, both or random")
    parser.add_argument("--split", default="train", help="of the clips to choose from")
    parser.add_argument("--labelled", default="", help="a file of clip ids, or a split; default: clips with labels")
    parser.add_argument("--candidates", type=int, default=5, help="of `both`: uncertain clips per chosen one")
    parser.add_argument("--seed", type=int, default=0, help="of random choices")
    parser.add_argument("--batch_size", type=int, default=32, help="clips at a time for the features")
    group = parser.add_argument_group("learning curve")
    group.add_argument("--curve", action="store_true", help="simulate on clips whose labels are known")
    group.add_argument("--test_split", default="test", help="is measured")
    group.add_argument("--start", type=int, default=0, help="clips labelled at random first; 0 = as the budget")
    group.add_argument("--rounds", type=int, default=6, help="how often clips are chosen")
    group.add_argument("--draws", type=int, default=5, help="repetitions with other first clips")
    parser.add_json()
    return parser
