"""A process that has imported what workers need, and forks one for each line of standard input; see `forks.py`.

It has one thread and no jax backend, so a fork loses nothing. Each child leaves `serve` and runs its worker's `main`.
It ends as any Python process does: by an exit status or a signal, with its `atexit` functions called.
"""

import gc
import importlib
import json
import os
import sys
from pathlib import Path

PRELOADED = (
    "contrastive_toy",
    "engine_toy",
    "jax.experimental.multihost_utils",
    "twinreel.engine.loop.train",
    "twinreel.engine.remote.place",
    "twinreel.engine.start.preflight",
)


def serve():
    """Answer requests until standard input ends; returns in a child what it is to do, and None in the server."""
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            threads = list(Path("/proc/self/task").iterdir())
            assert len(threads) == 1, f"{len(threads)} threads where a fork keeps one"
            answer = os.fork()
            if answer == 0:
                return request
        print(json.dumps(answer), flush=True)
    return None


def become(worker, *, arguments, environment, out, err):
    """Take a worker's place: its streams, environment and arguments; returns its `main`."""
    for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, out, os.O_WRONLY), (2, err, os.O_WRONLY)):
        file = os.open(path, flags | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [str(Path(__file__).with_name(f"{worker}.py")), *arguments]
    return importlib.import_module(worker).main


def main():
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    request = serve()
    return 0 if request is None else become(**request)()


if __name__ == "__main__":
    sys.exit(main())
