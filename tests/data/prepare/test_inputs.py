"""Inputs are known by their contents: what has changed is noticed, what was only copied or touched is not."""

import io
import json
import os
import shutil
import tarfile
import time

import fsspec
import numpy as np
import pytest
from files import lines, write
from rich.console import Console

from twinreel.data.manifest import Clip, write_manifest
from twinreel.data.prepare import inputs, maker
from twinreel.data.prepare.inputs import MISSING, load_states, read_inputs, to_lines
from twinreel.data.prepare.prepare import prepare
from twinreel.data.sources.notes import Notes

OLD = time.time() - 1000


def clip(path, **features):
    return Clip(clip_id=path or "x", path=path, captions=("x",), split="train", features=features)


def age(path, seconds=OLD):
    os.utime(path, (seconds, seconds))


@pytest.fixture
def read(monkeypatch):
    """The files whose bytes are read, from here on."""
    seen = []
    real = inputs.open_binary
    monkeypatch.setattr(inputs, "open_binary", lambda path: seen.append(os.path.basename(path)) or real(path))  # noqa: PTH119
    return seen


def test_unchanged_files_are_not_read_again(tmp_path, read):
    for name in "ab":
        write(tmp_path / name, name)
        age(tmp_path / name)
    clips = [clip("a", rgb="b"), clip("a")]
    first = read_inputs(clips, root=tmp_path)
    assert sorted(read) == ["a", "b"]
    read.clear()
    assert read_inputs(clips, root=tmp_path, known=first.states) == first and read == []
    age(tmp_path / "a", OLD + 50)  # touched: read, and found the same
    again = read_inputs(clips, root=tmp_path, known=first.states)
    assert again.contents() == first.contents() and read == ["a"]
    times = (tmp_path / "b").stat()
    write(tmp_path / "b", "B")  # the same size, and the times set back
    os.utime(tmp_path / "b", ns=(times.st_atime_ns, times.st_mtime_ns))
    changed = read_inputs(clips, root=tmp_path, known=first.states).contents()
    assert {path for path, contents in changed.items() if contents != first.contents()[path]} == {"b"}


def test_times_of_a_moment_ago_are_not_relied_on(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "_RECENT_S", 60.0)
    write(tmp_path / "a", "1")
    state = read_inputs([clip("a")], root=tmp_path).states["a"]
    assert len(state.contents) == 64 and state.times is None


def test_members_of_an_archive_each_have_their_contents(tmp_path):
    def pack(*contents):
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            for name, data in zip("xyz", contents, strict=True):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))

    clips = [clip(f"a.tar::{name}") for name in "xyz"] + [clip("a.tar::none")]
    pack(b"1", b"2", b"3")
    before = read_inputs(clips, root=tmp_path)
    pack(b"1", b"9", b"3")
    after = read_inputs(clips, root=tmp_path, known=before.states)
    changed = {path for path, contents in after.contents().items() if contents != before.contents()[path]}
    assert changed == {"a.tar::y"} and after.contents()["a.tar::none"] == MISSING


def test_odd_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder").mkdir()
    names = ["pipe.mp4", "folder", "none.mp4", "x" * 5000, "a\0b", "folder/none/x"]
    contents = read_inputs([clip(name) for name in names], root=tmp_path).contents()
    assert [contents[name] for name in names] == ["unreadable", "unreadable", "", "", "", ""]


def test_files_behind_urls_by_size_and_tag(s3):
    def put(data):
        with fsspec.open(f"{s3}/a.mp4", "wb") as file:
            file.write(data)
        return read_inputs([clip("a.mp4"), clip("none.mp4")], root=s3).contents()

    first = put(b"123")
    assert first["none.mp4"] == MISSING and "etag=" in first["a.mp4"]
    assert put(b"123") == first and put(b"456") != first


