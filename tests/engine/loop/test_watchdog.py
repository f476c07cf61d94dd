"""A run that stands still: in processes of their own, as the watchdog ends the process."""

import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from processes import LIMIT_S

from twinreel.engine.loop.watchdog import PATIENCE, STATUS, Watchdog


@pytest.fixture
def start(start_all):
    """Start workers, each by itself, on one workdir."""
    return lambda **flags: start_all("run", **flags)[0]


def test_a_batch_that_never_comes_ends_the_process_with_all_stacks(start, tmp_path):
    process = start(hang_at=5, stall_timeout=5.0)
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == STATUS
    assert f"stalled: process 0 on {socket.gethostname()} has been at step 6 for" in err
    assert "steps done: 5" in err
    (file,) = (tmp_path / "run" / "stalls").iterdir()
    text = file.read_text()
    assert file.name.startswith(f"{socket.gethostname()}-0-")
    for place in ("wait_for_a_batch_that_never_comes", "train.py", "batches.py"):  # the reader, and who waits for it
        assert place in text and place in err
    assert text.count("hread 0x") >= 3


@pytest.mark.slow
def test_a_partner_that_stands_still_ends_the_other(start, tmp_path):
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    flags = {"fsdp": 4, "coordinator": f"localhost:{port}", "num_processes": 2, "steps": 1000, "stall_timeout": 8.0}
    flags |= {"seconds_per_batch": 0.1, "checkpoint_every": 1000}
    first, second = (start(process_id=i, **flags) for i in range(2))
    metrics, end = tmp_path / "run" / "metrics.jsonl", time.monotonic() + LIMIT_S
    while not (metrics.is_file() and metrics.read_text().count("loss") >= 7):
        assert first.poll() is None, first.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.05)
    second.send_signal(signal.SIGSTOP)
    _, err = first.communicate(timeout=LIMIT_S)
    assert first.returncode == STATUS, err
    assert "stalled: process 0" in err


def watched(tmp_path, **options):
    """A watchdog that says when it would end the process."""
    ended = threading.Event()
    statuses = []

    def leave(status):
        statuses.append(status)
        ended.set()

    return Watchdog(tmp_path, leave=leave, **options), ended, statuses


def test_beats_keep_it_quiet_and_their_end_does_not(tmp_path, capfd):
    dog, ended, statuses = watched(tmp_path, timeout_s=3.0)
    with dog:
        for step in range(35):  # longer than the limit in all
            dog.beat(step)
            assert not ended.wait(0.1)
        assert ended.wait(LIMIT_S)
    assert statuses == [STATUS] and "at step 35" in capfd.readouterr().err


def test_patience_is_longer_and_ends_as_well(tmp_path, capfd):
    dog, ended, _ = watched(tmp_path, timeout_s=0.1)
    with dog:
        dog.beat(3)
        with dog.patient("the evaluation"):
            start = time.monotonic()
            assert ended.wait(LIMIT_S)
            assert time.monotonic() - start >= 0.1 * PATIENCE
    assert "at the evaluation for" in capfd.readouterr().err


def test_zero_turns_it_off(tmp_path):
    before = threading.active_count()
    dog, ended, _ = watched(tmp_path, timeout_s=0.0)
    with dog:
        assert threading.active_count() == before and not ended.wait(0.3)


def test_a_folder_that_cannot_be_written_does_not_keep_it_from_ending(tmp_path, capfd):
    (tmp_path / "stalls").write_text("")
    dog, ended, statuses = watched(tmp_path, timeout_s=0.05)
    with dog:
        assert ended.wait(LIMIT_S)
    assert statuses == [STATUS] and "could not be written" in capfd.readouterr().err


def test_code_that_holds_pythons_lock_is_ended_by_faulthandler(tmp_path):
    code = f"""
import ctypes, time
from pathlib import Path
from twinreel.engine.loop.watchdog import Watchdog
with Watchdog(Path({str(tmp_path)!r}), timeout_s=1.0) as dog:
    dog.beat(0)
    time.sleep(0.5)
    ctypes.PyDLL(None).sleep(100)  # PyDLL keeps the lock
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 1
    assert "Timeout" in done.stderr and 'File "<string>", line 8 in <module>' in done.stderr
    assert f"status {STATUS}" not in done.stderr  # the watchdog's own thread never had the lock
