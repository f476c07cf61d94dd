"""Runs whose workdir is an S3 bucket: cut off anywhere, on two tiers, without room, without metrics."""

import json
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
from engine_toy import ToyObjective, batches, config
from processes import train_lines

from twinreel.base.errors import UserError
from twinreel.engine.keeping import checkpoints as saving
from twinreel.engine.keeping.checkpoint import read_meta, read_params, steps_in
from twinreel.engine.loop.train import train
from twinreel.engine.loop.workdir import load_config_of
from twinreel.engine.remote import ledger, store
from twinreel.engine.remote.copies import local_copy
from twinreel.engine.remote.place import workdir_of
from twinreel.engine.remote.store import Store


def run(workdir, *, feed=batches, **changes):
    """Train the toy in a folder or behind a URL."""
    changes = {"train__log_every": 1, "train__checkpoint_every": 4, **changes}
    workdir = workdir if isinstance(workdir, Path) else workdir_of(workdir)
    return train(objective=ToyObjective(), batches=feed, workdir=workdir, config=config(**changes), meta={})


def cut_at(step):
    """The toy's batches, of which the one of `step` cannot be read."""

    def feed(start):
        for number, batch in enumerate(batches(start), start):
            if number == step:
                raise UserError("no such batch")
            yield batch

    return feed


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """(curve, parameters) of an undisturbed run in a folder."""
    workdir = tmp_path_factory.mktemp("reference") / "run"
    run(workdir)
    return train_lines(workdir)[0], read_params(workdir)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(store, "_WAIT_S", 0.001)


def lose_the_machine(monkeypatch, folder):
    """The next start has another disk, and the process that had the lease is dead."""
    shutil.rmtree(folder / "stages", ignore_errors=True)
    monkeypatch.setattr(ledger, "_runs_here", lambda owner: False)


def assert_is(url, reference):
    """The run at a URL is the undisturbed one, bit for bit."""
    curve, params = reference
    lines = [json.loads(line) for line in fsspec.filesystem("s3").cat(f"{url}/metrics.jsonl").splitlines()]
    assert {line["step"]: line["loss"] for line in lines if line["kind"] == "train"} == curve
    found = read_params(url)
    assert found.keys() == params.keys()
    for path, value in params.items():
        np.testing.assert_array_equal(found[path], value)


