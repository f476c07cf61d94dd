"""Builds whose shards Beam's workers put behind a URL (a real S3 server on the loopback interface)."""

import hashlib
import io
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import fsspec
import pytest
from decode_here import decode_here
from rich.console import Console

from twinreel.base.errors import UserError
from twinreel.data import remote
from twinreel.data.batches.records import Records
from twinreel.data.prepare import maker
from twinreel.data.prepare.prepare import prepare

pytest.importorskip("apache_beam")

SETTINGS = {"fps": 4, "short_side": 24, "workers": 1, "shard_clips": 4, "max_bad_fraction": 0.5}
BEAM = {"beam_runner": "DirectRunner", "beam_options": ["direct_num_workers=1"]}
# Where a build is killed: (module, what is called, how often before, for which files); and the clips not done by then.
MOMENTS = [
    (("remote", "upload", 1, ".json"), 7),  # between the records of the second shard and its report
    (("remote", "copy", 2, ""), 0),  # when some of the shards have their places
]
MORE = [
    (("remote", "upload", 0, ".array_record"), 11),  # before any shard has been sent
    (("elsewhere", "copy_all", 0, ""), 0),  # when all are finished
    (("remote", "upload", 0, "clips.jsonl"), 0),  # when the shards have their places, and the lists not
    (("remote", "upload", 0, "prepare.json"), 0),
    (("sending", "remove_build", 0, ""), 0),  # when all is done but for removing the build
]
# One process forks one for each moment, so that tensorflow and Beam are imported once.
KILL = """
import json, os, signal, sys
from twinreel.__main__ import main
from twinreel.data import remote
from decode_here import decode_here
from twinreel.data.prepare import beam, builder, elsewhere, maker, sending

maker.decode_in_order = decode_here
moments, source, url, caches, flags = map(json.loads, sys.argv[1:])
for number, (place, name, after, suffix) in enumerate(moments):
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, (place, name)
        continue
    os.environ["XDG_CACHE_HOME"] = f"{caches}/{number}"
    modules = {"remote": [remote], "elsewhere": [elsewhere, sending], "sending": [sending]}[place]
    real, calls = getattr(modules[0], name), 0
    def stop(*args, **named):
        global calls
        if str(args and args[0]).endswith(suffix) or not suffix:
            calls += 1
            if calls > after:
                os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **named)
    for module in modules:
        setattr(module, name, stop)
    main(["prepare", source, "--out", f"{url}/{number}", *flags])
    os._exit(1)
"""


def run(source, out, **settings):
    printed = io.StringIO()
    return prepare(source, out=out, console=Console(file=printed, width=200), **SETTINGS | settings)


