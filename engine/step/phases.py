"""Phases of a run: an objective whose loss changes at a known step, and a compiled step for each phase."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax

from .objective import Objective


def phase_of(objective: Objective, *, step: int) -> Hashable | None:
    """Return the phase of the step that follows `step` done ones; None for an objective without phases."""
    phase = getattr(objective, "phase", None)
    return None if phase is None else phase(step)


class PhasedSteps:
    """The compiled steps of all phases that are still to come.

    All are compiled before the first step, so that a phase that does not compile, or does not fit into memory, is
    known then and not when the run reaches it.
    """

    def __init__(
        self,
        lower: Callable[[Hashable | None], jax.stages.Lowered],
        *,
        objective: Objective,
        steps: range,
        check: Callable[[Sequence[jax.stages.Lowered]], None] = lambda lowered: None,
    ):
        """Lower, check, compile.

        Args:
          lower: phase -> lowered step.
          objective: may have `phase`.
          steps: the numbers of the steps to do.
          check: is shown the lowered steps of all phases before any is compiled; raises if they must not be.
        """
        self._objective = objective
        phases = dict.fromkeys(phase_of(objective, step=step) for step in self._asked(steps))
        lowered = {phase: lower(phase) for phase in phases}
        check(list(lowered.values()))
        self._compiled = {phase: program.compile() for phase, program in lowered.items()}

    def at(self, step: int) -> Any:
        """Return the compiled step that follows `step` done ones."""
        return self._compiled[phase_of(self._objective, step=step)]

    def _asked(self, steps: range) -> range:
        """All steps, or only the first where the objective has no phases."""
        return steps if hasattr(self._objective, "phase") else steps[:1]
