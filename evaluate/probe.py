"""`twinreel probe`: how much a model's frozen video features tell about the classes of clips."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.errors import UserError
from ..base.parser import Parser
from ..engine.start.flags import join_run

if TYPE_CHECKING:
    from ..data.batches.records import Records

DESCRIPTION = """Probe frozen video features: train a small classifier on them and measure it on other clips.

  twinreel probe runs/few --data data/ucf101 --out runs/few/probe
  twinreel probe runs/few --data data/ucf101 --out runs/few/knn --method knn --features pooled
  twinreel probe runs/few --data data/ucf101 --out runs/few/five --shots 5 --draws 10

Clips need labels. Features are computed once and kept in OUT/features: another method, or the same command after an
interruption, reads them from there. OUT receives probe.html, probe.json, and probe.npz, the scores of the test clips,
which `twinreel evaluate --zero_shot --scores` reads.

Methods:
  linear     logistic regression by L-BFGS; its regularisation is chosen on validation clips, by the sweep of CLIP, and
             the final one is trained on training and validation clips together (with --shots on the shots alone)
  knn        the k nearest training clips vote, weighted by exp(cosine / temperature), as in DINO; with FAISS where it
             is installed (extra `search`), and the same without
  attentive  one learned query attends to the vectors of the frames, and a linear layer follows, as in V-JEPA and CoCa;
             training stops by the loss on validation clips

Validation clips are those of --val_split, or where there is no such split a part of the training split, divided by
source file. Clips with several labels are measured by average precision.

