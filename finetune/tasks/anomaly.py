"""Anomalies along films, learned from labels of whole films: multiple-instance learning over their time steps."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ...base.errors import UserError
from ...base.section import section
from ...data.batches.clip_graph import ClipGraph
from ...encode.predict.steps import StepPredictor, WindowTokens
from ...engine.sharding.mesh import check_batch_size
from ...losses.bags import bag_loss
from ...models.heads.steps import StepModel
from ...models.layers.draws import row_keys
from ...models.shapes import Scalar
from ...zoo.spec import ModelSpec
from ..examples.clips import LabelledClips
from ..examples.context import TaskContext
from ..examples.splits import Splits, choose_splits
from ..figures.anomaly import Film, anomaly_figures, check_kinds, film_of
from ..inputs.feed import Feed
from ..inputs.films import film_tokens
from ..kinds.labelled import LabelledTask
from ..kinds.objective import HeadObjective
from ..kinds.task import VALIDATION
from ..kinds.timeline import check_places, time_tokens
from ..options.anomaly import AnomalyOptions
from ..reports.anomaly import print_figures, write_anomalies


class AnomalyObjective(HeadObjective):
    """The multiple-instance losses of `losses.bags`."""

    def __init__(self, *, spec: ModelSpec, options: AnomalyOptions, context: TaskContext, abnormal: np.ndarray):
        """Describe the model and the loss; see `objective.HeadObjective`. `abnormal`: of the classes, bool [K]."""
        super().__init__(spec=spec, options=options, context=context)
        self._options, self._abnormal = options, abnormal

    def loss(
        self, model: StepModel, batch: dict[str, jax.Array], *, rngs: nnx.Rngs | None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the loss over the films that take part, and its terms."""
        options, label = self._options, batch["label"]
        keys = None if rngs is None else row_keys(rngs(), rows=label.shape[0])
        given: dict[str, Any] = {"keys": keys, "frozen": self.frozen}
        found = model.score(batch["tokens"], **given) if "tokens" in batch else model(batch["video"], **given)
        terms = bag_loss(
            found.logits,
            magnitudes=found.magnitudes,
            abnormal=jnp.asarray(self._abnormal)[jnp.maximum(label, 0)],
            valid=batch["valid"],
            kind=options.loss,
            top_k=options.top_k,
            margin=options.margin,
        )
        loss = options.ranking_weight * terms["ranking"]
        loss += options.smoothness * terms["smoothness"] + options.sparsity * terms["sparsity"]
        return loss + (terms["cross_entropy"] if options.loss == "magnitude" else 0.0), terms


