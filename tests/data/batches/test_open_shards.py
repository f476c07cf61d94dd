"""Open record files: the least recently used are closed first, within the process's limit of open files."""

import gc
import os
import resource
import subprocess
import sys
import threading

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from twinreel.data.batches import open_shards
from twinreel.data.batches.open_shards import OpenShards, allowed_readers


@pytest.fixture
def files(tmp_path):
    """Ten record files of three records each."""
    paths = [tmp_path / f"{n}.array_record" for n in range(10)]
    for n, path in enumerate(paths):
        writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        for record in range(3):
            writer.write(f"{n} {record}".encode())
        writer.close()
    return paths


@pytest.fixture
def opened(monkeypatch):
    """The paths that were opened, one after the other."""
    seen = []
    real = open_shards.ArrayRecordReader

    def open_one(path, *, options):
        seen.append(int(os.path.basename(path).split(".")[0]))  # noqa: PTH119
        return real(path, options=options)

    monkeypatch.setattr(open_shards, "ArrayRecordReader", open_one)
    return seen


@pytest.mark.parametrize("limit", [1, 3, 9, 10])
def test_files_are_opened_as_often_as_a_plain_list_says(files, opened, limit):
    shards = OpenShards(limit)
    recent, expected = [], []
    draws = np.random.default_rng(limit).zipf(1.3, 2000) % len(files)
    for number in draws.tolist():
        reader = shards.get(files[number], owner="a", number=number)
        assert reader.read([1]) == [f"{number} 1".encode()]
        if number in recent:
            recent.remove(number)
        else:
            expected.append(number)
        recent = [*recent, number][-limit:]
        assert len(shards) == len(recent) <= limit
    assert opened == expected
    assert len(opened) < len(draws) or limit == 1


def test_what_is_used_all_the_time_stays_open(files, opened):
    """First in, first out would close it again and again."""
    shards = OpenShards(3)
    for number in range(1, 10):
        shards.get(files[0], owner="a", number=0)
        shards.get(files[number], owner="a", number=number)
    assert opened.count(0) == 1


def test_all_sources_share_one_limit_and_give_their_files_back(files):
    shards = OpenShards(4)
    for owner in ("a", "b"):
        for number, path in enumerate(files[:3]):
            shards.get(path, owner=owner, number=number)
    assert len(shards) == 4
    shards.forget("b")
    assert len(shards) == 1


def descriptors():
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts the descriptors of this process")  # noqa: PTH112
def test_closed_files_give_their_descriptors_back(files):
    gc.collect()
    before = descriptors()
    shards = OpenShards(2)
    for number, path in enumerate(files):
        shards.get(path, owner="a", number=number)
    assert descriptors() == before + 2
    shards.forget("a")
    assert descriptors() == before


@pytest.mark.parametrize(
    ("soft", "readers"), [(1024, 512), (256, 128), (20_000, 10_000), (1, 1), (resource.RLIM_INFINITY, 16_384)]
)
def test_half_of_what_the_process_may_open(monkeypatch, soft, readers):
    monkeypatch.setattr(resource, "getrlimit", lambda what: {resource.RLIMIT_NOFILE: (soft, soft)}[what])
    assert allowed_readers() == OpenShards().limit == readers


_FULL = """
import os, resource, sys
from pathlib import Path
from twinreel.data.batches.open_shards import OpenShards
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 5, hard))
shards = OpenShards(100)  # more than there is room for
for turn in range(3):
    for number, path in enumerate(sys.argv[1:]):
        [record] = shards.get(Path(path), owner="a", number=number).read([2])
        assert record == f"{number} 2".encode()
print(shards.limit)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts the descriptors of the process")  # noqa: PTH112
def test_a_process_whose_files_are_used_up_keeps_fewer_open(files):
    command = [sys.executable, "-c", _FULL, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert 1 <= int(done.stdout) <= 5


def test_threads_read_the_right_files(files):
    shards, wrong = OpenShards(2), []

    def read(seed):
        for number in np.random.default_rng(seed).integers(0, len(files), 200).tolist():
            [record] = shards.get(files[number], owner="a", number=number).read([0])
            if record != f"{number} 0".encode():
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(shards) <= 2
