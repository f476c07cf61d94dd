"""Phases of a run: an objective whose loss changes at a known step, and a compiled step for each phase."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax

from ..start.collectives import compile_lowered
from .objective import Objective


def phase_of(objective: Objective, *, step: int) -> Hashable | None:
    """Return the phase of the step that follows `step` done ones; None for an objective without phases."""
    phase = getattr(objective, "phase", None)
    return None if phase is None else phase(step)


def count_phases(objective: Objective, *, steps: range) -> dict[Hashable | None, int]:
    """Return the phases of these steps in the order in which they begin, and how many steps each has."""
    if not hasattr(objective, "phase"):
        return {None: len(steps)} if steps else {}
    return dict(Counter(phase_of(objective, step=step) for step in steps))


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
        lowered = {phase: lower(phase) for phase in count_phases(objective, steps=steps)}
        check(list(lowered.values()))
        self._compiled = {phase: compile_lowered(program) for phase, program in lowered.items()}

    def at(self, step: int) -> Any:
        """Return the compiled step that follows `step` done ones."""
        return self._compiled[phase_of(self._objective, step=step)]
