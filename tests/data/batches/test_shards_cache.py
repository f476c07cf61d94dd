"""Prepared folders behind a URL: batches equal the local ones, shards whole or not at all, room made by last use."""

import fcntl
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
from object_store import upload

from twinreel.base.errors import UserError
from twinreel.data import remote
from twinreel.data.batches.ends import read_ends
from twinreel.data.batches.open_shards import OpenShards
from twinreel.data.batches.pipeline import eval_batches, make_tokenizer, train_batches
from twinreel.data.batches.records import Records
from twinreel.data.batches.shards_cache import NOTE, Mirror
from twinreel.data.manifest import Clip, write_manifest
from twinreel.data.options import DataOptions
from twinreel.data.prepare.prepare import prepare


@pytest.fixture(scope="module")
def folder(tmp_path_factory, media):
    """A local prepared folder of two splits."""
    root = tmp_path_factory.mktemp("clips")
    clips = []
    for n in range(10):
        media.write(root / f"{n}.mp4", media.grey(*range(10 + n, 170 + n, 20), size=(48, 48)))
        split = "val" if n > 6 else "train"
        clips.append(Clip(clip_id=f"c{n}", path=f"{n}.mp4", captions=(f"grey number {n}",), split=split))
    write_manifest(root / "m.jsonl", clips=clips)
    prepare(root / "m.jsonl", out=root / "data", fps=0, short_side=0, workers=1)
    return root / "data"


@pytest.fixture
def url(folder, s3):
    upload(folder, f"{s3}/data")
    return f"{s3}/data"


def shards(folder):
    return sorted(path.name for path in Path(folder).rglob("twinreel_clips-*.array_record*"))


def options(folder, **changes):
    given = {"dir": str(folder), "batch_size": 4, "num_frames": 2, "train_video": "random_crop(32)|flip_lr"}
    given |= {"eval_video": "center_crop(32)", "vocab_size": 300, "num_threads": 1, "context_length": 16}
    given |= {"order": "records"}  # that over blocks: test_far
    return DataOptions.of(given | changes)


def test_batches_equal_those_of_the_local_folder(folder, url, tmp_path):
    here, there = options(folder), options(url, cache_dir=str(tmp_path / "c"))
    tokenizer = make_tokenizer(here)
    for a, b in zip(
        itertools.islice(train_batches(here, tokenizer=tokenizer, seed=1, start_step=0), 4),
        itertools.islice(train_batches(there, tokenizer=tokenizer, seed=1, start_step=0), 4),
        strict=True,
    ):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])
    [copy] = (tmp_path / "c" / "prepared").glob("*/data")
    assert all("-train." in name for name in shards(copy))  # the other split was not asked for
    local, far = (list(eval_batches(d, tokenizer=tokenizer, split="val", batch_size=3)) for d in (here, there))
    np.testing.assert_array_equal([b["video"] for b in local], [b["video"] for b in far])
    assert shards(copy) == shards(folder)


def test_what_is_here_is_not_fetched_again_and_a_single_record_fetches_its_shard(folder, url, s3_proxy):
    records, local = Records(url), Records(folder)
    assert shards(records.folder) == [] and records.folder.name == "data" and records.options == local.options
    assert records.read("val", [1]) == local.read("val", [1])
    assert all("-val." in name for name in shards(records.folder))
    s3_proxy.seen.clear()
    again = Records(url)
    again.fetch("val")
    assert again.read("val", [0, 1]) == local.read("val", [0, 1])
    got = [path for method, path in s3_proxy.seen if method == "GET" and "list-type" not in path]
    assert len(got) == 1 and got[0].endswith("prepare.json")


def test_a_look_at_the_ends_fetches_no_more_than_these(url, tmp_path, monkeypatch):
    """Nor does the training of a tokenizer, whose texts are in the small files."""
    data = options(url, cache_dir=str(tmp_path / "c"))
    make_tokenizer(data)
    [copy] = (tmp_path / "c" / "prepared").glob("*/data")
    assert shards(copy) == []
    monkeypatch.setattr(Records, "fetch", lambda *_: pytest.fail("all shards were asked for"))
    read_ends(data)
    assert 1 <= len(shards(copy)) <= 2


def test_copy_can_be_opened_by_its_own_path(folder, url):
    copy = Records(url).folder
    records = Records(copy)  # as evaluation does, which passes the folder on
    assert records.read("train", [2]) == Records(folder).read("train", [2])


def test_folder_prepared_anew_gets_a_copy_anew(folder, url):
    first = Records(url)
    first.fetch("val")
    done = json.loads((folder / "prepare.json").read_text())
    with fsspec.open(f"{url}/prepare.json", "w") as file:
        json.dump(done | {"source_sha256": "other"}, file)
    second = Records(url)
    assert second.folder != first.folder and shards(second.folder) == [] and shards(first.folder)


def test_shard_that_breaks_off_is_never_half(folder, url, s3_proxy, monkeypatch):
    monkeypatch.setattr(remote, "_WAIT_S", 0.01)
    records = Records(url)
    s3_proxy.fault = lambda method, path: "cut" if method == "GET" and ".array_record" in path else None
    with pytest.raises(UserError, match="array_record"):
        records.read("train", [0])
    assert shards(records.folder) == []
    s3_proxy.fault = lambda method, path: None
    assert records.read("train", [0]) == Records(folder).read("train", [0])


