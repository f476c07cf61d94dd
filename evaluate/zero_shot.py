"""`twinreel evaluate --zero_shot`: classify the clips of a prepared split by the names of its classes."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.errors import UserError, unknown
from .measures.zero_shot_rules import DEFAULT_RULE, RULES, VIDEO_RULES, VIEW_RULES
from .options import SplitOptions
from .protocols.benchmark_data import describe_benchmark, measured_coverage, settle_split
from .protocols.class_benchmarks import CLASS_BENCHMARKS
from .protocols.class_names import (
    LABEL_RULES,
    NAME_RULES,
    ClassNames,
    Targets,
    classes_of_rows,
    names_sha256,
    read_classes,
    targets_of_rows,
    to_words,
)
from .protocols.classified import Classified
from .protocols.templates import DEFAULT, Templates, load_templates, shipped
from .protocols.zero_shot import (
    DEFAULT_FRAME_RULE,
    DEFAULT_KEEP,
    DEFAULT_VIEW_RULE,
    OF_EMBEDDINGS,
    zero_shot_report,
)
from .results import to_json

if TYPE_CHECKING:
    from ..data.batches.records import Records
    from ..encode.embed.encoder import Encoder

DESCRIPTION = """
--zero_shot classifies clips by their labels instead, by the texts of a template set:

  twinreel evaluate MODEL --data DIR --zero_shot --templates clip_kinetics --out runs/zero_shot
  twinreel evaluate --zero_shot --embeddings runs/zero_shot/zero_shot.npz --rule mean_of_cosines
  twinreel evaluate MODEL --benchmark ucf101-1 --data DIR --out runs/ucf101

A benchmark has its own templates and way of reading class names, unless others are named. Of several --windows the
embeddings are averaged, or with --view_rule their scores (score), their probabilities (prob), or the highest of each.

OUT receives zero_shot.html, zero_shot.json, and zero_shot.npz, from which the second form computes the figures again
under any rule. Such a file may be of any origin: class_text [c,t,E], video [m,E] or [m,f,E], labels int [m] (or 0 and 1
[m,c] where clips have several labels). With --scores: scores [m,c], or [m,v,c] of v views, and labels."""
_FLAGS = ("templates", "rule", "frame_rule", "view_rule", "classes", "class_names", "labels", "scale", "keep")
_OTHERS = {"read_as": "--as", "controls": "--control", "pairs": "--pairs", "share_duplicates": "--share_duplicates"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroShotOptions(SplitOptions):
    """How a split is classified; `allow_missing` also measures where labels are no class.

    Attributes:
      templates: a shipped set, or a file; see `protocols.templates.load_templates`. None = as the benchmark says, or
        "plain".
      rule: from texts and clips to class scores, a name of `zero_shot_rules.RULES`; None = as the benchmark says, or
        "unit_text_means".
      classes: a file of classes; None = the labels of all splits of the data set, in alphabetical order.
      class_names: "as_is", or "words": "brush_hair" and "ApplyEyeMakeup" are read as words; None = as the benchmark
        says, or "as_is".
      view_rule: from several windows to a clip: "embedding", the mean of their unit embeddings; or the scores of each
        are combined, one of `zero_shot_rules.VIEW_RULES`.
      labels: "all" of a clip, or its "first".
      scale: the temperature; None = the model's.
      keep: as in `protocols.zero_shot.zero_shot_report`.
      rerank: methods of re-ranking, see `protocols.zero_shot.reranked_classes`.
    """

    templates: str | None = None
    rule: str | None = None
    view_rule: str = OF_EMBEDDINGS
    classes: Path | None = None
    class_names: str | None = None
    labels: str = "all"
    scale: float | None = None
    keep: int = DEFAULT_KEEP
    rerank: Sequence[str] = ()

    def settled(self) -> "ZeroShotOptions":
        """Return the options with split, templates, rule and class names; raises `UserError` for another split."""
        entry = CLASS_BENCHMARKS.get(self.benchmark)
        own = (entry.templates, entry.class_names, entry.rule) if entry else (DEFAULT, NAME_RULES[0], DEFAULT_RULE)
        return dataclasses.replace(
            self,
            split=settle_split(self.benchmark, split=self.split),
            templates=self.templates or own[0],
            class_names=self.class_names or own[1],
            rule=self.rule or own[2],
        )


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--zero_shot` and the flags that belong to it."""
    group = parser.add_argument_group("zero-shot classification")
    group.add_argument("--zero_shot", action="store_true", help="classify clips by their labels instead of retrieval")
    sets = ", ".join(f"{name} ({len(one.templates)})" for name, one in shipped().items())
    group.add_argument("--templates", metavar="SET|FILE", help=f"{sets}, or a file with a template per line")
    group.add_argument("--rule", help=f"from texts to scores: {', '.join(RULES)}; default {DEFAULT_RULE}")
    group.add_argument("--frame_rule", help=f"of files with a row per frame: {', '.join(VIDEO_RULES)}")
    group.add_argument("--view_rule", help=f"of several views: {', '.join((OF_EMBEDDINGS, *VIEW_RULES))}")
    group.add_argument("--classes", type=Path, metavar="FILE", help="a class per line: LABEL or LABEL<TAB>NAME")
    group.add_argument("--class_names", help=f"{' or '.join(NAME_RULES)}: brush_hair is read 'brush hair'")
    group.add_argument("--labels", help=f"{' or '.join(LABEL_RULES)}: labels of each clip that count")
    group.add_argument("--scale", type=float, help="temperature of the softmax; default: the model's")
    group.add_argument("--keep", type=int, help="predictions per clip in GAP, for clips with several labels")


