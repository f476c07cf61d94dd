"""Starts workers without the 1.6 CPU seconds of imports that each would take: `fork_server.py` forks them."""

import atexit
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


class Forked:
    """A worker that runs, with what tests use of `subprocess.Popen`.

    Args:
      worker: a module of this folder, whose `main()` the process runs.
      arguments: its command line.
    """

    def __init__(self, worker, arguments):
        name = _server().folder / str(next(_NUMBERS))
        self.returncode, self._out, self._err = None, name.with_suffix(".out"), name.with_suffix(".err")
        files = {"out": str(self._out), "err": str(self._err)}
        self.pid = _server().ask(worker=worker, arguments=arguments, environment=dict(os.environ), **files)

    def poll(self):
        """Return the exit status, or minus the number of the signal that ended it; None while it runs."""
        if self.returncode is None:
            self.returncode = _server().ask(poll=self.pid)
        return self.returncode

    def communicate(self, timeout=None):
        """Wait for its end; returns what it wrote to standard output and standard error."""
        end = time.monotonic() + timeout if timeout is not None else float("inf")
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"worker {self.pid}", timeout)
            time.sleep(0.01)
        return self._out.read_text(), self._err.read_text()

    def send_signal(self, number):
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """End it with SIGKILL."""
        self.send_signal(signal.SIGKILL)


class _Server:
    def __init__(self):
        self._files = tempfile.TemporaryDirectory(prefix="twinreel-forks-")
        self.folder = Path(self._files.name)
        command = [sys.executable, "-W", "error", str(Path(__file__).with_name("fork_server.py"))]
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1"}  # BLAS starts threads
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        atexit.register(self.close)

    def ask(self, **request):
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.communicate()
        self._files.cleanup()


_NUMBERS = itertools.count()


@functools.cache
def _server():
    return _Server()
