"""Where a run is in its data: the examples that it has seen decide, whatever the batch size was."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Position:
    """How steps and batches of the data are counted since this start.

    Attributes:
      step: the number of steps done when it began.
      batch: the number of the next global batch then, in batches of this start's size.
      batch_size: rows of a global batch; None if the config does not say.
      note: for the user, "" if nothing has changed.
    """

    step: int
    batch: int
    batch_size: int | None = None
    note: str = ""

    @classmethod
    def of(cls, meta: Mapping[str, Any], *, step: int, batch_size: int | None) -> "Position":
        """Continue after the examples that a checkpoint's meta counts; with another batch size than before, too.

        Args:
          meta: of the checkpoint; {} at the start of a run.
          step: the number of steps done.
          batch_size: `config.data.batch_size` of this start.
        """
        if batch_size is None or "examples" not in meta:
            return cls(step=step, batch=step, batch_size=batch_size)
        seen, before = meta["examples"], meta["batch_size"]
        batch = -(-seen // batch_size)
        note = ""
        if batch_size != before:
            left_out = batch * batch_size - seen
            note = f"batches of {batch_size} instead of {before} rows continue after the {seen} examples seen so far"
            note += f"; {left_out} are left out, so that a batch begins there" if left_out else ""
        return cls(step=step, batch=batch, batch_size=batch_size, note=note)

    @property
    def offset(self) -> int:
        """What to add to a number of steps for the number of batches in the data."""
        return self.batch - self.step

    def to_meta(self, step: int) -> dict[str, Any]:
        """Return what `of` reads, after `step` steps."""
        if self.batch_size is None:
            return {}
        return {"examples": (step + self.offset) * self.batch_size, "batch_size": self.batch_size}