def check_flags(args: argparse.Namespace) -> None:
    """Raise UserError for flags that need `--zero_shot`, or do not go with it."""
    given = [name for name in _FLAGS if getattr(args, name) is not None]
    if given and not args.zero_shot:
        raise UserError(f"--{given[0]} belongs to zero-shot classification; add --zero_shot, or leave it out")
    other = [flag for name, flag in _OTHERS.items() if args.zero_shot and getattr(args, name)]
    if other:
        raise UserError(f"{other[0]} belongs to retrieval and has no meaning with --zero_shot; leave it out")
    if args.zero_shot and args.captions is not None:
        raise UserError("--captions belongs to retrieval; --labels says which labels of a clip count")


def run(args: argparse.Namespace) -> int:
    """Run `evaluate --zero_shot` with parsed flags."""
    if args.embeddings or args.scores:
        results = _from_file(args)
    else:
        fields = {field.name for field in dataclasses.fields(ZeroShotOptions)}
        named = {key: value for key, value in vars(args).items() if key in fields and value is not None}
        if args.frame_rule is not None:
            raise UserError("--frame_rule belongs to --embeddings; a model gives one embedding per clip")
        results = zero_shot(args.checkpoint, data=args.data, out=args.out, options=ZeroShotOptions(**named))
    if results is None:
        return 0
    from .reports.zero_shot_terminal import print_zero_shot

    if args.json:
        sys.stdout.write(to_json(results))
    else:
        print_zero_shot(results)
    if args.out:
        print(f"report: {args.out / 'zero_shot.html'}", file=sys.stderr if args.json else sys.stdout)
    return 0


