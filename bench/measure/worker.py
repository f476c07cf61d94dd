"""A process that measures one side of a comparison, a pass for each line that it is sent."""

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from ...base.errors import UserError


class WorkerEnded(UserError):
    """A worker has ended by itself.

    Attributes:
      status: its exit status.
    """

    def __init__(self, message: str, *, status: int):
        super().__init__(message)
        self.status = status


class Worker:
    """Starts a process that prints its facts as a line of JSON, then figures for each line of standard input.

    Args:
      command: to start.
      name: of the side, for messages.
      hint: what may be wrong if it cannot be started or ends, for messages.
    """

    def __init__(self, command: Sequence[str], *, name: str, hint: str = ""):
        self._command, self._name, self._hint = list(command), name, hint

    def __enter__(self) -> "Worker":
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, text=True)
        except OSError as error:
            raise UserError(f"{self._name} cannot be run: {error}{self._hint}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def facts(self) -> dict[str, Any]:
        """Read what the worker prints when it is ready; called once.

        Raises:
          WorkerEnded: it is not running any more.
        """
        return json.loads(self._line())

    def run(self, order: str) -> tuple[float, ...]:
        """Send a line and return the figures that come back.

        Raises:
          WorkerEnded: it is not running any more.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
        return tuple(map(float, self._line().split()))

    def _line(self) -> str:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            status = self._process.wait()
            message = f"{self._name} ended with status {status}; its own message is above{self._hint}"
            raise WorkerEnded(message, status=status)
        return line
