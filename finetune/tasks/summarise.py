"""Summaries: which shots of a film are worth keeping, learned from annotators' scores or choices."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from ...base.errors import UserError
from ...encode.films.summary import SummaryOptions
from ...zoo.spec import ModelSpec
from ..examples.annotators import Annotations, annotations_of, step_targets
from ..examples.context import TaskContext
from ..examples.queries import Queries
from ..figures.summaries import change_figures, summary_figures
from ..inputs.feed import Batch
from ..kinds.ranking import RankingObjective, RankingOptions
from ..kinds.timeline import TimelineTask
from ..reports.summaries import print_figures, write_summaries


@dataclasses.dataclass(frozen=True, kw_only=True)
class SummariseOptions(RankingOptions):
    """`config.task` for summaries; the fields of the bases belong to it. `query` is "annotated".

    Attributes:
      share: length of a summary at most, as a share of the film's.
      shortest_s: length of a shot at least, in seconds.
      penalty: of a change point; the higher, the fewer shots, see `encode.films.shots.change_points`.
    """

    name: str = "summarise"
    query: str = "annotated"
    share: float = 0.15
    shortest_s: float = 1.0
    penalty: float = 2.0

    def __post_init__(self):
        super().__post_init__()
        if self.query != "annotated":
            raise UserError(f"config.task.query={self.query!r}: summaries are learned from 'annotated' films")
        try:
            SummaryOptions(**self.shots)
        except UserError as error:
            raise UserError(f"config.task.{error}") from error

    @property
    def shots(self) -> dict[str, float]:
        """The fields by which shots are found and chosen."""
        return {name: getattr(self, name) for name in ("share", "shortest_s", "penalty")}


class SummariseObjective(RankingObjective):
    """Cross-entropy of the scores of the time steps with the annotators' mean, and a ranking loss within each film."""

    target = "importance"


class Summarise(TimelineTask):
    """The task `summarise`; see `task.Task`."""

    options_class = SummariseOptions
    options: SummariseOptions

    def head_fields(self) -> dict[str, Any]:
        """Return the fields of the head for the spec; see `TimelineTask`."""
        typical = float(np.median(self.splits.train.duration))
        return {"kind": "saliency", "decode": {"piece_seconds": round(typical, 3), **self.options.shots}}

    def make_objective(self, spec: ModelSpec) -> SummariseObjective:
        """Build the objective."""
        return SummariseObjective(spec=spec, options=self.options, context=self._context)

    @property
    def metric(self) -> str:
        """Kendall's correlation with the annotators."""
        return self.metric_of("kendall")

    def batches(self, start_step: int) -> Iterator[Batch]:
        """Return this process's rows of the train batches, with the targets of the time steps, `importance [b,T]`."""
        steps = self.objective.spec.heads["summarise"]["times"]
        target = step_targets(self._annotations(self.splits.train), steps=steps)
        return ({**batch, "importance": target[batch["example"]]} for batch in super().batches(start_step))

    def evaluate(self, model: nnx.Module, step: int) -> dict[str, float]:
        """Return `kendall`, `spearman` (-1 to 1; 0 where not defined), and `F_mean` and `F_max` in percent."""
        del step
        assert self.splits.validation is not None
        found, queries, _ = self.measured(model, queries=self.splits.validation)
        return {key: value or 0.0 for key, value in self._figures(found, queries=queries)["model"].items()}

    def report(self, model: nnx.Module, *, out: Path, protocol: dict[str, Any]) -> dict[str, Any]:
        """Measure the model on the test split (or on the validation examples), write the report, print its table."""
        found, queries, unread = self.measured(model, queries=self.splits.report, progress=True)
        figures, rows = self._figures(found, queries=queries), self._context.records.rows(queries.split)
        changes = [(rows[record].get("meta") or {}).get("shot_changes") for record in queries.record.tolist()]
        figures["changes"] = change_figures(found, changes=changes, duration=queries.duration)
        whole = protocol | self.protocol(queries=queries, unread=unread) | self.options.shots
        if jax.process_index() == 0:
            page = write_summaries(
                figures,
                found=found,
                annotations=self._annotations(queries),
                queries=queries,
                records=self._context.records,
                out=out,
                protocol=whole,
            )
            print_figures(figures, page=page)
        return {"protocol": whole, **figures}

    def _figures(self, found: list[np.ndarray], *, queries: Queries) -> dict[str, Any]:
        said = self._annotations(queries)
        return summary_figures(found, annotations=said, duration=queries.duration, share=self.options.share)

    def _annotations(self, queries: Queries) -> list[Annotations]:
        rows = self._context.records.rows(queries.split)
        return [annotations_of(rows[record]) for record in queries.record.tolist()]


def make(context: TaskContext) -> Summarise:
    """Build the task."""
    return Summarise(context)
