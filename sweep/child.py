"""The process of a trial: a verb that is asked to stop, as by SIGTERM, when the sweep that started it is gone.

    python -m twinreel.sweep.child DESCRIPTOR VERB FLAGS...

DESCRIPTOR is the reading end of a pipe whose other end the sweep holds: it closes when the sweep ends, even by kill -9.
"""

import os
import runpy
import signal
import sys
import threading


def main(argv: list[str]) -> None:
    """Run the verb as `python -m twinreel` does."""
    descriptor, *rest = argv
    threading.Thread(target=_follow, args=(int(descriptor),), daemon=True).start()
    package = __name__.partition(".")[0] if __name__ != "__main__" else str(__package__).partition(".")[0]
    sys.argv = [package, *rest]
    runpy.run_module(package, run_name="__main__", alter_sys=True)


def _follow(descriptor: int) -> None:
    """Wait until the pipe closes, then ask this process to stop."""
    while os.read(descriptor, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1:])
