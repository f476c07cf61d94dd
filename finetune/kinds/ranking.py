"""What tasks share that learn a score for each time step: how good it is, and which of two steps is better."""

import dataclasses
from typing import ClassVar

import jax
from flax import nnx

from ...base.errors import UserError
from ...losses.saliency import saliency_loss
from ...models.heads.timeline import TimelineModel
from ...models.shapes import Scalar
from ...zoo.spec import ModelSpec
from ..examples.context import TaskContext
from .timeline import TimelineObjective, TimelineOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankingOptions(TimelineOptions):
    """`config.task` of tasks that score time steps; the fields of the bases belong to it.

    Attributes:
      margin: by how much the score of a better step has to exceed that of a worse one.
      ranking_weight: of that loss beside the cross-entropy.
    """

    margin: float = 1.0
    ranking_weight: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        for field in ("margin", "ranking_weight"):
            if getattr(self, field) < 0:
                raise UserError(f"config.task.{field} must be at least 0, got {getattr(self, field)}")


class RankingObjective(TimelineObjective):
    """Cross-entropy of the scores of the time steps with their targets, and a ranking loss within each clip.

    Attributes:
      target: key of the batch that has the targets, float32 [b,T], 0..1.
    """

    target: ClassVar[str]

    def __init__(self, *, spec: ModelSpec, options: RankingOptions, context: TaskContext):
        """Describe the model and the loss; see `objective.HeadObjective`."""
        super().__init__(spec=spec, options=options, context=context)
        self._options = options

    def loss(
        self, model: TimelineModel, batch: dict[str, jax.Array], *, rngs: nnx.Rngs | None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the loss over the rows that take part, and its terms."""
        logits = self.found(model, batch, rngs=rngs)
        margin = self._options.margin
        terms = saliency_loss(logits, target=batch[self.target], valid=batch["valid"], margin=margin)
        return terms["cross_entropy"] + self._options.ranking_weight * terms["ranking"], terms
