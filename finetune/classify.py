"""Fine-tuning for classification: a video tower with a head, one label per clip."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from rich.console import Console
from rich.table import Table

from ..base.errors import UserError, unknown
from ..base.section import section
from ..engine.sharding.mesh import BATCH_AXES, check_batch_size
from ..losses.classification import softmax_cross_entropy
from ..models.heads.classifier import Classifier, build_classifier
from ..models.layers.draws import row_keys
from ..models.shapes import Scalar
from .labels import Subset, hold_out, label_set, subset
from .report import classification_report, write_report
from .task import Setting

PICTURES = 12
"""How many mistakes the report shows as thumbnails."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifyOptions:
    """`config.task` for classification.

    Attributes:
      name: "classify".
      labels: the classes; () for all first labels of the train split with at least `min_count` clips, sorted.
      min_count: see `labels`.
      head: a name of `models.heads.classifier.HEADS`.
      heads: attention heads of the attentive head; divides the width of the video tower.
      dropout: rate before the last layer.
      label_smoothing: share of the target that is spread over all classes, 0 to below 1.
      train_towers: train the video tower too; False = the head alone, on frozen features.
      trainable: regexes found in the parameter paths that are trained besides the head, for a tower that is open in
        part (`^video/time/`); overrides `train_towers`.
      holdout: share of the train split to validate on where there is no validation split; 0 = do not validate.
      test_split: split that is reported on; "" for the validation clips.
    """

    name: str = "classify"
    labels: tuple[str, ...] = ()
    min_count: int = 2
    head: str = "attentive"
    heads: int = 4
    dropout: float = 0.0
    label_smoothing: float = 0.0
    train_towers: bool = False
    trainable: tuple[str, ...] = ()
    holdout: float = 0.15
    test_split: str = "test"

    def __post_init__(self):
        for field in ("dropout", "label_smoothing", "holdout"):
            if not 0 <= getattr(self, field) < 1:
                raise UserError(f"config.task.{field} must be at least 0 and below 1, got {getattr(self, field)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """`config.model`, as it comes from the checkpoint, for classification.

    Attributes:
      video: arguments of `models.towers.vivit.VideoTower`.
      remat: what the tower's backward pass computes again, a policy of `models.layers.remat`.
      unroll: layers in one turn of the loop over them; 0 = all, no loop.
      text: not read, as all that follows: it is pretraining's (`models.dual.build`).
      audio: not read.
      embed_dim: not read.
      initial_scale: not read.
      initial_bias: not read.
    """

    video: dict[str, Any]
    remat: str = "none"
    unroll: int = 1
    text: Any = None
    audio: Any = None
    embed_dim: Any = None
    initial_scale: Any = None
    initial_bias: Any = None


class ClassifyObjective:
    """What `engine.loop.train` needs to know of classification."""

    def __init__(self, *, model: ModelOptions, num_frames: int, num_classes: int, options: ClassifyOptions):
        """Describe the model and the loss; nothing is allocated until `init`.

        Args:
          model: `config.model`.
          num_frames: T.
          num_classes: how many classes.
          options: `config.task`.
        """
        self._options = options
        head_options = {"dropout": options.dropout} | ({"heads": options.heads} if options.head == "attentive" else {})
        tower = options.trainable or (("^video/",) if options.train_towers else ())
        self.trainable: tuple[str, ...] = ("^head/", *tower)
        self._arguments = {
            "video": dict(model.video),
            "remat": model.remat,
            "unroll": model.unroll,
            "num_frames": num_frames,
            "num_classes": num_classes,
            "head": options.head,
            "head_options": head_options,
            "frozen": not tower,
        }

    def init(self, rngs: nnx.Rngs) -> Classifier:
        """Build the model with fresh parameters; those of the tower are filled in from the checkpoint afterwards."""
        return build_classifier(**self._arguments, rngs=rngs)

    def loss(
        self, model: Classifier, batch: dict[str, jax.Array], *, rngs: nnx.Rngs | None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the cross-entropy in nats over the rows that take part, and their accuracy (0..1)."""
        keys = None if rngs is None else row_keys(rngs(), rows=batch["video"].shape[0])
        return softmax_cross_entropy(
            logits=model(batch["video"], keys=keys),
            label=batch["label"],
            valid=batch["valid"],
            label_smoothing=self._options.label_smoothing,
        )


class Classify:
    """The task `classify`; see `task.Task`."""

    def __init__(self, setting: Setting):
        """Choose classes and clips; reads `clips.jsonl` but no record."""
        self._setting = setting
        data = setting.data
        self.options = section(ClassifyOptions, setting.config["task"], name="task")
        rows = self._rows(data.feed.train_split, field="config.data.train_split")
        self.labels = label_set(rows, labels=self.options.labels, min_count=self.options.min_count)
        whole = subset(rows, split=data.feed.train_split, labels=self.labels)
        self.train, self.validation, self.chosen_on = self._divide(whole, rows=rows)
        self.objective = ClassifyObjective(
            model=section(ModelOptions, setting.config["model"], name="model"),
            num_frames=data.input.num_frames,
            num_classes=len(self.labels),
            options=self.options,
        )
        self.reported = self._choose_reported()
        check_batch_size(data.feed.batch_size, mesh=setting.mesh)
        self._say_counts()

    parts = ("video/.*",)

    @property
    def metric(self) -> str:
        """Validation accuracy, if there is anything to validate on."""
        return "val/accuracy" if self.validation is not None else ""

    def settled(self) -> dict[str, Any]:
        """Return `config.task` with the classes that the data gave."""
        return dataclasses.asdict(self.options) | {"labels": self.labels}

    def meta(self) -> dict[str, Any]:
        """Return the objective's name and the classes, in the order of the scores."""
        return {"objective": "classify", "labels": list(self.labels)}

    def batches(self, start_step: int) -> Iterator[dict[str, np.ndarray]]:
        """Return this process's rows of the train batches, `video`, `label`, `valid`, `clip_index`, without end."""
        from ..data.batches.pipeline import train_batches

        return self.train.attach(
            train_batches(
                self._setting.data,
                tokenizer=self._setting.tokenizer,
                seed=self._setting.config["seed"],
                start_step=start_step,
                process_index=jax.process_index(),
                process_count=jax.process_count(),
                label_names=self.labels,
                only=self.train.indices,
            )
        )

    def evaluate(self, model: nnx.Module, step: int) -> dict[str, float]:
        """Return `val/loss` (nats, not smoothed), `val/accuracy` and `val/balanced_accuracy` (0..1)."""
        del step
        assert self.validation is not None
        probability, label, *_ = self.predict(model, clips=self.validation)
        own = np.take_along_axis(probability, label[:, None], axis=1)[:, 0]
        right = probability.argmax(axis=1) == label
        return {
            "val/loss": float(-np.log(np.maximum(own, 1e-30)).mean()),
            "val/accuracy": float(right.mean()),
            "val/balanced_accuracy": float(np.mean([right[label == y].mean() for y in np.unique(label)])),
        }

    def predict(self, model: nnx.Module, *, clips: Subset) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Score clips with the evaluation's transforms; the probabilities of several views of a clip are averaged.

        Returns:
          probability float64 [n,classes], label int32 [n] and clip_index int64 [n], in record order; and how many views
          of each clip there were.
        """
        from ..data.batches.pipeline import eval_batches

        data = self._setting.data
        graph, state = nnx.split(model)
        parts, views = [], 1
        batches = eval_batches(
            data,
            tokenizer=self._setting.tokenizer,
            split=clips.split,
            batch_size=data.feed.batch_size,
            label_names=self.labels,
            only=clips.indices,
        )
        for batch in clips.attach(batches):
            several = batch["video"] if batch["video"].ndim == 6 else batch["video"][:, None]
            views = several.shape[1]
            scores = [_scores(graph, self._setting.mesh, state, several[:, v]) for v in range(views)]
            mean = np.mean([_softmax(np.asarray(view)) for view in scores], axis=0)
            parts.append([part[batch["valid"]] for part in (mean, batch["label"], batch["clip_index"])])
        probability, label, index = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.argsort(index, kind="stable")
        return probability[order], label[order], index[order], views

    def report(self, model: nnx.Module, *, out: Path, protocol: dict[str, Any]) -> dict[str, Any]:
        """Measure the model on the test split (or on the validation clips), write the report, print its table."""
        clips = self.reported
        rows = self._setting.records.rows(clips.split)
        probability, label, index, views = self.predict(model, clips=clips)
        names = [rows[i]["clip_id"] for i in index]
        found = classification_report(probability, label=label, labels=self.labels, clip_ids=names)
        whole = protocol | self._protocol(clips, rows=rows) | {"views": views}
        if jax.process_index() == 0:
            place = dict(zip(names, index.tolist(), strict=True))
            pictures = self._pictures(found["mistakes"], place=place, split=clips.split, out=out)
            page = write_report(
                found, out=out, title=f"{whole['dataset']} · {clips.split}", protocol=whole, pictures=pictures
            )
            _print_table(found, page=page)
        return {"protocol": whole, **found}

    def _rows(self, split: str, *, field: str) -> Sequence[dict[str, Any]]:
        if split not in self._setting.records.splits:
            raise unknown(f"split in {field}:", split, self._setting.records.splits)
        return self._setting.records.rows(split)

    def _divide(self, whole: Subset, *, rows: Sequence[dict[str, Any]]) -> tuple[Subset, Subset | None, str]:
        """Return the clips to train on, those to validate on, and how the reported checkpoint is chosen."""
        split, share = self._setting.data.feed.eval_split, self.options.holdout
        if split and split in self._setting.records.splits:
            found = subset(self._setting.records.rows(split), split=split, labels=self.labels)
            if len(found):
                return whole, found, f"best accuracy on split {split!r} ({len(found)} clips)"
        if share:
            train, held = hold_out(whole, rows=rows, share=share)
            if len(held):
                why = f"there is no usable split {split!r}" if split else "config.data.eval_split is ''"
                chosen_on = f"best accuracy on {len(held)} clips held out of split {held.split!r}"
                self._setting.say(f"{why}: {len(held)} train clips are held out to validate on (config.task.holdout)")
                return train, held, chosen_on
        self._setting.say("no validation clips: no early stopping, the last checkpoint is reported")
        return whole, None, "last step (no validation clips)"

    def _choose_reported(self) -> Subset:
        """Return the clips of the final report: those of the test split, or the validation clips if none is named."""
        split, field = self.options.test_split, "config.task.test_split"
        found = subset(self._rows(split, field=field), split=split, labels=self.labels) if split else self.validation
        if found is None or not len(found):
            raise UserError(
                f"there is no clip to report on: {field}={split!r} has none with a label of {', '.join(self.labels)}; "
                f"set it to a split that has some (splits: {', '.join(sorted(self._setting.records.splits))}), "
                "or to '' for the validation clips"
            )
        return found

    def _say_counts(self) -> None:
        data, records = self._setting.data, self._setting.records
        self._setting.say(f"{len(self.labels)} classes: {', '.join(self.labels)}")
        for split in dict.fromkeys([data.feed.train_split, data.feed.eval_split, self.options.test_split]):
            if split in records.splits:
                rows = records.rows(split)
                counts = np.bincount(
                    [y for y in subset(rows, split=split, labels=self.labels).label if y >= 0],
                    minlength=len(self.labels),
                )
                self._setting.say(
                    f"  split {split!r}: {counts.sum()} of {len(rows)} clips carry one of them "
                    f"({counts.min()} to {counts.max()} a class), {len(rows) - counts.sum()} are left out"
                )

    def _protocol(self, clips: Subset, *, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        data, options = self._setting.data, self.options
        return {
            "dataset": self._setting.records.folder.resolve().name,
            "split": clips.split,
            "clips": len(clips),
            "clips_without_a_listed_label": len(rows) - len(clips),
            "checkpoint_chosen_by": self.chosen_on,
            "classes": len(self.labels),
            "head": options.head,
            "trained": list(self.objective.trainable),
            "frames": data.input.num_frames,
            "sampling": data.input.eval_sampling,
            "preprocessing": data.input.eval_video,
        }

    def _pictures(
        self, mistakes: list[dict[str, Any]], *, place: dict[str, int], split: str, out: Path
    ) -> dict[str, str]:
        """Write thumbnails of the surest mistakes; clip_id -> file beside the page."""
        from ..evaluate.pictures import clip_frames
        from ..pages.thumbnails import write_webp

        folder = out / "clips"
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.webp"):
            old.unlink()
        made = {}
        for number, clip in enumerate(mistakes[:PICTURES]):
            jpegs, times = clip_frames(self._setting.records, split=split, index=place[clip["clip_id"]])
            write_webp(folder / f"{number:02d}.webp", jpegs=jpegs, timestamps_s=times)
            made[clip["clip_id"]] = f"clips/{number:02d}.webp"
        return made


def make(setting: Setting) -> Classify:
    """Build the task."""
    return Classify(setting)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _scores(graph: nnx.GraphDef, mesh: jax.sharding.Mesh, state: nnx.State, video: jax.Array) -> jax.Array:
    # Every process holds all rows; each device scores its share, and all of them get all scores.
    rows = jax.lax.with_sharding_constraint(video, NamedSharding(mesh, PartitionSpec(BATCH_AXES)))
    return jax.lax.with_sharding_constraint(nnx.merge(graph, state)(rows), NamedSharding(mesh, PartitionSpec()))


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _print_table(report: dict[str, Any], *, page: Path) -> None:
    low, high = report["accuracy_interval_95"]
    table = Table("class")
    for name in ("precision %", "recall %", "F1 %", "clips"):
        table.add_column(name, justify="right")
    for name, row in list(report["per_class"].items())[:40]:
        table.add_row(name, *[f"{row[key]:.1f}" for key in ("precision", "recall", "f1")], str(row["support"]))
    console = Console()
    console.print(table)
    console.print(
        f"accuracy {report['accuracy']:.1f} % (95 % interval {low:.1f} to {high:.1f}), balanced "
        f"{report['balanced_accuracy']:.1f} %, on {report['n']} clips; chance {report['chance']:.1f} %, "
        f"most frequent class {report['majority']:.1f} %\nreport: {page}",
        soft_wrap=True,
        highlight=False,
    )
