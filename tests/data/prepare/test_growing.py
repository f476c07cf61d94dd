"""Folders that grow: sources appended to them, and folders merged; no shard that is there changes."""

import io
import json
import shutil
import subprocess
import sys

import pytest
from files import lines
from rich.console import Console

from twinreel.__main__ import main
from twinreel.base.errors import UserError
from twinreel.data import remote
from twinreel.data.batches.identity import content_of
from twinreel.data.batches.records import Records
from twinreel.data.index import columns, join
from twinreel.data.index import write as index_write
from twinreel.data.inspect.inspect import inspect
from twinreel.data.layout import APPENDING, home_of
from twinreel.data.manifest import Clip, write_manifest
from twinreel.data.media import workers
from twinreel.data.prepare import joining, sending
from twinreel.data.prepare.prepare import prepare

SETTINGS = {"fps": 4, "short_side": 24, "workers": 1, "shard_clips": 3, "max_bad_fraction": 0.5}
FLAGS = [f"--{name}={value}" for name, value in SETTINGS.items()]
# Where an append or a merge is killed: module or class, what is called, how often before; and what is then there.
MOMENTS = [
    ("builder", "assemble", 0, "old"),  # the source is not prepared yet
    ("append", "link", 1, "old"),  # one of its shards has its place
    ("join", "_join_split", 1, "old"),  # the index of the whole is half written
    ("append", "write_whole", 0, "old"),  # before the append is decided
    ("path", "unlink:prepare.json", 1, "decided"),  # the prepare.json of the folder is about to go
    ("append", "_sync", 1, "decided"),  # it is gone
    ("path", "replace:clips.jsonl", 0, "decided"),  # before clips.jsonl changes places
    ("append", "_sync", 2, "decided"),  # all is in its place but prepare.json
    ("append", "_sync", 3, "new"),  # that, too
    ("merge", "link", 2, "merge"),
    ("join", "_join_split", 1, "merge"),
    ("merge", "write_whole", 1, "merge"),  # before prepare.json
]
KILL = """
import json, os, shutil, signal, sys
from pathlib import Path
from twinreel.__main__ import main
from twinreel.data.index import join
from twinreel.data.prepare import append, builder, merge

moments, first, second, source, folder, flags = map(json.loads, sys.argv[1:])
places = {"append": append, "builder": builder, "join": join, "merge": merge, "path": Path}
for number, (place, called, after, state) in enumerate(moments):
    out = f"{folder}/{number}"
    if state != "merge":
        shutil.copytree(first, out)
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, (place, called, after)
        continue
    name, _, file = called.partition(":")
    real, calls = getattr(places[place], name), 0
    def stop(*args, **named):
        global calls
        calls += not file or args[0].name == file
        if calls > after and (not file or args[0].name == file):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **named)
    setattr(places[place], name, stop)
    main(["prepare", "--merge", first, second, "--out", out] if state == "merge" else
         ["prepare", source, "--out", out, "--append", *flags])
    os._exit(1)
"""


def run(source, out, **settings):
    """Prepare; return prepare.json and what was printed."""
    printed = io.StringIO()
    report = prepare(source, out=out, console=Console(file=printed, width=200), **SETTINGS | settings)
    return report, printed.getvalue()


def tree(out, *, but=("inputs.jsonl",)):
    files = (path for path in sorted(out.rglob("*")) if path.is_file() and path.name not in but)
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def check_whole(out):
    """Each record is that of its line, the index is that of a pass over all, and every frame can be decoded."""
    from tensorflow.train import Example

    opened = Records(out)
    for split, count in opened.splits.items():
        rows = list(opened.rows(split))
        assert [row["index"] for row in rows] == list(range(count))
        for row, raw in zip(rows, opened.read(split, range(count)), strict=True):
            feature = Example.FromString(raw).features.feature
            assert feature["clip_id"].bytes_list.value[0].decode() == row["clip_id"]
    assert inspect(out, verify=True, console=Console(file=io.StringIO()))["verified"]["faults"] == 0
    copy = out.with_name(out.name + ".copy")
    shutil.copytree(out, copy)
    shards = [(s["split"], s["records"], copy / home_of(s["name"]) / s["name"]) for s in lines_of(out)["shards"]]
    index_write.write_index(copy, shards=shards)
    assert tree(out / "index") == tree(copy / "index")
    shutil.rmtree(copy)


def lines_of(out):
    return json.loads((out / "prepare.json").read_text())


