"""What every task is made from."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ...base.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from jax.sharding import Mesh

    from ...data.batches.records import Records
    from ...data.options import DataOptions
    from ...data.text.tokenizer import Tokenizer
    from ...zoo.spec import ModelSpec
    from .clips import LabelledClips


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskContext:
    """What every task is made from.

    Attributes:
      config: the experiment as nested dicts, completed from the checkpoint (see `inherit.complete`).
      data: `config.data`.
      records: the prepared data set.
      tokenizer: that of the checkpoint.
      spec: the checkpoint's towers with the run's changes, the run's input, no heads yet.
      heads: those of the checkpoint, of a fine-tuned model.
      layers: `remat`, `unroll` and `attention` of `config.model`, arguments of `zoo.build.build`.
      mesh: the devices of the run.
      say: prints a line (or a rich table) for the user, on the first process only.
    """

    config: dict[str, Any]
    data: "DataOptions"
    records: "Records"
    tokenizer: "Tokenizer"
    spec: "ModelSpec"
    layers: Mapping[str, Any]
    mesh: "Mesh"
    say: Callable[[Any], None]
    heads: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def tower_spec(self, *sides: str) -> "ModelSpec":
        """Return the spec with these towers only.

        Raises:
          UserError: the checkpoint lacks one of them.
        """
        for side in sides:
            if side not in self.spec.towers:
                raise UserError(
                    f"config.task.name={self.config['task']['name']!r} needs a {side} tower, and the checkpoint has "
                    f"none (it has: {', '.join(self.spec.towers)}); give --init another one"
                )
        return self.spec.replace(towers={side: self.spec.towers[side] for side in sides}, heads={})

    def in_share(self, split: str) -> "np.ndarray | None":
        """Return which records of the train split `config.data.share` takes, bool [n]; None = all. Says how many."""
        from ...data.batches.share import records_of_share

        share = self.data.feed.share
        if share == 1.0:
            return None
        taken = records_of_share(self.records.rows(split), share=share, seed=self.config["seed"])
        self.say(f"config.data.share={share:g}: {taken.sum()} of {len(taken)} clips of split {split!r}, by source file")
        return taken

    def protocol(self, clips: "LabelledClips") -> dict[str, Any]:
        """Return how clips are chosen and shown, for a report on them."""
        rows, shown = self.records.rows(clips.split), self.data.input
        return {
            "dataset": self.records.folder.resolve().name,
            "split": clips.split,
            "clips": len(clips),
            "clips_without_a_listed_label": len(rows) - len(clips),
            "classes": len(clips.labels),
            "frames": shown.num_frames,
            "sampling": shown.eval_sampling,
            "preprocessing": shown.eval_video,
        }
