"""Begin a new run with the parameters of another checkpoint."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from ...base.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """`--init` and `--init_parts`.

    Attributes:
      checkpoint: a workdir, a checkpoints folder or a step folder.
      parts: regexes over whole parameter paths of the new model: these come from the checkpoint, all others are new.
        None = all that the checkpoint has.
    """

    checkpoint: Path
    parts: tuple[str, ...] | None = None

    def __post_init__(self):
        for pattern in self.parts or ():
            try:
                re.compile(pattern)
            except re.error as error:
                raise UserError(f"--init_parts: {pattern!r} is not a regular expression: {error}") from error

    def takes(self, path: str) -> bool:
        """Tell whether the parameter at `path` comes from the checkpoint, if that has it."""
        return self.parts is None or any(re.fullmatch(pattern, path) for pattern in self.parts)

    def meta(self) -> dict[str, Any]:
        """Return the checkpoint's meta."""
        from .checkpoint import read_meta

        return read_meta(self.checkpoint)

    def to_meta(self) -> dict[str, Any]:
        """Return JSON values that say where a run began."""
        return {"checkpoint": str(self.checkpoint), "parts": None if self.parts is None else list(self.parts)}

    def fill(self, model: Any) -> None:
        """Fill a fresh model in place, and print the table of what came of each group on the first process.

        The checkpoint is read here, so never on a resume.

        Raises:
          UserError: no readable checkpoint, a regex that matches no parameter, or parameters that do not fit.
        """
        import jax

        from .checkpoint import read_params, resolve
        from .transfer import fill, init_from, shapes

        path = resolve(self.checkpoint)
        target = shapes(model)
        for pattern in self.parts or ():
            if not any(re.fullmatch(pattern, name) for name in target):
                listed = "\n  ".join(sorted(target))
                raise UserError(f"--init_parts: {pattern!r} matches no whole path. The parameters are:\n  {listed}")
        plan = init_from(read_params(path), target=target, parts=self.parts, name=str(path), field="--init_parts")
        if jax.process_index() == 0:
            from rich.console import Console

            Console(stderr=True, soft_wrap=True, highlight=False).print(plan.table())
        fill(model, values=plan.values)