@pytest.fixture(scope="module")
def sources(tmp_path_factory, media):
    """Two manifests: 7 clips of train and 4 of test; 5 of train and 4 of val. A group has clips in both."""
    root = tmp_path_factory.mktemp("sources")
    for index in range(4):
        media.write(root / f"{index}.mp4", media.grey(*range(20 + 7 * index, 200 - 9 * index, 20)))
    for name, splits, first in (("a", "train " * 7 + "test " * 4, 0), ("b", "train " * 5 + "val " * 4, 2)):
        clips = [
            Clip(
                clip_id=f"{name}{n}",
                path="none.mp4" if n == 3 else f"{first + n % 2}.mp4",
                captions=tuple(f"{name} {n}: 一只狗 {c}" for c in range(1 + n % 3)),
                split=split,
                labels=(f"{name}{n % 2}", "run") if n % 3 else (),
                start_s=0.125 * (n // 2),
                meta={"group": f"pair {n // 2}"} if n % 4 < 2 else {},
            )
            for n, split in enumerate(splits.split())
        ]
        write_manifest(root / f"{name}.jsonl", clips=clips)
    return root / "a.jsonl", root / "b.jsonl"


@pytest.fixture(scope="module")
def folders(sources, tmp_path_factory):
    """Both prepared on their own, and the second appended to a copy of the first."""
    root = tmp_path_factory.mktemp("folders")
    for source in sources:
        run(source, root / source.stem)
    shutil.copytree(root / "a", root / "whole")
    report, printed = run(sources[1], root / "whole", append=True)
    return root / "a", root / "b", root / "whole", report, printed


def test_appended_clips_follow_those_that_are_there(folders, monkeypatch):
    import tensorflow_datasets as tfds

    first, _, whole, report, printed = folders
    assert "of 2 sources now" in printed and not (whole / APPENDING).exists()
    old, new = tree(first), tree(whole)
    assert {name: new[name] for name in old if name.startswith("twinreel_clips/")} == {
        name: content for name, content in old.items() if name.startswith("twinreel_clips/")
    }
    assert report == lines_of(whole) and [part["source"] for part in report["parts"]] == ["a.jsonl", "b.jsonl"]
    assert report["counts"]["train"] == {"clips": 10, "rejected": 2}
    assert report["counts"]["val"] == {"clips": 4, "rejected": 0}
    assert report["options"]["splits"] == ["test", "train", "val"]
    assert [line["clip_id"] for line in lines(whole / "rejects.jsonl")] == ["a3", "b3"]
    train = Records(whole).rows("train")
    assert [row["clip_id"] for row in train] == ["a0", "a1", "a2", "a4", "a5", "a6", "b0", "b1", "b2", "b4"]
    assert train.summary.groups == 2 and train.summary.torn == 2
    check_whole(whole)
    theirs = tfds.builder_from_directory(whole / "twinreel_clips_1" / "2.0.0").as_data_source(split="train")
    assert [one["clip_id"].decode() for one in theirs] == ["b0", "b1", "b2", "b4"]
    before, after = content_of(first), content_of(whole)
    assert {key for key in after if before[key] != after[key]} == {"splits", "source_sha256", "records_sha256", "clips"}


def test_appended_again_and_anew(folders, sources, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(folders[2], out)
    stamp = (out / "prepare.json").stat().st_mtime_ns
    for source, settings, told in (
        (sources[1], {"append": True}, "has this source already"),
        (sources[0], {}, "nothing"),
    ):
        report, printed = run(source, out, **settings)
        assert told in printed and report == folders[3] and (out / "prepare.json").stat().st_mtime_ns == stamp
    text = sources[1].read_text(encoding="utf-8")
    for letter in "cd":  # a third and a fourth
        (sources[1].parent / f"{letter}.jsonl").write_text(text.replace('"b', f'"{letter}'), encoding="utf-8")
        report, _ = run(sources[1].parent / f"{letter}.jsonl", out, append=True)
    assert [part["name"] for part in report["parts"]] == [f"twinreel_clips{n}" for n in ("", "_1", "_2", "_3")]
    assert report["counts"]["train"] == {"clips": 18, "rejected": 4}
    check_whole(out)
    next((out / "twinreel_clips_2").rglob("*val*")).unlink()
    with pytest.raises(UserError, match=r"lost.*'c\.jsonl'.*--merge"):
        run(sources[0], out)
    run(sources[0], out, overwrite=True)
    assert tree(out) == tree(folders[0])


def test_appending_what_does_not_fit_is_refused(folders, sources, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(folders[0], out)
    before = tree(out)
    monkeypatch.setattr(workers, "decode_in_order", None)
    given = sources[1].read_text(encoding="utf-8")
    twice = sources[1].with_name("twice.jsonl")
    twice.write_text(given.replace('"b2"', '"a5"').replace('"b7"', '"a8"'), encoding="utf-8")
    for source, settings, message in (
        (twice, {}, r"2 clip ids come twice in .*twice.jsonl': 'a5', 'a8'; give each"),
        (sources[1], {"fps": 2, "audio": False}, r"other options:\n  audio: True -> False\n  fps: 4.0 -> 2.0\n"),
        (sources[1], {"overwrite": True}, "give one of them"),
        (sources[1], {"out": tmp_path / "none"}, "does not exist"),
        (sources[1], {"out": tmp_path}, "no prepare.json"),
    ):
        with pytest.raises(UserError, match=message):
            run(source, settings.pop("out", out), append=True, **settings)
    assert tree(out) == before


def test_duplicates_of_clips_that_are_there_are_dropped(sources, tmp_path):
    out = tmp_path / "out"
    run(sources[0], out, duplicates="drop")
    old = tree(out / "twinreel_clips")
    kept = {row["clip_id"] for row in lines(out / "clips.jsonl")}
    text = sources[0].read_text(encoding="utf-8").replace('"clip_id": "a', '"clip_id": "copy of a')
    copies = sources[0].with_name("copies.jsonl")
    copies.write_text(text, encoding="utf-8")
    extra = [json.loads(line) for line in sources[1].read_text(encoding="utf-8").splitlines()[:2]]
    with copies.open("a", encoding="utf-8") as file:
        for split, line in zip(("train", "test"), extra, strict=True):
            file.write(json.dumps(line | {"split": split}) + "\n")
    report, _ = run(copies, out, append=True, duplicates="drop")
    assert tree(out / "twinreel_clips") == old
    assert {row["clip_id"] for row in lines(out / "clips.jsonl")} >= kept
    assert not [row for row in lines(out / "clips.jsonl") if row["clip_id"].startswith("copy")]
    assert report["duplicates"]["dropped"] == report["rejected"]["duplicate"] >= 9


def test_killed_appends_and_merges_go_on(folders, sources, tmp_path):
    first, second, whole, *_ = folders
    given = [MOMENTS, str(first), str(second), str(sources[1]), str(tmp_path), FLAGS]
    command = [sys.executable, "-c", KILL, *map(json.dumps, given)]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert killed.returncode == 0, killed.stderr
    merged = tmp_path / "merged"
    assert main(["prepare", "--merge", str(first), str(second), "--out", str(merged)]) == 0
    for number, moment in enumerate(MOMENTS):
        out = tmp_path / str(number)
        if moment[-1] == "merge":
            assert not (out / "prepare.json").exists() and (out / ".merging.json").exists()
            main(["prepare", "--merge", str(first), str(second), "--out", str(out)])
            assert tree(out, but=()) == tree(merged, but=()), moment
            continue
        decided = moment[-1] == "decided"
        assert (out / APPENDING / "joined" / "prepare.json").exists() == decided, moment
        if moment[-1] == "old":
            assert tree(out, but=()).items() >= tree(first, but=()).items(), moment
        plain = decided and number % 2  # the command of the first source finishes what is decided, too
        run(sources[0 if plain else 1], out, append=not plain)
        assert tree(out) == tree(whole), moment


def test_appended_behind_a_url(folders, sources, tmp_path, s3, s3_proxy, monkeypatch):
    import fsspec

    first, second, whole, *_ = folders
    with pytest.raises(UserError, match=r"has no prepare\.json; leave --append out"):
        run(sources[1], f"{s3}/set", append=True)
    copy = tmp_path / "first"
    shutil.copytree(first, copy)
    sending.send(copy, url=f"{s3}/set")
    s3_proxy.seen.clear()
    real, sent = remote.upload, []

    def stop(path, *, url):
        sent.append(url.removeprefix(f"{s3}/set/"))
        if len(sent) == 8:
            raise KeyboardInterrupt
        real(path, url=url)

    with monkeypatch.context() as patched:
        patched.setattr(remote, "upload", stop)
        with pytest.raises(KeyboardInterrupt):
            run(sources[1], f"{s3}/set", append=True)
    new = ["array_record" in name and name.startswith("twinreel_clips_1/") for name in sent]
    assert new == [True] * 4 + [False] * 4  # while the folder can still be read
    assert not remote.is_file(f"{s3}/set/prepare.json")
    monkeypatch.setattr(workers, "decode_in_order", None)  # all is prepared
    report, printed = run(sources[1], f"{s3}/set", append=True)
    assert "has this source already" in printed
    seen = [(method, path) for method, path in s3_proxy.seen if "/twinreel_clips/" in path and "array_record" in path]
    assert not [method for method, _ in seen if method in ("GET", "PUT", "POST", "DELETE")]
    fsspec.filesystem("s3").get(f"{s3}/set", str(tmp_path / "back"), recursive=True)
    assert tree(tmp_path / "back") == tree(whole)
    assert run(sources[1], f"{s3}/set", append=True)[0] == report == lines_of(whole)
    assert not list((tmp_path / "cache" / "twinreel" / "staging").rglob("*.json*"))
    # A merge can be sent as well.
    assert main(["prepare", "--merge", str(first), str(second), "--out", f"{s3}/merged"]) == 0
    fsspec.filesystem("s3").get(f"{s3}/merged", str(tmp_path / "merged"), recursive=True)
    check_whole(tmp_path / "merged")
    assert main(["prepare", "--merge", str(first), str(second), "--out", f"{s3}/merged"]) == 0  # nothing to do


# --- merged ---


def test_merged_folders(folders, tmp_path, monkeypatch, capsys):
    first, second, whole, report, _ = folders
    monkeypatch.setattr(workers, "decode_in_order", None)
    monkeypatch.setattr(columns, "SAMPLE", 4)
    monkeypatch.setattr(join, "SAMPLE", 4)
    monkeypatch.setattr(index_write, "SAMPLE", 4)
    command = ["prepare", "--merge", str(first), str(second), "--out", str(tmp_path / "out"), "--json"]
    assert main(command) == 0
    got = json.loads(capsys.readouterr().out)
    out = tmp_path / "out"
    assert got == lines_of(out) and got["counts"] == report["counts"] and got["bytes"] == report["bytes"]
    for field in ("list_sha256", "source_sha256", "options", "rejected", "duplicates", "captions"):
        assert got[field] == report[field], field
    assert (out / "clips.jsonl").read_bytes() == (whole / "clips.jsonl").read_bytes()
    assert (out / "duplicates.jsonl").read_bytes() == (whole / "duplicates.jsonl").read_bytes()
    check_whole(out)
    [old] = (second / "twinreel_clips").rglob("*train*-00000-of-*")
    [new] = (out / "twinreel_clips").rglob("*train*-00003-of-00005")
    assert new.samefile(old)
    assert main(command[:-1]) == 0  # nothing to do
    # A folder that was appended to is merged like any other; where there are no hard links, shards are copied.
    monkeypatch.setattr(joining.os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    assert main(["prepare", "--merge", str(whole), "--out", str(tmp_path / "flat"), "--duplicates=keep"]) == 0
    assert tree(tmp_path / "flat" / "twinreel_clips") == tree(out / "twinreel_clips")
    assert tree(tmp_path / "flat" / "index") == tree(out / "index")


def test_merges_that_are_refused(folders, sources, tmp_path, capsys):
    first, second, whole, *_ = folders
    slow = tmp_path / "slow"
    run(sources[1], slow, fps=2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for arguments, message in (
        ([first, whole, "--out", tmp_path / "o"], "10 clip ids come twice in "),
        ([first, slow, "--out", tmp_path / "o"], "fps: 4.0 -> 2.0"),
        ([first, tmp_path, "--out", tmp_path / "o"], "no prepare.json"),
        ([first, first, "--out", tmp_path / "o"], "names a folder twice"),
        ([first, second, "--out", tmp_path / "full"], "holds something else (x)"),
        ([first, second, "--out", slow], "or --overwrite"),
        ([first, second, "--out", tmp_path / "o", "--fps", "4"], "--fps does not apply"),
        ([first, second, "--out", tmp_path / "o", "--duplicates", "drop"], "give report or keep"),
    ):
        assert main(["prepare", "--merge", *map(str, arguments)]) != 0
        assert message in " ".join(capsys.readouterr().err.split()), message
    assert main(["prepare", "--out", str(tmp_path / "o")]) != 0
    assert "SOURCE is missing" in capsys.readouterr().err