def test_states_are_written_and_read_and_damage_is_no_fault(tmp_path):
    write(tmp_path / "a", "1")
    age(tmp_path / "a")
    states = read_inputs([clip("a"), clip("none")], root=tmp_path).states
    write(tmp_path / "out" / "inputs.jsonl", "".join(json.dumps(line) + "\n" for line in to_lines(states)))
    assert load_states(tmp_path / "out") == {path: state for path, state in states.items() if path}
    write(tmp_path / "out" / "inputs.jsonl", '{"path": "a"')
    assert load_states(tmp_path / "out") == {} == load_states(tmp_path / "none")


def test_files_under_other_names_are_found_and_noted(tmp_path):
    write(tmp_path / "cafe\u0301.mp4", "1")
    write(tmp_path / "B.mp4", "2")
    notes = Notes()
    found = read_inputs([clip("caf\u00e9.mp4"), clip(" B.mp4"), clip("b.mp4")], root=tmp_path, notes=notes)
    assert [one.path for one in found.clips] == ["cafe\u0301.mp4", "B.mp4", "b.mp4"]
    assert [one.clip_id for one in found.clips] == ["caf\u00e9.mp4", " B.mp4", "b.mp4"]
    assert found.clips[2].meta["refused"].startswith("file does not exist: there is 'B.mp4'")
    assert sorted(notes.counts().values()) == [1, 1]
    contents = found.contents()
    assert all(len(contents[path]) == 64 for path in ("cafe\u0301.mp4", "B.mp4")) and contents["b.mp4"] == MISSING


# --- in a build ---


@pytest.fixture
def build(tmp_path, monkeypatch):
    """A build of six clips with features alone, in three shards: prepare.json, what is printed, the clips made."""
    made = []
    real = maker.add_features
    monkeypatch.setattr(
        maker, "add_features", lambda clip, *args, **named: made.append(clip.clip_id) or real(clip, *args, **named)
    )
    for n in range(6):
        np.save(tmp_path / f"f{n}.npy", np.full((4, 8), n, np.float32))
        age(tmp_path / f"f{n}.npy")
    clips = [
        Clip(clip_id=f"c{n}", path="", captions=("x",), split="train", features={"rgb": f"f{n}.npy"}) for n in range(6)
    ]
    write_manifest(tmp_path / "m.jsonl", clips=clips)

    def run(source=tmp_path, **options):
        made.clear()
        printed = io.StringIO()
        settings = {"shard_clips": 2, "workers": 1, "console": Console(file=printed, width=300)}
        report = prepare(source / "m.jsonl", out=tmp_path / "out", **settings | options)
        return report, printed.getvalue(), list(made)

    return run


def test_only_the_shards_of_changed_files_are_made_again(tmp_path, build):
    first, _, made = build()
    assert made == [f"c{n}" for n in range(6)]
    np.save(tmp_path / "f3.npy", np.full((4, 8), 103, np.float32))  # of the same size
    changed, printed, made = build()
    assert made == ["c2", "c3"]
    assert "1 files have changed since" in printed and "'f3.npy'" in printed and "made again: " in printed
    assert changed["list_sha256"] == first["list_sha256"] and changed["source_sha256"] != first["source_sha256"]
    assert [row["clip_id"] for row in lines(tmp_path / "out" / "clips.jsonl")] == [f"c{n}" for n in range(6)]
    again, printed, made = build()
    assert made == [] and "is prepared already" in printed and again == changed
    np.save(tmp_path / "f3.npy", np.full((4, 8), 3, np.float32))
    assert build()[0] == first


def test_copies_and_touched_files_are_the_same_source(tmp_path, build):
    build()
    for n in range(6):
        age(tmp_path / f"f{n}.npy", OLD + n)
    assert "is prepared already" in build()[1]
    shutil.copytree(tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns("out"))
    assert "is prepared already" in build(tmp_path / "copy")[1]


def test_lost_notes_of_inputs_cost_a_reading_not_a_build(tmp_path, build):
    build()
    (tmp_path / "out" / "inputs.jsonl").unlink()
    assert "is prepared already" in build()[1]
    assert len(lines(tmp_path / "out" / "inputs.jsonl")) == 6
