"""Begin a new run with the parameters of another checkpoint, whatever it is trained for."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...base.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from flax import nnx
    from rich.table import Table

    from .transfer import Transfer


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitFrom:
    """Which parameters of a new model come from a checkpoint; `fill` is an `initialize` argument of `train`.

    Attributes:
      checkpoint: a workdir, a checkpoints folder or a step folder; with `read`, anything that it takes.
      parts: regexes over whole parameter paths of the new model: these come from the checkpoint, all others are new.
        None = all that the checkpoint has.
      read: checkpoint -> its parameters by path; None = a checkpoint of a run, of which it takes the averages if any.
      flag: the flag or config field that gives `checkpoint`, for error messages.
      parts_flag: the flag or config field that gives `parts`; "" if the user cannot set them.
      adapts: the new model adapts that of the checkpoint, see `transfer.plan_transfer`.
    """

    checkpoint: Path
    parts: tuple[str, ...] | None = None
    read: "Callable[[Path], Mapping[str, np.ndarray]] | None" = None
    flag: str = "--init"
    parts_flag: str = "--init_parts"
    adapts: bool = False

    def __post_init__(self):
        for pattern in self.parts or ():
            try:
                re.compile(pattern)
            except re.error as error:
                where = self.parts_flag or "parts"
                raise UserError(f"{where}: {pattern!r} is not a regular expression: {error}") from error

    def takes(self, path: str) -> bool:
        """Tell whether the parameter at `path` comes from the checkpoint, if that has it."""
        return self.parts is None or any(re.fullmatch(pattern, path) for pattern in self.parts)

    def to_meta(self) -> dict[str, Any]:
        """Return JSON values that say where a run began."""
        return {"checkpoint": str(self.checkpoint), "parts": None if self.parts is None else list(self.parts)}

    def plan(self, model: "nnx.Module") -> "Transfer":
        """Read the checkpoint and decide for every parameter: loaded, resized, new or unused.

        Args:
          model: the new model, of arrays or of shapes (`nnx.eval_shape`).

        Raises:
          UserError: no readable checkpoint, a regex that matches no parameter, or parameters that do not fit.
        """
        from .checkpoint import read_params, resolve
        from .transfer import plan_transfer, position_resizers, shapes

        target = shapes(model)
        for pattern in self.parts or ():
            if not any(re.fullmatch(pattern, name) for name in target):
                listed = "\n  ".join(sorted(target))
                where = self.parts_flag or "parts"
                raise UserError(f"{where}: {pattern!r} matches no whole path. The parameters are:\n  {listed}")
        path = self.checkpoint if self.read else resolve(self.checkpoint)
        return plan_transfer(
            (self.read or read_params)(path),
            target=target,
            parts=self.parts,
            name=str(path),
            flag=self.flag,
            parts_flag=self.parts_flag,
            resizers=position_resizers(model),
            adapts=self.adapts,
        )

    def table(self, model: "nnx.Module") -> "Table":
        """Return the status of each group of parameters as a table for the terminal; see `plan`."""
        return self.plan(model).table()

    def fill(self, model: "nnx.Module") -> None:
        """Fill a fresh model in place, and print the table on standard error, on the first process; see `plan`.

        `train` calls it for a new run only: a resumed one has the parameters in its own checkpoints.
        """
        import jax
        from rich.console import Console

        from .transfer import fill_planned

        plan = self.plan(model)
        if jax.process_index() == 0:
            Console(stderr=True, soft_wrap=True, highlight=False).print(plan.table())
        fill_planned(model, plan=plan)
