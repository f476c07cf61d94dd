"""The interface between fine-tuning and a downstream task."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from flax import nnx

if TYPE_CHECKING:
    from ...data.batches.targets import Targets
    from ...zoo.spec import ModelSpec
    from ..examples.clips import LabelledClips
    from ..inputs.feed import Feed

VALIDATION = "val"
"""Name of the evaluation on the validation clips: its results are logged as `val/…`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerOptions:
    """The fields of `config.task` that decide what is trained besides the head.

    Attributes:
      train_towers: train the towers too; False = the head alone, on frozen features.
      trainable: regexes found in the parameter paths that are trained besides the head, for a tower that is open in
        part (`^video/time/`); overrides `train_towers`.
      cache_features: compute the features of frozen towers once per clip and keep them on disk, wherever clips are
        shown without augmentation; the results are the same.
      features_dir: folder for them, which several runs may share; "" = `features/` in the workdir.
    """

    train_towers: bool = False
    trainable: tuple[str, ...] = ()
    cache_features: bool = True
    features_dir: str = ""


class TaskObjective(Protocol):
    """An `engine.step.objective.Objective` that knows the spec of its model."""

    @property
    def spec(self) -> "ModelSpec":
        """What `init` builds: towers, input, heads."""
        ...

    @property
    def trainable(self) -> tuple[str, ...]:
        """See `engine.step.objective.Objective`."""
        ...

    @property
    def frozen(self) -> bool:
        """Whether no parameter of the towers is trained, so that their features can be computed once."""
        ...

    def init(self, rngs: nnx.Rngs) -> nnx.Module:
        """See `engine.step.objective.Objective`."""
        ...

    def abstract(self) -> nnx.Module:
        """Return the model of shapes, as `zoo.build.abstract` does."""
        ...

    def loss(self, model: Any, batch: Any, *, rngs: nnx.Rngs) -> tuple[Any, dict[str, Any]]:
        """See `engine.step.objective.Objective`; where the tower is frozen a batch may hold `tokens` for `video`."""
        ...


class Task(Protocol):
    """A downstream task; `finetune.commands.finetune` knows nothing else of it."""

    @property
    def options(self) -> TowerOptions:
        """`config.task`; a subclass of `TowerOptions`."""
        ...

    @property
    def objective(self) -> TaskObjective:
        """The model (towers and head), its loss and which of its parameters are trained."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """Regexes over whole parameter paths of the model: these come from the checkpoint, all others are new."""
        ...

    @property
    def targets(self) -> "Targets | None":
        """What the task needs of a batch besides clip and label, such as windows, questions or spans."""
        ...

    @property
    def feed(self) -> "Feed":
        """Where its batches come from."""
        ...

    @property
    def metric(self) -> str:
        """The result that chooses the best checkpoint, as it is logged; "" where there is nothing to evaluate on."""
        ...

    @property
    def validated_on(self) -> str:
        """Describes the validation clips, for the protocol; "" without any."""
        ...

    def trained_on(self) -> "LabelledClips":
        """Return the clips that are trained on."""
        ...

    def evaluated_on(self) -> "list[LabelledClips]":
        """Return the sets of clips that are evaluated, during training or for the report."""
        ...

    def batches(self, start_step: int) -> Iterator[dict[str, np.ndarray]]:
        """Return the endless train batches from this step on: the towers' input and the targets."""
        ...

    def evaluate(self, model: nnx.Module, step: int) -> dict[str, float]:
        """Measure the model on the validation clips; called by the loop only if `metric` is not ""."""
        ...

    def settled(self) -> dict[str, Any]:
        """Return `config.task` with the values that the data determined (such as the label set), for `config.json`."""
        ...

    def report(self, model: nnx.Module, *, out: Path, protocol: dict[str, Any]) -> dict[str, Any]:
        """Measure the chosen model on the test split, write the report into `out`, print its table, return its JSON."""
        ...
