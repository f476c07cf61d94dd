"""SIGTERM and Ctrl-C: finish the step, save, leave."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupted(BaseException):
    """Raised by a signal inside `StopRequest.interrupting`; no `except Exception` swallows it."""


class StopRequest:
    """Context manager that turns SIGTERM and the first SIGINT into `requested`.

    The loop then takes no further step, saves and leaves. A further SIGTERM changes nothing: whoever wants the process
    gone without a checkpoint sends SIGKILL. A second SIGINT interrupts at once.
    """

    def __init__(self):
        self.requested = False
        self._interrupting = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # Python delivers signals to no other
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Let a signal raise Interrupted in the code inside, which may take long and changes no state.

        Raises:
          Interrupted: a signal came, or had come before.
        """
        if self.requested:
            raise Interrupted
        self._interrupting = True
        try:
            yield
        finally:
            self._interrupting = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.requested = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._interrupting:
            self._interrupting = False
            raise Interrupted