def test_cut_off_after_any_request_loses_nothing(bucket, proxy, reference, monkeypatch, tmp_path):
    """From some request on nothing arrives, as after kill -9; the next start is on another machine."""
    monkeypatch.setattr(store, "TRIES", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for number, after in enumerate((20, 43, 60)):  # before the first commit, in the middle of the second, after it
        url, sent = f"{bucket}/run{number}", []

        def fault(method, path, sent=sent, after=after):
            sent.extend([path] if method in ("PUT", "POST", "DELETE") else [])
            return 500 if len(sent) > after else None

        proxy.fault = fault
        with pytest.raises(UserError, match=r"saving checkpoint \d+ of s3://.* failed"):
            run(url)
        proxy.fault = lambda method, path: None
        lose_the_machine(monkeypatch, tmp_path)
        assert run(url).step == 12
        assert_is(url, reference)
        listed = json.loads(fsspec.filesystem("s3").cat(f"{url}/run.json"))["checkpoints"]
        kept = {entry["folder"] for entry in listed.values()}
        assert {"/".join(name.split("/")[:2]) for name in Store(url).find("checkpoints")} == kept
        assert sorted(map(int, listed)) == [8, 12]


def test_two_tiers(bucket, reference, monkeypatch, tmp_path, capsys):
    url = f"{bucket}/run"
    tiers = {"train__local_every": 2, "train__checkpoint_every": 8}
    with pytest.raises(UserError, match="no such batch"):
        run(url, feed=cut_at(7), **tiers)
    stage = workdir_of(url)
    assert steps_in(stage / "checkpoints") == [4, 6]
    with pytest.raises(UserError, match="no checkpoint that is whole"):
        local_copy(url)
    capsys.readouterr()
    with pytest.raises(UserError, match="no such batch"):
        run(url, feed=cut_at(11), **tiers)
    assert "resuming from the checkpoint of step 6" in capsys.readouterr().err
    assert read_meta(url)["step"] == 8  # the disk has 10 as well
    lose_the_machine(monkeypatch, tmp_path)
    run(url, **tiers)
    assert "fetching the checkpoint of step 8" in capsys.readouterr().err
    assert_is(url, reference)
    assert load_config_of(url).train.local_every == 2
    assert local_copy(f"{url}/checkpoints/8") != local_copy(url)
    with pytest.raises(UserError, match=r"no checkpoint of step 5; it has 8, 12"):
        read_meta(f"{url}/checkpoints/5")


def test_a_start_that_is_killed_before_it_works_costs_no_local_checkpoint(bucket, capsys):
    url, tiers = f"{bucket}/run", {"train__local_every": 2, "train__checkpoint_every": 8}
    with pytest.raises(UserError, match="no such batch"):
        run(url, feed=cut_at(7), **tiers)
    for _ in range(2):
        ledger.Ledger(Store(url), say=print).release()  # takes the lease, and comes no further
    capsys.readouterr()
    run(url, **tiers)
    assert "resuming from the checkpoint of step 6" in capsys.readouterr().err
    Store(url).delete(Store(url).find())  # a new run takes nothing over from the stage of the old one
    run(url, **tiers)
    assert "resuming" not in capsys.readouterr().err


def test_tiers_that_make_no_sense_are_refused(bucket, tmp_path):
    with pytest.raises(UserError, match="needs a workdir in an object store"):
        run(tmp_path / "run", train__local_every=2)
    with pytest.raises(UserError, match=r"must be at most config\.train\.checkpoint_every=4"):
        run(f"{bucket}/run", train__local_every=6)


def test_a_damaged_checkpoint_is_passed_over(bucket, reference, monkeypatch, tmp_path, capsys):
    url = f"{bucket}/run"
    run(url, train__steps=12)
    far = Store(url)
    victim = next(name for name in far.find("checkpoints/12-1/state") if "/d/" in name)
    far.write(victim, b"x")
    lose_the_machine(monkeypatch, tmp_path)
    assert run(url).step == 12
    assert "is damaged" in capsys.readouterr().err
    assert_is(url, reference)
    assert sorted(json.loads(far.read("run.json")[0])["checkpoints"]) == ["12", "8", "unreadable-12"]


def test_no_room_for_the_stage(bucket, monkeypatch):
    usage = shutil.disk_usage("/")
    full = type("Full", (), {"disk_usage": lambda path: usage._replace(free=10), "rmtree": shutil.rmtree})
    monkeypatch.setattr(saving, "shutil", full)
    with pytest.raises(UserError, match=r"(?s)No space left.*make room on that disk or set TWINREEL_STAGE"):
        run(f"{bucket}/run")


def test_metrics_that_do_not_arrive_stop_nothing(bucket, proxy, reference, monkeypatch, capsys):
    monkeypatch.setattr(store, "TRIES", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    url = f"{bucket}/run"
    proxy.fault = lambda method, path: 500 if "metrics.jsonl" in path and len(proxy.seen) < 60 else None
    assert run(url).step == 12
    said = capsys.readouterr().err
    assert said.count("were not copied to") == 1 and "are copied to" in said
    assert_is(url, reference)


def test_a_second_start_is_refused_before_it_does_anything(bucket):
    url = f"{bucket}/run"
    far = Store(url)
    lease = ledger.Ledger(far, say=print)
    with pytest.raises(UserError, match="another run is writing to workdir s3://"):
        run(url)
    lease.release()
    assert list(far.find()) == ["run.json"]


def test_a_run_that_was_taken_over_says_so_and_not_that_a_disk_is_full(bucket):
    url = f"{bucket}/run"

    def feed(start):
        for number, batch in enumerate(batches(start), start):
            if number == 5:
                state = ledger.read_state(Store(url))
                Store(url).write("run.json", json.dumps(state | {"epoch": 2}).encode())
            yield batch

    with pytest.raises(ledger.LeaseLost, match="was taken over by another run") as lost:
        run(url, feed=feed)
    assert "make room" not in str(lost.value)
    assert "12" not in ledger.read_state(Store(url))["checkpoints"]


def test_other_urls_are_refused():
    with pytest.raises(UserError, match=r"s3:// or gs:// URL, got 'https://"):
        workdir_of("https://example.org/run")
    with pytest.raises(UserError, match=r"folder in a bucket"):
        workdir_of("s3://bucket")
