"""What the kinds of classification share: their clips, their batches and predictions for clips."""

from collections.abc import Iterator

from flax import nnx

from ...encode.predict.predictor import Predictor
from ..examples.clips import LabelledClips
from ..examples.context import TaskContext
from ..examples.splits import Splits
from ..examples.targets import TargetSplits
from ..inputs.feed import Batch, Feed
from .objective import HeadObjective
from .predictions import Predictions, predict_clips


class LabelledTask:
    """The part of a task on labelled clips that does not depend on what the labels are; see `task.Task`."""

    parts = ("video/.*",)
    targets = None
    feed: Feed
    objective: HeadObjective
    splits: Splits | TargetSplits
    _context: TaskContext

    @property
    def validated_on(self) -> str:
        """Describes the validation clips."""
        return self.splits.validated_on

    def trained_on(self) -> LabelledClips:
        """Return the clips that are trained on."""
        return self.splits.train

    def evaluated_on(self) -> list[LabelledClips]:
        """Return the validation clips, if any, and those of the report."""
        return self.splits.sets()

    def batches(self, start_step: int) -> Iterator[Batch]:
        """Return this process's rows of the train batches; see `feed.Feed.train`."""
        return self.feed.train(self.splits.train, start_step=start_step)

    def predictions(self, model: nnx.Module, *, clips: LabelledClips, progress: bool = False) -> Predictions:
        """Return what the model says of the clips that can be read."""
        predictor = Predictor(spec=self.objective.spec, model=model, mesh=self._context.mesh)
        return predict_clips(predictor, clips=clips, feed=self.feed, progress=progress)
