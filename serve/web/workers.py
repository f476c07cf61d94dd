"""Several processes that answer on one port: they share the listening socket, and by the page cache the index."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of the folder in which prometheus_client adds up the metrics of several processes."""

WORKER = "TWINREEL_SERVE_WORKER"
"""Environment variable by which a process knows that it is a worker: its socket and its folder."""

_READY = "ready"


def run_workers(
    command: Sequence[str], *, listening: socket.socket, count: int, ready: Callable[[], None] = lambda: None
) -> int:
    """Start workers and wait for them; if one ends, all end.

    Args:
      command: of a worker; see `worker_of`.
      listening: what they answer on.
      count: how many.
      ready: called once all of them answer.

    Returns:
      The exit status of the first worker that ended; 0 after SIGINT or SIGTERM.
    """
    with tempfile.TemporaryDirectory(prefix="twinreel-serve-") as folder:
        for name in ("uploads", "metrics"):
            (Path(folder) / name).mkdir()
        given = json.dumps({"fd": listening.fileno(), "family": listening.family, "uploads": f"{folder}/uploads"})
        environment = os.environ | {WORKER: given, MULTIPROCESS: f"{folder}/metrics"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        workers = [
            subprocess.Popen(command, env=environment, pass_fds=[listening.fileno()], **pipes) for _ in range(count)
        ]
        ended, stopped = threading.Event(), threading.Event()

        def stop(*_: object) -> None:
            stopped.set()
            ended.set()

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for worker in workers:
                threading.Thread(target=lambda one=worker: (one.wait(), ended.set()), daemon=True).start()
            if all(worker.stdout is not None and worker.stdout.readline().strip() == _READY for worker in workers):
                ready()
            ended.wait()
            first = next((worker.poll() for worker in workers if worker.poll() is not None), 0) or 0
            return 0 if stopped.is_set() else abs(first) or 1
        finally:
            _end(workers)
            for number, handler in before.items():
                signal.signal(number, handler)


def _end(workers: Sequence[subprocess.Popen]) -> None:
    """End the workers, and wait until they have ended."""
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
    for worker in workers:
        try:
            worker.wait(15)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                pipe.close()


def worker_of(environment: Mapping[str, str]) -> tuple[socket.socket, Path] | None:
    """Return the socket and the folder of uploads of a worker; None in any other process."""
    if WORKER not in environment:
        return None
    given = json.loads(environment[WORKER])
    return socket.socket(given["family"], socket.SOCK_STREAM, fileno=given["fd"]), Path(given["uploads"])


def tell_ready(stop: Callable[[], None]) -> None:
    """Tell the process that started this worker that it answers, and call `stop` when that process is gone."""
    print(_READY, flush=True)

    def watch() -> None:
        sys.stdin.read()  # ends with the other end of the pipe
        stop()

    threading.Thread(target=watch, daemon=True).start()