def contents(place):
    """The files of a local folder or URL by name, without the times of the inputs; prepare.json parsed."""
    if isinstance(place, Path):
        files = {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*") if p.is_file()}
    else:
        system, path = fsspec.core.url_to_fs(place)
        files = {name: system.cat_file(f"{path}/{name}") for name in remote.walk(place)}
    files["prepare.json"] = json.loads(files["prepare.json"])
    return {name: data for name, data in files.items() if name != "inputs.jsonl"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory, media):
    """Two manifests: of 11 clips, two of them bad, one a duplicate; and of four more."""
    root = tmp_path_factory.mktemp("sources")
    for n in range(4):
        sound = media.tone(1.0, hertz=200 + 50 * n) if n else None
        media.write(root / f"{n}.mp4", media.grey(*range(20 + 5 * n, 180, 20)), sound=sound)
    for name, count in (("a", 11), ("b", 4)):
        rows = [
            {
                "clip_id": f"{name}{n}",
                "path": "none.mp4" if n in (3, 4) and name == "a" else f"{n % 4}.mp4",
                "captions": [f"{name} {n}"],
                "split": "test" if n >= 6 else "train",
                "start_s": 0.05 * (n // 4),
            }
            for n in range(count)
        ]
        rows[-1]["start_s"] = rows[0]["start_s"]
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root / "a.jsonl", root / "b.jsonl"


@pytest.fixture(scope="module")
def undisturbed(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "set"
    run(sources[0], out)
    return contents(out)


@pytest.fixture(autouse=True)
def decoded(monkeypatch):
    """Counts the clips that are given to the decoder, which runs in this process."""
    seen = Counter()
    jobs_of = lambda jobs: (seen.update(["clip"]) or job for job in jobs)  # noqa: E731
    monkeypatch.setattr(maker, "decode_in_order", lambda jobs, **named: decode_here(jobs_of(jobs), **named))
    return seen


def test_the_same_bytes_and_none_of_them_through_the_launching_machine(sources, undisturbed, s3, s3_proxy, tmp_path):
    run(sources[0], f"{s3}/out", **BEAM)
    of_shards = Counter(method for method, path in s3_proxy.seen if ".array_record" in path)
    assert contents(f"{s3}/out") == undisturbed
    assert not of_shards["GET"] and of_shards["PUT"] == 2 * len(undisturbed["prepare.json"]["shards"])
    assert not list((tmp_path / "cache").rglob("*.array_record*"))
    assert run(sources[0], f"{s3}/out", **BEAM) == undisturbed["prepare.json"]


@pytest.mark.parametrize("moments", [MOMENTS, pytest.param(MORE, marks=pytest.mark.slow)], ids=["two", "more"])
def test_killed_at_any_moment_nothing_half_is_read_and_the_same_command_resumes(
    sources, undisturbed, decoded, s3, monkeypatch, tmp_path, moments
):
    flags = [f"--{name}={value}" for name, value in SETTINGS.items()]
    flags += ["--beam_runner=DirectRunner", "--beam_options=direct_num_workers=1"]
    given = [[moment for moment, _ in moments], str(sources[0]), s3, str(tmp_path), flags]
    command = [sys.executable, "-c", KILL, *map(json.dumps, given)]
    support = {"PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=os.environ | support)
    assert killed.returncode == 0, killed.stderr
    for number, (moment, jobs) in enumerate(moments):
        url = f"{s3}/{number}"
        check_finished_shards(f"{url}/.building")
        if moment[1] == "remove_build":
            assert contents(url).keys() > undisturbed.keys()  # it can be read
        else:
            with pytest.raises(UserError):
                Records(url)
        # Every other time on another machine, which has only what lies behind the URL.
        monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path}/{number if number % 2 else f'other{number}'}")
        decoded.clear()
        run(sources[0], url, **BEAM)
        assert contents(url) == undisturbed, moment
        assert decoded.total() == jobs, moment


def check_finished_shards(url):
    """A shard that has a report has records of the size and hash that it states."""
    there = remote.walk(url)
    for name in there:
        if name.endswith(".json"):
            report = json.loads(read(f"{url}/{name}"))
            if report["bytes"]:
                records = read(f"{url}/{name.removesuffix('.json')}-{report['sha256'][:16]}.array_record")
                assert (len(records), hashlib.sha256(records).hexdigest()) == (report["bytes"], report["sha256"])


def read(url):
    with fsspec.open(url) as file:
        return file.read()


def test_a_shard_whose_files_are_gone_is_made_again(sources, undisturbed, decoded, s3, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("twinreel.data.prepare.builder.assemble", None)
        with pytest.raises(TypeError):
            run(sources[0], f"{s3}/out", **BEAM)
    made = sorted(name for name in remote.walk(f"{s3}/out/.building") if name.endswith((".array_record", ".parts")))
    remote.delete(f"{s3}/out/.building/{made[0]}")
    remote.delete(f"{s3}/out/.building/{made[-1]}")
    decoded.clear()
    run(sources[0], f"{s3}/out", **BEAM)
    assert contents(f"{s3}/out") == undisturbed
    assert decoded.total() == 6  # the first shard of test, and the last of train


def test_duplicates_are_dropped_and_sources_appended(sources, s3, s3_proxy, tmp_path):
    options = {"duplicates": "drop"}
    run(sources[0], tmp_path / "set", **options)
    run(sources[0], f"{s3}/out", **options, **BEAM)
    assert contents(f"{s3}/out") == contents(tmp_path / "set")
    assert contents(f"{s3}/out")["prepare.json"]["duplicates"]["dropped"] > 0
    run(sources[1], tmp_path / "set", append=True, **options)
    s3_proxy.seen.clear()
    run(sources[1], f"{s3}/out", append=True, **options, **BEAM)
    assert not any(method == "GET" and "2.0.0" in path and ".array_record" in path for method, path in s3_proxy.seen)
    assert contents(f"{s3}/out") == contents(tmp_path / "set")


def test_a_worker_that_cannot_write_is_told(sources, s3, s3_proxy):
    s3_proxy.fault = lambda method, path: 403 if method == "PUT" and ".array_record" in path else None
    with pytest.raises(UserError, match=r"\.building/.* may not be read or written"):
        run(sources[0], f"{s3}/out", **BEAM)
    assert not remote.is_file(f"{s3}/out/prepare.json")


def test_a_store_that_cannot_copy_is_told(monkeypatch):
    class Store:
        def invalidate_cache(self): ...

        def cp_file(self, *_):
            raise NotImplementedError

    monkeypatch.setattr(remote, "system_of", lambda url: (Store(), url))
    with pytest.raises(UserError, match="sftp:// cannot copy a file; use s3://"):
        remote.copy("sftp://host/a", to="sftp://host/b", size=1)
