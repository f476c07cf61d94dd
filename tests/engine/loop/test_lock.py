"""One writer per workdir."""

import contextvars
import errno
import fcntl
import json
import os
import socket
import threading
import time

import pytest
from engine_toy import ToyObjective, batches, config
from processes import finish, steps_logged, suspend, wait_for

from twinreel.base.errors import UserError
from twinreel.engine.loop import lock
from twinreel.engine.loop.lock import FILE, writing_alone
from twinreel.engine.loop.train import train

BEAT_S = 0.05


def hold(workdir, *, said=None):
    return writing_alone(workdir, timeout_s=10, say=(said if said is not None else []).append, beat_s=BEAT_S)


def start_again(workdir):
    """Try to hold the lock as whoever does not hold it already."""

    def enter():
        with hold(workdir):
            pass

    contextvars.Context().run(enter)


def owner(**changes):
    """What a run that still writes has left in its lock file."""
    return {"host": "elsewhere", "pid": 4711, "created": 1.0, "started": "2026-01-01 00:00:00", "beat": 3} | {
        "beat_s": BEAT_S,
        **changes,
    }


def leave(workdir, **changes):
    workdir.mkdir(exist_ok=True)
    (workdir / FILE).write_text(json.dumps(owner(**changes)))


def test_a_second_writer_is_refused_with_the_first_ones_name(tmp_path):
    with hold(tmp_path / "run"):
        written = json.loads((tmp_path / "run" / FILE).read_text())
        assert (written["host"], written["pid"]) == (socket.gethostname(), os.getpid())
        with pytest.raises(UserError) as caught:
            start_again(tmp_path / "run")
        message = str(caught.value)
        assert f"another run is writing to workdir {tmp_path / 'run'}" in message
        assert f"process {os.getpid()} on {socket.gethostname()}, started 20" in message
        assert "--distributed" in message
        assert (tmp_path / "run" / FILE).is_file()  # the first one's lock is as it was
        start_again(tmp_path / "other")
    start_again(tmp_path / "run")
    assert not (tmp_path / "run").exists()  # it was made for the lock alone


def test_its_owner_may_enter_it_again_and_no_other_thread(tmp_path):
    def other():
        with pytest.raises(UserError, match="another run is writing to workdir"), hold(tmp_path / "run"):
            pass
        refused.append(True)

    refused = []
    with hold(tmp_path / "run"):
        with hold(tmp_path / "run"):
            assert (tmp_path / "run" / FILE).is_file()
        assert (tmp_path / "run" / FILE).is_file()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert refused and not (tmp_path / "run").exists()


def test_a_folder_that_was_there_stays(tmp_path):
    (tmp_path / "file").write_text("kept")
    with hold(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("left", ["", "{", "{}", None])
def test_what_a_dead_process_left_does_not_block(tmp_path, left):
    """Its number may be another process's by now: 1 is alive."""
    text = json.dumps(owner(host=socket.gethostname(), pid=1)) if left is None else left
    (tmp_path / FILE).write_text(text)
    said = []
    with hold(tmp_path, said=said):
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()
    assert said == []


def test_an_owner_on_another_host_is_watched_where_locks_are_not_shared(tmp_path):
    leave(tmp_path)
    stop = threading.Event()

    def beat():
        number = 3
        while not stop.wait(BEAT_S):
            number += 1
            (tmp_path / FILE).write_text(json.dumps(owner(beat=number)))

    thread = threading.Thread(target=beat)
    thread.start()
    said = []
    try:
        with pytest.raises(UserError, match="process 4711 on elsewhere"), hold(tmp_path, said=said):
            pass
    finally:
        stop.set()
        thread.join()
    assert "was left by process 4711 on elsewhere" in said[0]
    leave(tmp_path)  # the same file, and nobody writes it
    with hold(tmp_path):
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()


def no_locks(file, how):
    raise OSError(errno.ENOTSUP, "Operation not supported")


def test_a_file_system_without_locks_knows_processes_by_number_and_start(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", no_locks)
    parent = lock.psutil.Process(os.getppid())
    here = {"host": socket.gethostname(), "pid": parent.pid}
    leave(tmp_path, **here, created=parent.create_time())
    with pytest.raises(UserError, match=f"process {parent.pid} on"), hold(tmp_path):
        pass
    leave(tmp_path, **here, created=parent.create_time() - 100)  # another process had that number
    with hold(tmp_path):
        pass
    leave(tmp_path, host=socket.gethostname(), pid=2**22 + 7)
    with hold(tmp_path):
        pass


def test_a_lock_that_its_owner_removes_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    """Between opening and locking, the last owner may have unlinked the file: that lock would keep nobody out."""
    real, calls = fcntl.flock, []

    def flock(file, how):
        calls.append(file)
        if len(calls) == 1:
            (tmp_path / FILE).unlink()
        return real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with hold(tmp_path):
        monkeypatch.undo()
        assert len(calls) == 2
        with pytest.raises(UserError, match="another run is writing"):
            start_again(tmp_path)


def test_a_workdir_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    message = r"the workdir .*/file/run cannot be written to \(Not a directory\)"
    with pytest.raises(UserError, match=message), hold(tmp_path / "file" / "run"):
        pass


def test_the_owner_goes_on_beating(tmp_path):
    with hold(tmp_path):
        seen, end = set(), time.monotonic() + 60
        while len(seen) < 3:
            assert time.monotonic() < end, "the beat stands still"
            time.sleep(BEAT_S / 5)
            seen.add(json.loads((tmp_path / FILE).read_text())["beat"])


def test_a_second_start_is_refused_and_leaves_the_first_alone(start_all, tmp_path):
    """Also while the first is stopped in the middle, and whatever its config; a killed one gives the workdir free."""
    run, flags = tmp_path / "run", {"devices": 1, "steps": 20, "seconds_per_batch": 0.1}
    (first,) = start_all("run", **flags)
    wait_for(lambda: steps_logged(run) >= 4, process=first)
    suspend(first)
    (run / "checkpoints" / "99.orbax-checkpoint-tmp").mkdir()  # as if it were saving
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    (second,) = start_all("run", **flags)
    assert f"another run is writing to workdir {run}: process {first.pid} on" in finish(second, status=2)
    with pytest.raises(UserError, match="another run is writing to workdir"):
        train(objective=ToyObjective(), batches=batches, workdir=run, config=config(seed=9), meta={},
              overwrite_config=True)  # fmt: skip
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert (run / "checkpoints" / "99.orbax-checkpoint-tmp").is_dir()
    first.kill()
    first.communicate()
    (third,) = start_all("run", **flags | {"seconds_per_batch": 0.0})
    assert finish(third)["step"] == 20
    assert not (run / FILE).exists()