class Anomaly(LabelledTask):
    """The task `anomaly`; see `task.Task`."""

    objective: AnomalyObjective
    splits: Splits

    def __init__(self, context: TaskContext):
        """Choose classes and films; reads `clips.jsonl` but no record."""
        self._context, self.feed = context, Feed(context, bags=True)
        self.options = options = section(AnomalyOptions, context.config["task"], name="task")
        check_batch_size(context.data.feed.batch_size, mesh=context.mesh)
        self.splits = choose_splits(context, options=options)
        abnormal = check_kinds(self.splits.train, normal=options.normal, field="config.data.train_split")
        check_kinds(self.splits.report, normal=options.normal, field="config.task.test_split")
        spec, self._seconds = context.tower_spec("video"), _window_seconds(context)
        steps = time_tokens(spec, graph=ClipGraph.of(context.data, train=False)) * context.data.feed.train_clips
        if not 1 <= options.top_k <= steps:
            raise UserError(
                f"config.task.top_k={options.top_k} must be at least 1, and at most the {steps} time steps of a bag "
                f"(config.data.train_clips={context.data.feed.train_clips} windows)"
            )
        head = {"kind": "steps", "labels": list(self.splits.labels), "width": options.width}
        head |= {"dilations": list(options.dilations), "smooth": options.smooth, "dropout": options.dropout}
        decode = {"window_seconds": self._seconds, "threshold": options.threshold, "normal": list(options.normal)}
        spec = spec.replace(heads={"anomaly": head | {"decode": decode}})
        self.objective = AnomalyObjective(spec=spec, options=options, context=context, abnormal=abnormal)
        self._validation: list[WindowTokens] = []

    @property
    def metric(self) -> str:
        """AUC over frames; over films where the spans of validation films are not known."""
        clips = self.splits.validation
        if clips is None:
            return ""
        rows = self._context.records.rows(clips.split)
        chosen = [rows[i] for i in clips.indices.tolist()]
        abnormal = [row for row in chosen if row["labels"][0] not in self.options.normal]
        if len(abnormal) in (0, len(chosen)):
            return ""
        return f"{VALIDATION}/{'AUC' if all(row['spans'] for row in abnormal) else 'film_AUC'}"

    def evaluated_on(self) -> list[LabelledClips]:
        """Return nothing: films are evaluated as `predict` scores them, window by window."""
        return []

    def settled(self) -> dict[str, Any]:
        """Return `config.task` with the classes that the data gave."""
        return dataclasses.asdict(self.options) | {"labels": self.splits.labels}

    def evaluate(self, model: nnx.Module, step: int) -> dict[str, float]:
        """Return `AUC` and `AP` over frames, if their truth is known, and `film_AUC`; in percent.

        NaN where the films that can be read are not of both kinds.
        """
        del step
        assert self.splits.validation is not None
        figures = anomaly_figures(self._films(model, clips=self.splits.validation, kept=self._validation))
        found, frames = {"film_AUC": figures["video_auc"]}, figures["frames"]
        if frames or self.metric == f"{VALIDATION}/AUC":
            found |= {"AUC": frames and frames["auc"], "AP": frames and frames["ap"]}
        return {name: float("nan") if value is None else 100 * value for name, value in found.items()}

    def report(self, model: nnx.Module, *, out: Path, protocol: dict[str, Any]) -> dict[str, Any]:
        """Measure the model on the test split (or on the validation films), write the report, print its table."""
        clips = self.splits.report
        films = self._films(model, clips=clips, progress=True)
        figures = anomaly_figures(films)
        whole = protocol | self._context.protocol(clips) | {"damaged": len(clips) - len(films)}
        whole |= {"normal": list(self.options.normal), "window_seconds": self._seconds, "loss": self.options.loss}
        whole |= {"trained": list(self.objective.trainable)}
        if jax.process_index() == 0:
            page = write_anomalies(
                figures, films=films, records=self._context.records, clips=clips, out=out, protocol=whole
            )
            print_figures(figures, page=page)
        return {"protocol": whole, **figures}

    def _films(
        self,
        model: nnx.Module,
        *,
        clips: LabelledClips,
        kept: list[WindowTokens] | None = None,
        progress: bool = False,
    ) -> list[Film]:
        """Score the films that can be read; `kept` gets the tokens of a frozen tower, and has them the next time."""
        predictor = StepPredictor(spec=self.objective.spec, model=model, mesh=self._context.mesh)
        tokens: Any = kept
        if not kept:
            tokens = film_tokens(predictor, context=self._context, clips=clips, progress=progress)
            if kept is not None and self.objective.frozen and self.options.cache_features:
                kept += tokens
                tokens = kept
        rows, normal = self._context.records.rows(clips.split), self.options.normal
        films = [film_of(rows[found.film], found=found, normal=normal) for found in predictor.films(tokens)]
        if not films:
            raise UserError(f"none of the {len(clips)} clips of split {clips.split!r} can be read; prepare them again")
        return films


def _window_seconds(context: TaskContext) -> float:
    """Return the length of the windows; check that a clip is shown as windows whose time tokens have a place."""
    data = context.data
    graph = ClipGraph.of(data, train=False)
    if not graph.window_seconds or graph.transform.views > 1 or graph.windows > 1:
        raise UserError(
            "config.task.name='anomaly' looks at films window by window; set config.data.window_seconds to their "
            f"length (it is {graph.window_seconds:g}), eval_clips=1 and a single crop in config.data.eval_video"
        )
    check_places(data)
    return graph.window_seconds


def make(context: TaskContext) -> Anomaly:
    """Build the task."""
    return Anomaly(context)
