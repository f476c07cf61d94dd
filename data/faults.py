"""Faults of a file, collected so that a user sees all of them at once."""

from ..base.errors import UserError

_SHOWN = 20  # faults in full; the others are counted


class Faults:
    """Collects the faults of one source; `check` raises them together."""

    def __init__(self, source: str):
        """Begin without a fault; `source` names the file in the message."""
        self._source, self._count, self._first = source, 0, list[str]()

    def add(self, fault: UserError) -> None:
        """Add a fault, whose message names its own place."""
        self._count += 1
        if len(self._first) < _SHOWN:
            self._first.append(str(fault))

    def check(self) -> None:
        """Raise the faults.

        Raises:
          UserError: there is at least one. A single fault is raised as it is; of several the first 20 are listed, and
            the others are counted.
        """
        if self._count == 1:
            raise UserError(self._first[0])
        if self._count:
            more = self._count - len(self._first)
            lines = [*self._first, *([f"and {more:,} more"] if more else [])]
            raise UserError(f"{self._source} has {self._count:,} faults:\n  " + "\n  ".join(lines))
