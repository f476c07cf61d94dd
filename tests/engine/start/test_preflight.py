"""The checks before the first step: alone, and between two real processes of which one has a fault."""

import dataclasses
import hashlib
import json
import shutil
import socket
from collections import namedtuple
from pathlib import Path

import engine_toy
import jax
import numpy as np
import pytest
from forks import Forked

from twinreel.base.errors import UserError
from twinreel.engine.start.code import source_hash
from twinreel.engine.start.preflight import Checks, on_all, preflight, same_programs

HOST = socket.gethostname()


def checks(workdir, **changes):
    made = Checks(config=engine_toy.config(), workdir=workdir, state=np.zeros(4), readable=lambda: None)
    return dataclasses.replace(made, **changes)


def test_one_process_says_what_it_found_and_leaves_nothing(tmp_path):
    line = preflight(checks(tmp_path / "runs" / "new"), timeout_s=5.0)
    assert line.startswith(f"preflight: 1 process on 1 host, {jax.device_count()} x cpu, config ")
    assert line.endswith(f"code {source_hash(None)}, data readable, workdir writable")
    assert not (tmp_path / "runs" / "new").exists()


def test_data_that_cannot_be_read(tmp_path):
    def fail():
        raise FileNotFoundError(2, "No such file or directory", "shard 3")

    with pytest.raises(UserError, match=rf"process 0 on {HOST}: the data cannot be read: .*shard 3"):
        preflight(checks(tmp_path, readable=fail), timeout_s=5.0)


def test_a_workdir_that_is_a_file(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match=r"the workdir .*run cannot be written to"):
        preflight(checks(tmp_path / "run"), timeout_s=5.0)


def test_a_workdir_that_may_not_be_looked_at(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(UserError, match=r"the workdir .*run cannot be written to \(Permission denied\)"):
        preflight(checks(tmp_path / "run"), timeout_s=5.0)


def test_a_disk_without_room_for_a_checkpoint(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 4_000_000, 4_000_000))
    fits, too_large = (jax.ShapeDtypeStruct((n,), np.float32) for n in (1_000_000, 1_000_001))
    preflight(checks(tmp_path, state=fits), timeout_s=5.0)
    with pytest.raises(UserError, match=r"has 0\.00 GB free, and a checkpoint takes 0\.00 GB; make room"):
        preflight(checks(tmp_path, state=too_large), timeout_s=5.0)


def test_the_fingerprint_of_a_program():
    assert same_programs(["module {}"], timeout_s=1.0) == [hashlib.sha256(b"module {}").hexdigest()[:12]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What processes 0 and 1 of `worker_preflight.py` were told, by scenario."""
    folder = tmp_path_factory.mktemp("preflight")
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    flags = [f"--workdir={folder}", f"--coordinator=localhost:{port}"]
    started = [Forked("worker_preflight", [*flags, f"--process_id={i}"]) for i in range(2)]
    try:
        said = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
            process.communicate()
    assert [process.returncode for process in started] == [0, 0], said
    assert sorted(path.name for path in folder.iterdir()) == ["answers-0.json", "answers-1.json"]
    return [json.loads((folder / f"answers-{i}.json").read_text()) for i in range(2)]


def test_two_good_processes(answers):
    first, second = (answer["good"] for answer in answers)
    assert first == second
    assert first.startswith("preflight: 2 processes on 1 host, 2 x cpu, config ")
    assert "workdir shared, clocks within 0" in first


@pytest.mark.parametrize(
    ("scenario", "wanted"),
    [
        ("config", f"process 1 on {HOST} has another config (process 0 -> here): optimizer.lr: 0.05 -> 0.1; "
                   "train.steps: 12 -> 13"),
        ("data", f"process 1 on {HOST}: the data cannot be read: record 7 of split 'train' is damaged"),
        ("workdir", "is another folder here than for process 0"),
        ("clock", f"process 1 on {HOST}: its clock is 120 s ahead of the others'"),
        ("on_all", f"process 1 on {HOST}: record 7 of split 'train' is damaged"),
        ("on_all_same", f"process 1 on {HOST} has made something else of the data than process 0 on {HOST}: "),
        ("program", f"process 1 on {HOST} has lowered another program than process 0 on {HOST}"),
    ],
)  # fmt: skip
def test_a_fault_of_one_process_is_told_to_both(answers, scenario, wanted):
    first, second = (answer[scenario] for answer in answers)
    assert first == second
    assert first.startswith("error: ") and wanted in first


def test_equal_programs_pass(answers):
    assert [answer["same_program"] for answer in answers] == [[hashlib.sha256(b"program a").hexdigest()[:12]]] * 2


def test_each_process_gets_what_it_made(answers):
    assert [answer["on_all_good"] for answer in answers] == ["a", "b"]


def test_what_one_process_cannot_make_is_its_own_error():
    def fail():
        raise NotADirectoryError(20, "Not a directory", "x/run")

    with pytest.raises(UserError, match=r"^\[Errno 20\] Not a directory: 'x/run'$"):
        on_all("data", fail, timeout_s=1.0)
    assert on_all("data", lambda: 7, timeout_s=1.0) == 7


def test_a_process_that_does_not_come_is_named(answers):
    assert f"process 1 on {HOST} did not reach the check 'start' within 2 s" in answers[0]["late"]
    assert answers[1]["late"] == answers[0]["late"]  # it learns of it when it comes


def test_a_process_that_is_lost_between_two_checks_is_named(answers):
    assert f"process 1 on {HOST} did not reach the check 'clock' within 2 s" in answers[0]["lost_between"]
    assert answers[1]["lost_between"] == answers[0]["lost_between"]


def test_a_process_that_gets_no_answer_says_whose_and_how_long_it_waited(answers):
    wanted = f"process 1 on {HOST} had no answer from process 0 on {HOST} within 2 s; look what process 0 says"
    assert wanted in answers[1]["without_answer"]