def zero_shot(
    model: str | Path, *, data: Path, out: Path, options: ZeroShotOptions | None = None
) -> dict[str, Any] | None:
    """Classify the clips of a split with a model, and write the report.

    Args:
      model: a run, one of its checkpoints, a bundle, or public weights.
      data: folder that `twinreel prepare` made; its clips have `labels`.
      out: receives `zero_shot.json`, `zero_shot.npz` and `zero_shot.html`.
      options: how; None = the defaults.

    Returns:
      The content of `zero_shot.json`; None on all processes but the first.

    Raises:
      UserError: no such folder, split, checkpoint or template set; missing clips, or a label that is no class, without
        `allow_missing`; no clip with a label; a row that is zero or not finite.
    """
    from ..data.batches.records import Records

    options = (options or ZeroShotOptions()).settled()
    records = Records(data)
    plan = ClassPlan.of(records, options=options)  # the quick refusals come before the model is read
    import jax

    from ..encode.embed.encoder import load

    encoder = load(model)
    found = embed_classes(encoder, records=records, plan=plan, options=options)
    found.protocol |= {"checkpoint": str(model), "step": encoder.meta.get("step"), "seed": encoder.meta.get("seed")}
    if jax.process_index() != 0:
        return None
    assert options.rule is not None
    results = zero_shot_report(
        found,
        rule=options.rule,
        view_rule=options.view_rule,
        scale=options.scale,
        keep=options.keep,
        rerank=options.rerank,
    )
    return write(results, out=Path(out), found=found)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassPlan:
    """What can be known before the model is read.

    Attributes:
      templates: that the names of the classes fill.
      classes: their labels and names.
      targets: which clips are measured, and their classes.
      coverage: of the split, see `retrieval.coverage_of`.
    """

    templates: Templates
    classes: ClassNames
    targets: Targets
    coverage: dict[str, Any]

    @classmethod
    def of(cls, records: "Records", *, options: ZeroShotOptions, only: Sequence[int] | None = None) -> "ClassPlan":
        """Read templates, classes and labels; of the records `only` (`targets.clips` are places in it), None = of all.

        Raises:
          UserError: no such split, rule or template set; missing clips, or a label that is no class, without
            `allow_missing`; no clip with a label.
        """
        assert options.templates is not None and options.class_names is not None and options.rule is not None
        if options.split not in records.splits:
            raise unknown("split", options.split, records.splits)
        if options.rule not in RULES:
            raise unknown("value of --rule", options.rule, RULES)
        _check_view_rule(options)
        templates, rows = load_templates(options.templates), records.rows(options.split)
        coverage = measured_coverage(records, options=options)
        if options.classes is not None:
            classes = read_classes(Path(options.classes), names=options.class_names)
        else:
            every = (row for split in records.splits for row in records.rows(split))
            origin = f"{records.folder} (all splits)"
            classes = classes_of_rows(every, labels=options.labels, names=options.class_names, origin=origin)
        measured = list(rows) if only is None else [rows[clip] for clip in only]
        targets = targets_of_rows(measured, classes=classes, labels=options.labels, allow_missing=options.allow_missing)
        return cls(templates=templates, classes=classes, targets=targets, coverage=coverage)

    def texts(self) -> list[str]:
        """Return the texts of c classes in t templates, c times t."""
        return [text for name in self.classes.texts for text in self.templates.fill(name)]

    def warnings(self) -> list[str]:
        """Return what the reader of the figures must know about labels and class names."""
        found = []
        if self.targets.unlabelled:
            found.append(f"{self.targets.unlabelled} clips have no label and are not measured")
        if other := self.targets.other:
            found.append(f"{sum(other.values())} labels are no class and are not measured: {', '.join(sorted(other))}")
        if unread := [name for name in self.classes.texts if " " not in name and to_words(name) != name.lower()]:
            found.append(
                f"{len(unread)} class names are no words, such as {unread[0]!r}; --class_names words reads "
                f"{to_words(unread[0])!r}"
            )
        return found


def embed_classes(encoder: "Encoder", *, records: "Records", plan: ClassPlan, options: ZeroShotOptions) -> Classified:
    """Embed the texts of the classes and the clips of a split. All processes must call this; errors as `zero_shot`."""
    from ..encode.devices.rows import rounded_up
    from .embedding.clips import FurtherClips
    from .embedding.embed import embed_clips, embed_texts
    from .embedding.prepared import describe_split

    split = options.split
    about = describe_split(encoder, records=records, split=split)
    clips, protocol = embed_clips(
        encoder,
        records=records,
        split=split,
        clip_side=options.clip_side,
        batch_size=options.batch_size,
        feed=options.feed,
        progress=options.progress,
        further=FurtherClips(keep_views=options.view_rule != OF_EMBEDDINGS),
    )
    classes, targets = plan.classes, plan.targets
    texts = plan.texts()
    size = rounded_up(options.batch_size, mesh=encoder.mesh)
    text, truncated = embed_texts(encoder, texts=texts, what="class texts", batch_size=size, progress=options.progress)
    warnings = plan.warnings()
    if truncated:
        limit = encoder.input.context_length
        warnings.append(f"{truncated} of {len(texts)} class texts are longer than {limit} tokens and were truncated")
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    rows = records.rows(split)
    protocol |= about | _about_classes(plan, options=options, texts_truncated=truncated)
    protocol["warnings"] = about["warnings"] + warnings
    benched = {"protocol": protocol, "rows": rows, "coverage": plan.coverage}
    return Classified(
        labels=targets.labels,
        class_text=text.reshape(len(classes.labels), len(plan.templates.templates), -1),
        video=clips.found()[targets.clips],
        scale=float(np.asarray(encoder.model.scale)),
        classes=list(classes.labels),
        names=list(classes.texts),
        clip_ids=[rows[clip]["clip_id"] for clip in targets.clips.tolist()],
        coverage=plan.coverage,
        views=None if options.view_rule == OF_EMBEDDINGS else clips.views()[targets.clips],
        protocol=protocol | (describe_benchmark(options.benchmark, **benched) if options.benchmark else {}),
    )


