"""Highlights: how much each moment of a clip belongs to what a text says, or is worth seeing by itself."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from ...base.errors import UserError
from ...zoo.spec import ModelSpec
from ..examples.context import TaskContext
from ..examples.queries import Queries
from ..figures.saliency import highlight_figures, marks_of, step_targets
from ..inputs.feed import Batch
from ..kinds.ranking import RankingObjective, RankingOptions
from ..kinds.timeline import TimelineTask
from ..reports.saliency import print_figures, write_highlights


@dataclasses.dataclass(frozen=True, kw_only=True)
class HighlightOptions(RankingOptions):
    """`config.task` for highlights; the fields of the bases belong to it. `query` is "text" or "clip".

    Attributes:
      moment_seconds: length of the moments that are scored.
      highest_score: the score of a span that counts as the best; spans without a score count so.
    """

    name: str = "highlight"
    moment_seconds: float = 2.0
    highest_score: float = 4.0

    def __post_init__(self):
        super().__post_init__()
        if self.query not in ("text", "clip"):
            other = "localise" if self.query == "label" else "summarise"
            raise UserError(
                f"config.task.query={self.query!r} is for {other}; highlights are of a 'text' or of the 'clip'"
            )
        for field in ("moment_seconds", "highest_score"):
            if not getattr(self, field) > 0:
                raise UserError(f"config.task.{field} must be above 0, got {getattr(self, field)}")


class HighlightObjective(RankingObjective):
    """Cross-entropy of the scores of the time steps with their marks, and a ranking loss within each clip."""

    target = "saliency"


class Highlight(TimelineTask):
    """The task `highlight`; see `task.Task`."""

    options_class = HighlightOptions
    options: HighlightOptions

    def head_fields(self) -> dict[str, Any]:
        """Return the fields of the head for the spec; see `TimelineTask`."""
        return {"kind": "saliency", "decode": {"moment_seconds": self.options.moment_seconds}}

    def make_objective(self, spec: ModelSpec) -> HighlightObjective:
        """Build the objective."""
        return HighlightObjective(spec=spec, options=self.options, context=self._context)

    @property
    def metric(self) -> str:
        """Hit1 of the best moments."""
        return self.metric_of("HL-Hit1")

    def batches(self, start_step: int) -> Iterator[Batch]:
        """Return this process's rows of the train batches, with the marks of the time steps, `saliency [b,T]`."""
        steps = self.objective.spec.heads["highlight"]["times"]
        target = step_targets(self._marks(self.splits.train), steps=steps)
        return ({**batch, "saliency": target[batch["example"]]} for batch in super().batches(start_step))

    def evaluate(self, model: nnx.Module, step: int) -> dict[str, float]:
        """Return `HL-Hit1` and `HL-mAP` of the level VeryGood, in percent."""
        del step
        assert self.splits.validation is not None
        found, queries, _ = self.measured(model, queries=self.splits.validation)
        return dict(highlight_figures(found, marks=self._marks(queries))["levels"]["VeryGood"])

    def report(self, model: nnx.Module, *, out: Path, protocol: dict[str, Any]) -> dict[str, Any]:
        """Measure the model on the test split (or on the validation examples), write the report, print its table."""
        found, queries, unread = self.measured(model, queries=self.splits.report, progress=True)
        marks, train = self._marks(queries), self.splits.train
        figures = highlight_figures(found, marks=marks)
        usual = step_targets(self._marks(train), steps=64).mean(axis=0).astype(np.float64)
        figures["baseline"] = highlight_figures([usual] * len(queries), marks=marks)
        whole = protocol | self.protocol(queries=queries, unread=unread)
        whole |= {"moment_seconds": self.options.moment_seconds}
        if jax.process_index() == 0:
            page = write_highlights(
                figures,
                found=found,
                marks=marks,
                queries=queries,
                records=self._context.records,
                out=out,
                protocol=whole,
            )
            print_figures(figures, page=page)
        return {"protocol": whole, **figures}

    def _marks(self, queries: Queries) -> list[np.ndarray]:
        rows = self._context.records.rows(queries.split)
        how = {"seconds": self.options.moment_seconds, "highest": self.options.highest_score}
        return marks_of(queries, rows=rows, **how)


def make(context: TaskContext) -> Highlight:
    """Build the task."""
    return Highlight(context)