def test_shard_of_another_size_than_listed_is_refused(url, monkeypatch):
    monkeypatch.setattr(remote, "_WAIT_S", 0.01)
    records = Records(url)
    [name] = [name for name in remote.walk(url) if "-val." in name]
    with fsspec.open(f"{url}/{name}", "wb") as file:
        file.write(b"short")
    with pytest.raises(UserError, match="gave 5 bytes, wanted"):
        records.read("val", [0])


def test_faults_of_remote_folders(url, s3, s3_proxy, tmp_path):
    with pytest.raises(UserError, match=r"data folder 's3://nobucket/x' has no prepare\.json: there is no such bucket"):
        Records("s3://nobucket/x")
    with pytest.raises(UserError, match=r"has no prepare\.json"):
        Records(f"{s3}/elsewhere")
    with pytest.raises(UserError, match="unknown scheme 'nope'"):
        Records("nope://x")
    s3_proxy.fault = lambda method, path: 403
    with pytest.raises(UserError, match="may not be read or written"):
        Records(url)


def test_shard_missing_behind_the_url_is_named_at_once(url):
    [name] = [name for name in remote.walk(url) if "-val." in name]
    remote.delete(f"{url}/{name}")
    with pytest.raises(UserError, match=r"the shard twinreel_clips-val.* is missing"):
        Records(url)


def test_least_recently_used_copies_make_room(folder, s3, tmp_path):
    cache = str(tmp_path / "c")
    urls = [f"{s3}/{n}/data" for n in range(3)]
    for url in urls:
        upload(folder, url)
    one = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    limit = 2.5 * one / 1e9

    def fetched(url):
        records = Records(url, cache_dir=cache, cache_gb=limit)
        records.fetch("train")
        records.fetch("val")
        return records

    copies = []
    for n, url in enumerate(urls[:2]):
        copies.append(fetched(url).folder)
        os.utime(copies[n] / NOTE, (1000 + n, 1000 + n))
    third = fetched(urls[2])
    assert not copies[0].exists() and copies[1].exists()
    held = Mirror(copies[1])
    with pytest.raises(UserError, match=r"config\.data\.cache_gb=.*raise it, or set it to 0"):
        fetched(urls[0])
    assert copies[1].exists() and third.folder.exists()
    assert len(third.read("val", [0])) == 1 and held.folder == copies[1]


def test_no_room_on_the_disk_is_told(url, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 100, 0))
    with pytest.raises(UserError, match=r"whose disk has 0 bytes left; set config\.data\.cache_dir"):
        Records(url)


_FETCH = """
import sys
from twinreel.data.batches.shards_cache import Mirror
mirror = Mirror(sys.argv[1], cache_dir=sys.argv[2])
mirror.fetch([mirror.folder / name for name in mirror._sizes])
"""


@pytest.mark.slow
def test_two_processes_fetch_once_and_a_killed_one_leaves_nothing_half(folder, url, s3_proxy, tmp_path):
    command = [sys.executable, "-c", _FETCH, url, str(tmp_path / "c")]
    s3_proxy.fault = lambda method, path: time.sleep(2.0) if method == "GET" and ".array_record" in path else None
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not any(".array_record" in path and method == "GET" for method, path in s3_proxy.seen):
        assert first.poll() is None
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    [copy] = (tmp_path / "c" / "prepared").glob("*/data")
    assert shards(copy) == []
    s3_proxy.seen.clear()
    both = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    fetched = [path for method, path in s3_proxy.seen if method == "GET" and ".array_record" in path]
    assert len(fetched) == len(set(fetched)) == len(shards(folder))
    for path in folder.rglob("*.array_record*"):
        assert (copy / path.relative_to(folder)).read_bytes() == path.read_bytes()
    assert not list(copy.rglob("*.part"))
    with (copy.parent / ".use").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it any more


def test_a_shard_that_makes_room_before_it_is_opened_is_fetched_again(url, monkeypatch):
    records, opened = Records(url), OpenShards.get

    def get(self, path, **key):
        if next(removed, False):
            path.unlink()
        return opened(self, path, **key)

    monkeypatch.setattr(OpenShards, "get", get)
    removed = iter([True, True])
    assert records.read("val", [0])[0]
    records, removed = Records(url), itertools.repeat(True)
    with pytest.raises(UserError, match="record 0 of split 'val' is damaged"):
        records.read("val", [0])


def test_shards_that_another_process_removes_meanwhile_are_passed_over(url, folder):
    """Several processes of a host make room in one copy at once: each sees files go that it has just listed."""
    records = Records(url)
    records.fetch("train")
    [one] = records.folder.rglob("twinreel_clips-train.array_record*")
    gone = one.with_name(f"{one.name}-gone")
    gone.symlink_to(one.with_name("no such file"))  # listed, and not there
    mirror = Mirror(url, cache_gb=1e-9)
    with pytest.raises(UserError, match="in use"):
        mirror.fetch([records.folder / name for name in sizes_of(records.folder) if "-val." in name])
    assert shards(records.folder) == [gone.name]


def sizes_of(folder):
    return json.loads((folder / NOTE).read_text())["shards"]


def test_a_shard_that_goes_while_it_is_taken_hold_of_is_fetched_again(url, monkeypatch):
    records, lock = Records(url), fcntl.flock
    [one] = (records.folder / name for name in sizes_of(records.folder) if "-val." in name)
    gone = iter([True])

    def locked(file, how):
        if how == fcntl.LOCK_SH and next(gone, False):
            one.unlink()
        return lock(file, how)

    monkeypatch.setattr(fcntl, "flock", locked)
    records.hold("val", shards=[0])
    monkeypatch.undo()
    assert one.is_file()
    opened = [str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
    assert str(one) in opened and f"{one} (deleted)" not in opened