def _about_classes(plan: ClassPlan, *, options: ZeroShotOptions, texts_truncated: int) -> dict[str, Any]:
    """Return what the protocol says about classes and texts."""
    return {
        "template_set": plan.templates.name,
        "templates": list(plan.templates.templates),
        "templates_source": plan.templates.source,
        "classes_from": plan.classes.origin,
        "class_names": options.class_names,
        "rule": options.rule,
        "class_texts_sha256": names_sha256(plan.classes.texts),
        "labels": options.labels,
        "clips_without_label": plan.targets.unlabelled,
        "labels_that_are_no_class": plan.targets.other,
        "texts_truncated": texts_truncated,
    }


def _check_view_rule(options: ZeroShotOptions) -> None:
    known = (OF_EMBEDDINGS, *VIEW_RULES)
    if options.view_rule not in known:
        raise unknown("value of --view_rule", options.view_rule, known)
    if options.view_rule != OF_EMBEDDINGS and options.windows < 2:
        raise UserError(
            f"--view_rule {options.view_rule} combines several windows of a clip, and there is one; add --windows 3, "
            "or leave it out"
        )


def write(results: dict[str, Any], *, out: Path, found: Classified) -> dict[str, Any]:
    """Write `zero_shot.json`, the page and, of embeddings, `zero_shot.npz`; return the results."""
    from .reports.zero_shot_page import write_zero_shot_page

    out.mkdir(parents=True, exist_ok=True)
    if found.scores is None:
        found.save(out / "zero_shot.npz")
    (out / "zero_shot.json").write_text(to_json(results), encoding="utf-8")
    write_zero_shot_page(out / "zero_shot.html", results=results)
    return results


def _from_file(args: argparse.Namespace) -> dict[str, Any]:
    for name in ("templates", "classes", "class_names", "labels"):
        if getattr(args, name) is not None:
            raise UserError(f"--{name} chooses what a model embeds, and a file is embedded already; leave it out")
    for name in ("frame_rule", "rule"):
        if args.scores and getattr(args, name) is not None:
            raise UserError(f"--{name} belongs to --embeddings FILE.npz; leave it out")
    given = {"MODEL": args.checkpoint, "--data": args.data}
    both = [f"{name} {str(value)!r}" for name, value in given.items() if value]
    if both or (args.embeddings and args.scores):
        other = both[0] if both else f"--scores {str(args.scores)!r}"
        raise UserError(f"got both {'--embeddings' if args.embeddings else '--scores'} and {other}; give one of them")
    found = Classified.load(args.scores or args.embeddings, scores=bool(args.scores))
    results = zero_shot_report(
        found,
        rule=args.rule or DEFAULT_RULE,
        frame_rule=args.frame_rule or DEFAULT_FRAME_RULE,
        view_rule=args.view_rule or (DEFAULT_VIEW_RULE if args.scores else OF_EMBEDDINGS),
        scale=args.scale,
        keep=DEFAULT_KEEP if args.keep is None else args.keep,
        rerank=args.rerank,
    )
    return write(results, out=args.out, found=found) if args.out else results
