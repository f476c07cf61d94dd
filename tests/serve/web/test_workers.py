"""Several processes on one port: their supervisor, the uploads that they share, metrics that add up."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.serve.search.query import Term, Wanted
from twinreel.serve.web import uploads as module
from twinreel.serve.web.uploads import Uploads
from twinreel.serve.web.workers import run_workers, worker_of

ANSWERS = """
import os, sys
from twinreel.serve.web.workers import tell_ready, worker_of
listening, folder = worker_of(os.environ)
(folder / str(os.getpid())).touch()
if len(sys.argv) > 1:
    sys.exit(int(sys.argv[1]))
tell_ready(lambda: os._exit(0))
while True:
    connection, _ = listening.accept()
    connection.sendall(f"{os.environ['PROMETHEUS_MULTIPROC_DIR']} {folder}".encode())
    connection.close()
"""


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_workers_answer_on_one_port_until_a_signal(listening):
    seen = []

    def ready():
        for _ in range(4):
            with socket.create_connection(listening.getsockname(), timeout=20) as connection:
                seen.append(connection.recv(1000).decode())
        metrics, uploads = seen[0].split()
        seen.append([path.name for path in Path(uploads).iterdir()])
        assert Path(metrics).is_dir()
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    assert run_workers([sys.executable, "-c", ANSWERS], listening=listening, count=2, ready=ready) == 0
    assert len(set(seen[:4])) == 1 and len(seen[4]) == 2  # of two processes
    assert not Path(seen[0].split()[0]).exists() and signal.getsignal(signal.SIGTERM) is before
    for process in seen[4]:
        with pytest.raises(ProcessLookupError):
            os.kill(int(process), 0)


def test_a_worker_that_ends_ends_all(listening):
    command = [sys.executable, "-c", ANSWERS, "3"]
    assert run_workers(command, listening=listening, count=2, ready=pytest.fail) == 3
    assert worker_of({"PATH": ""}) is None


def wanted(number):
    return Wanted(term=Term(kind="like", value=f"{number}.mp4"), vectors=np.full((2, 3), number, np.float32))


@pytest.mark.parametrize("shared", [False, True])
def test_uploads_are_remembered_and_the_oldest_forgotten(tmp_path, monkeypatch, shared):
    monkeypatch.setattr(module, "KEPT", 3)
    one = Uploads(tmp_path if shared else None)
    other = Uploads(tmp_path) if shared else one
    keys = []
    for number in range(5):
        keys.append(one.add(wanted(number)))
        if shared:
            os.utime(tmp_path / f"{keys[-1]}.npz", ns=(number, number))
    found = other.get(keys[4], weight=-0.5)
    assert found.term == Term(kind="like", value="4.mp4", weight=-0.5) and found.vectors.tolist() == [[4] * 3] * 2
    (tmp_path / "secret.npz").write_bytes(b"")
    for key in (keys[0], "", "../secret", "secret", f"../{keys[4]}", keys[4] + "\n"):
        with pytest.raises(UserError, match="not remembered"):
            other.get(key, weight=1.0)


COUNTS = """
from twinreel.serve.web.metrics import Metrics
metrics = Metrics()
metrics.answered(method="GET", route="/a", status=200, seconds=0.1)
metrics.watch("text").batch(4, 0.1)
print(metrics.text({"files": 8, "moments": 30}).decode())
"""


def test_metrics_of_several_processes_add_up(tmp_path):
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    texts = [
        subprocess.run(
            [sys.executable, "-c", COUNTS], env=environment, check=True, capture_output=True, text=True
        ).stdout
        for _ in range(2)
    ]
    sample = 'twinreel_requests_total{method="GET",route="/a",status="200"}'
    assert f"{sample} 1.0" in texts[0] and f"{sample} 2.0" in texts[1]
    assert 'twinreel_encode_batch_rows_sum{side="text"} 8.0' in texts[1]
    assert 'twinreel_index_size{of="moments"} 30.0' in texts[1]
