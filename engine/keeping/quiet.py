"""Keeps orbax from reporting an error several times over, before the loop reports it once."""

import functools
import logging
import sys


@functools.cache
def report_once() -> None:
    """Hold back, from now on, what orbax and tensorstore print about errors that they also raise.

    Orbax logs each error with its traceback in every thread that sees it. Of a damaged or full disk's many reads or
    writes the first failure ends the event loop; of the others some then print that the loop is closed, and some are
    logged by asyncio as tasks whose exception nobody asked for.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_not_raised_anyway)
    previous = sys.unraisablehook

    def hook(unraisable) -> None:
        closed = isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"
        if not (closed and unraisable.object is None):  # None: raised in a callback from C++
            previous(unraisable)

    sys.unraisablehook = hook


def _not_raised_anyway(record: logging.LogRecord) -> bool:
    by_orbax = "orbax" in record.pathname or (record.name == "asyncio" and "orbax" in record.getMessage())
    return not by_orbax or record.levelno < logging.ERROR