Several processes (`twinreel launch`) share the computation of the features; the first one trains the probe."""
_OWN = {
    "knn": ("k", "temperature"),
    "attentive": ("heads", "learning_rate", "weight_decay", "train_batch_size", "epochs", "patience"),
}


def main(argv: list[str]) -> int:
    """Run the verb."""
    from .embedding.frozen import FrozenOptions
    from .probe_splits import SplitOptions
    from .protocols.probe import AttentiveOptions, ProbeOptions

    args, _ = _parser().parse(argv)
    _check_flags(args)
    join_run(args)
    kind = "tokens" if args.method == "attentive" else args.features or "embedding"
    results = probe(
        args.model,
        data=args.data,
        out=args.out,
        splits=_given(SplitOptions, args),
        features=_given(FrozenOptions, args, kind=kind, progress=True),
        options=_given(ProbeOptions, args, attentive=_given(AttentiveOptions, args, batch_size=args.train_batch_size)),
    )
    if results is not None:
        _print(results, args)
    return 0


def probe(
    model: str | Path,
    *,
    data: Path,
    out: Path,
    splits: Any = None,
    features: Any = None,
    options: Any = None,
) -> dict[str, Any] | None:
    """Compute the frozen features of a data set, train a probe on them, and write the report.

    Args:
      model: a run, one of its checkpoints, a bundle, or public weights; one without a text tower will do.
      data: folder that `twinreel prepare` made; its clips have `labels`.
      out: receives `features/`, `probe.json`, `probe.npz` and `probe.html`.
      splits: a `probe_splits.SplitOptions`; None = the defaults.
      features: a `frozen.FrozenOptions`; None = the defaults for the method.
      options: a `protocols.probe.ProbeOptions`; None = the defaults.

    Returns:
      The content of `probe.json`, see `protocols.probe.probe_report`; None on all processes but the first.

    Raises:
      UserError: no such folder, split or model; no labels, or nothing to tell apart in the training clips; missing
        clips without `allow_missing`.
    """
    import jax

    from ..data.batches.records import Records
    from .embedding.frozen import FrozenOptions, frozen_features, load_video
    from .probe_splits import Plan, SplitOptions
    from .protocols.probe import ProbeOptions, probe_report

    splits, options = splits or SplitOptions(), options or ProbeOptions()
    features = features or FrozenOptions(kind="tokens" if options.method == "attentive" else "embedding")
    records = Records(data)
    plan = Plan.of(records, splits=splits, tuned=options.method != "knn")
    video = load_video(model)
    told = {"records": records, "folder": Path(out) / "features", "options": features}
    found = {split: frozen_features(video, split=split, **told) for split in plan.used}
    if jax.process_index() != 0:
        return None
    protocol = _protocol(video, records=records, splits=splits, features=features)
    prepared = plan.data(found, protocol=protocol)
    results, scores = probe_report(prepared, options=options, say=_say)
    return _write(results, out=Path(out), scores=scores, data=prepared)


def _protocol(video: Any, *, records: "Records", splits: Any, features: Any) -> dict[str, Any]:
    from .protocols.retrieval import name_test_set

    shown = video.spec.input
    prepared = json.loads((records.folder / "prepare.json").read_text(encoding="utf-8"))
    return {
        "dataset": records.folder.resolve().name,
        "split": splits.split,
        "train_split": splits.train_split,
        "labels": splits.labels,
        "features": features.kind,
        "frames": shown.num_frames,
        "sampling": shown.eval_sampling,
        "preprocessing": shown.eval_video,
        "windows": features.windows,
        "window_seconds": features.window_seconds,
        "fps": records.options.get("fps"),
        "source_sha256": prepared.get("source_sha256"),
        **name_test_set(prepared, rows=list(records.rows(splits.split))),
        "checkpoint": video.source,
        "step": video.meta.get("step"),
        **video.identity,
    }


def _write(results: dict[str, Any], *, out: Path, scores: np.ndarray, data: Any) -> dict[str, Any]:
    """Write the report and the scores; return the results."""
    from .npz import write_npz
    from .reports.probe_page import write_probe_page
    from .results import to_json

    out.mkdir(parents=True, exist_ok=True)
    labels = data.test.targets if data.several else data.test.labels
    names = {"classes": np.array(data.classes), "clip_ids": np.array(data.clip_ids)}
    write_npz(out / "probe.npz", scores=scores, labels=labels, **names)
    (out / "probe.json").write_text(to_json(results), encoding="utf-8")
    write_probe_page(out / "probe.html", results=results)
    return results


def _print(results: dict[str, Any], args: argparse.Namespace) -> None:
    """Print the table, or with --json the JSON and nothing else, on standard output."""
    from .reports.probe_page import draws_line, summary
    from .reports.zero_shot_terminal import print_classes
    from .results import to_json

    if args.json:
        sys.stdout.write(to_json(results))
    else:
        print_classes(results, title=summary(results), more=draws_line(results))
    print(f"report: {args.out / 'probe.html'}", file=sys.stderr if args.json else sys.stdout)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _given(options: Any, args: argparse.Namespace, **more: Any) -> Any:
    """Return a dataclass of options filled in from the flags of the same names; those not given keep their defaults."""
    names = {field.name for field in dataclasses.fields(options)}
    given = {key: value for key, value in vars(args).items() if key in names and value is not None}
    return options(**{key: value for key, value in (given | more).items() if value is not None})


def _check_flags(args: argparse.Namespace) -> None:
    """Raise UserError for flags that another method has."""
    for method, names in _OWN.items():
        given = [name for name in names if getattr(args, name) is not None]
        if given and args.method != method:
            raise UserError(f"--{given[0]} belongs to --method {method}, and this is --method {args.method}")
    if args.method == "attentive" and args.features:
        raise UserError(
            f"--features {args.features} has one vector per clip, and an attentive probe reads the vectors of the "
            "frames; leave it out"
        )


def _parser() -> Parser:
    parser = Parser(verb="probe", description=DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="a run, one of its checkpoints, a bundle, or public weights")
    parser.add_argument("--data", type=Path, metavar="DIR", required=True, help="folder that `twinreel prepare` made")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="folder for features and report")
    parser.add_argument("--method", default="linear", help="linear, knn or attentive")
    parser.add_argument("--features", help="embedding (of the joint space; default) or pooled (before the projection)")
    parser.add_argument("--shots", type=int, help="clips of each class to train on; default: all")
    parser.add_argument("--draws", type=int, help="times that the shots are drawn; figures get mean and spread")
    parser.add_argument("--seed", type=int, help="of the draws and of the attentive probe; default 0")
    group = parser.add_argument_group("clips")
    group.add_argument("--split", help="is measured; default test")
    group.add_argument("--train_split", help="is trained on; default train")
    group.add_argument("--val_split", help="is validated on, where the data set has it; default val")
    group.add_argument("--hold_out", type=float, help="share of the training clips held out where it has not; 0.1")
    group.add_argument("--labels", help="all labels of a clip (the default), or its first")
    group.add_argument("--allow_missing", action="store_true", help="measure although clips of the split are missing")
    group.add_argument("--windows", type=int, help="windows of each clip; vectors are averaged, those of frames joined")
    group.add_argument("--window_seconds", type=float, help="length of a window; default: the whole clip")
    group.add_argument("--batch_size", type=int, help="clips at a time for the features; default 32")
    group = parser.add_argument_group("knn")
    group.add_argument("--k", type=int, help="neighbours that vote; default 20")
    group.add_argument("--temperature", type=float, help="of their votes; default 0.07")
    group = parser.add_argument_group("attentive (AdamW at a constant rate)")
    group.add_argument("--heads", type=int, help="of the attention; default: heads of 64 channels or more")
    group.add_argument("--learning_rate", type=float, help="default 1e-3")
    group.add_argument("--weight_decay", type=float, help="default 0.01")
    group.add_argument("--train_batch_size", type=int, help="clips of a step; default 128")
    group.add_argument("--epochs", type=int, help="at most so many; default 60")
    group.add_argument("--patience", type=int, help="epochs without a lower validation loss at which it stops; 10")
    parser.add_json()
    parser.add_distributed()
    return parser
