"""Temporal localisation: when does what a text says happen, or which actions happen when."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ...base.errors import UserError, unknown
from ...losses.crf import Chain, crf_loss
from ...losses.spans import REGRESSIONS, Found, Points, Wanted, localisation_loss
from ...models.heads.moments import Labels, Moments
from ...models.heads.timeline import TimelineModel
from ...models.shapes import Scalar
from ...zoo.spec import ModelSpec
from ..examples.context import TaskContext
from ..figures.localisation import action_figures, best_guess, moment_figures
from ..kinds.timeline import TimelineObjective, TimelineOptions, TimelineTask
from ..reports.localisation import print_figures, write_localisation

LABELLINGS = ("moments", "crf")
"""How spans are predicted: each time step its span, or a label for each time step with a linear-chain CRF."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocaliseOptions(TimelineOptions):
    """`config.task` for localisation; the fields of the bases belong to it.

    Attributes:
      labelling: one of `LABELLINGS`.
      levels: scales of "moments"; each has half the time steps of the one before.
      regression: loss of the ends, one of `losses.spans.REGRESSIONS`.
      regression_weight: of that loss beside the focal loss of the scores.
      radius: how far from the centre of a span its time steps may lie, in steps (centre sampling).
      nms: overlap above which a span is dropped for a better one of its class.
      keep: spans of an example at most.
    """

    name: str = "localise"
    labelling: str = "moments"
    levels: int = 3
    regression: str = "diou"
    regression_weight: float = 1.0
    radius: float = 1.5
    nms: float = 0.5
    keep: int = 10

    def __post_init__(self):
        super().__post_init__()
        if self.query == "annotated":
            raise UserError("config.task.query='annotated' is for summarise; localise takes 'text', 'label' or 'clip'")
        for field, known in (("labelling", LABELLINGS), ("regression", REGRESSIONS)):
            if getattr(self, field) not in known:
                raise unknown(f"config.task.{field}:", getattr(self, field), known)
        if not 0 <= self.nms <= 1:
            raise UserError(f"config.task.nms must be an overlap from 0 to 1, got {self.nms}")
        for field, least in (("keep", 1), ("levels", 1), ("radius", 0), ("regression_weight", 0)):
            if getattr(self, field) < least:
                raise UserError(f"config.task.{field} must be at least {least}, got {getattr(self, field)}")


class LocaliseObjective(TimelineObjective):
    """Focal loss of the scores and a loss of both ends; or the likelihood of the time steps' labels under a CRF."""

    def __init__(self, *, spec: ModelSpec, options: LocaliseOptions, context: TaskContext):
        """Describe the model and the loss; see `objective.HeadObjective`."""
        super().__init__(spec=spec, options=options, context=context)
        self._options = options

    def loss(
        self, model: TimelineModel, batch: dict[str, jax.Array], *, rngs: nnx.Rngs | None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the loss over the rows that take part, and its terms."""
        found, options = self.found(model, batch, rngs=rngs), self._options
        if isinstance(found, Labels):
            path = step_labels(batch, steps=found.emissions.shape[1])
            return crf_loss(found.emissions, path=path, chain=Chain(*found[1:]), valid=batch["valid"]), {}
        assert isinstance(found, Moments)
        wanted = Wanted(batch["spans"], batch["spans_mask"], batch["spans_label"], batch["valid"])
        how = {"points": Points(*model.head.steps), "regression": options.regression, "radius": options.radius}
        terms = localisation_loss(Found(*found), wanted=wanted, **how)
        return terms["focal"] + options.regression_weight * terms["regression"], terms


def step_labels(batch: dict[str, jax.Array], *, steps: int) -> jax.Array:
    """Return the label of each time step, int32 [B,steps]: 1 + the class of the shortest span around its middle, or 0.

    A span that contains no middle labels the step in which its centre lies.
    """
    start, end = batch["spans"][:, None, :, 0], batch["spans"][:, None, :, 1]  # [B,1,M]
    number = jnp.arange(steps, dtype=jnp.int32)[None, :, None]
    middle = (number.astype(jnp.float32) + 0.5) / steps
    inside = (middle >= start) & (middle < end)
    own = jnp.clip(((start + end) / 2 * steps).astype(jnp.int32), 0, steps - 1) == number
    inside = (inside | (own & ~jnp.any(inside, axis=1, keepdims=True))) & batch["spans_mask"][:, None]
    place = jnp.argmin(jnp.where(inside, end - start, jnp.inf), axis=2)  # [B,steps]
    label = 1 + jnp.take_along_axis(batch["spans_label"], place, axis=1)
    return jnp.where(jnp.any(inside, axis=2), label, 0).astype(jnp.int32)


class Localise(TimelineTask):
    """The task `localise`; see `task.Task`."""

    options_class = LocaliseOptions
    options: LocaliseOptions

    def head_fields(self) -> dict[str, Any]:
        """Return the fields of the head for the spec; see `TimelineTask`."""
        decode = {"nms": self.options.nms, "keep": self.options.keep}
        if self.options.labelling == "crf":
            return {"kind": "crf", "decode": decode}
        return {"kind": "moments", "levels": self.options.levels, "decode": decode}

    def make_objective(self, spec: ModelSpec) -> LocaliseObjective:
        """Build the objective."""
        return LocaliseObjective(spec=spec, options=self.options, context=self._context)

    @property
    def metric(self) -> str:
        """The mean overlap of the first span; with classes the mean of mAP over overlaps."""
        return self.metric_of("mAP" if self.options.query == "label" else "mIoU")

    def evaluate(self, model: nnx.Module, step: int) -> dict[str, float]:
        """Return `R@1_IoU0.5`, `R@1_IoU0.7`, `mIoU` and `mAP`; with classes `mAP` and `mAP_IoU0.5`; in percent."""
        del step
        assert self.splits.validation is not None
        found, queries, _ = self.measured(model, queries=self.splits.validation)
        figures = self._figures(found, queries=queries)
        if self.options.query == "label":
            return {"mAP": 100 * figures["average"], "mAP_IoU0.5": 100 * figures["mAP@0.5"]}
        hits, mean = figures["grounding"], figures["moment_retrieval"]["full"]["MR-mAP"]["average"]
        first = {f"R@1_IoU{m}": hits[f"R@1,IoU>{m}"] for m in (0.5, 0.7)}
        return first | {"mIoU": hits["mIoU"], "mAP": mean}

    def report(self, model: nnx.Module, *, out: Path, protocol: dict[str, Any]) -> dict[str, Any]:
        """Measure the model on the test split (or on the validation examples), write the report, print its table."""
        found, queries, unread = self.measured(model, queries=self.splits.report, progress=True)
        how = "Viterbi path" if self.options.labelling == "crf" else f"non-maximum suppression above {self.options.nms}"
        whole = protocol | self.protocol(queries=queries, unread=unread)
        whole |= {"labelling": self.options.labelling, "spans": f"{how}, at most {self.options.keep}"}
        figures = self._figures(found, queries=queries)
        figures["baseline"] = self._figures(best_guess(self.splits.train, count=len(queries)), queries=queries)
        if jax.process_index() == 0:
            page = write_localisation(
                figures, found=found, queries=queries, records=self._context.records, out=out, protocol=whole
            )
            print_figures(figures, page=page)
        return {"protocol": whole, **figures}

    def _figures(self, found: list[np.ndarray], *, queries: Any) -> dict[str, Any]:
        measure = action_figures if self.options.query == "label" else moment_figures
        return measure(found, queries=queries)


def make(context: TaskContext) -> Localise:
    """Build the task."""
    return Localise(context)
