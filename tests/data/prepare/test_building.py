"""Builds that are killed, resumed, changed, or made by Beam: always the same bytes, and nothing decoded twice."""

import io
import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from twinreel.data.manifest import Clip, Sentence, write_manifest
from twinreel.data.media.decode import DecodeOptions, decode_clip
from twinreel.data.prepare import builder, shards
from twinreel.data.prepare.layout import BUILDING, NAMES
from twinreel.data.prepare.prepare import prepare

SETTINGS = {"fps": 4, "short_side": 24, "workers": 1, "shard_clips": 4, "max_bad_fraction": 0.5}
FLAGS = ["--fps", "4", "--short_side", "24", "--workers", "1", "--shard_clips", "4", "--max_bad_fraction", "0.5"]
# Makes the build stop dead at a moment that the test chooses: (what is called, how often before).
KILL = """
import os, signal, sys
from pathlib import Path
from twinreel.data.prepare import assemble, builder, shards
place, name, after = sys.argv[1:4]
module = {"assemble": assemble, "builder": builder, "shards": shards, "path": Path}[place]
real, calls = getattr(module, name), 0
def stop(*args, **named):
    global calls
    calls += 1
    if calls > int(after):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **named)
setattr(module, name, stop)
from twinreel.__main__ import main
sys.exit(main(sys.argv[4:]))
"""


def run(source, out, **settings):
    """Prepare; return prepare.json and what was printed."""
    printed = io.StringIO()
    report = prepare(source, out=out, console=Console(file=printed, width=200), **SETTINGS | settings)
    return report, printed.getvalue()


def tree(out):
    """All files of a folder with their bytes."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def source(tmp_path_factory, media):
    """A manifest of 19 clips, three of them bad, and one shard without any good one."""
    root = tmp_path_factory.mktemp("source")
    for index in range(3):
        frames = media.grey(*range(20 + 5 * index, 180, 20))
        media.write(root / f"{index}.mp4", frames, sound=media.tone(1.0, hertz=200 + 50 * index) if index else None)
    clips = [
        Clip(
            clip_id=f"clip{n}",
            path="none.mp4" if 4 <= n < 8 or n == 10 else f"{n % 3}.mp4",
            captions=(f"{n}: 一只狗", "the same"),
            split="test" if n >= 12 else "train",
            start_s=0.25 if n % 4 == 0 else None,
            labels=("run",),
            transcript="good dog",
            sentences=(Sentence(start_s=0.0, end_s=0.5, text="good"),),
            meta={"group": "pair", "n": [1, None]},
        )
        for n in range(19)
    ]
    write_manifest(root / "m.jsonl", clips=clips)
    return root / "m.jsonl", clips


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "set"
    report, _ = run(source[0], out)
    return tree(out), report


@pytest.fixture
def decoded(monkeypatch):
    """The clips that are given to the decoder, by file name, from here on."""
    seen = Counter()
    real = builder.decode_in_order

    def count(jobs, **named):
        def counted():
            for job in jobs:
                seen[getattr(job, "path", Path("no job")).name] += 1
                yield job

        return real(counted(), **named)

    monkeypatch.setattr(builder, "decode_in_order", count)
    return seen


# --- what a build leaves ---


def test_shards_of_fixed_clips(source, undisturbed):
    files, report = undisturbed
    home = "twinreel_clips/2.0.0/"
    assert [(shard["name"], shard["split"], shard["records"]) for shard in report["shards"]] == [
        ("twinreel_clips-train.array_record-00000-of-00002", "train", 4),
        ("twinreel_clips-train.array_record-00001-of-00002", "train", 3),
        ("twinreel_clips-test.array_record-00000-of-00002", "test", 4),
        ("twinreel_clips-test.array_record-00001-of-00002", "test", 3),
    ]
    import hashlib

    for shard in report["shards"]:
        data = files[home + shard["name"]]
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard["bytes"], shard["sha256"])
    assert report["bytes"] == sum(shard["bytes"] for shard in report["shards"])
    assert (report["records_version"], report["shard_clips"]) == ("2.0.0", 4)
    rows = [json.loads(line) for line in files["clips.jsonl"].decode().splitlines()]
    assert [(row["split"], row["index"], row["clip_id"]) for row in rows] == [
        *(("train", i, f"clip{n}") for i, n in enumerate((0, 1, 2, 3, 8, 9, 11))),
        *(("test", i, f"clip{n}") for i, n in enumerate(range(12, 19))),
    ]
    rejects = [json.loads(line)["clip_id"] for line in files["rejects.jsonl"].decode().splitlines()]
    assert rejects == ["clip4", "clip5", "clip6", "clip7", "clip10"]


def test_tfds_reads_all_shards(source, tmp_path):
    import tensorflow_datasets as tfds

    run(source[0], tmp_path / "set")
    builder = tfds.builder_from_directory(tmp_path / "set" / "twinreel_clips" / "2.0.0")
    assert builder.info.splits["train"].shard_lengths == [4, 3]
    data = builder.as_data_source("train")
    assert [record["clip_id"] for record in data] == [f"clip{n}".encode() for n in (0, 1, 2, 3, 8, 9, 11)]
    assert data[4]["start_s"] == 0.25 and data[4]["has_audio"]


def test_records_are_what_tfds_would_write(source):
    import tensorflow as tf
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    manifest, clips = source
    features = builder.features()
    serializer = ExampleSerializer(features.get_serialized_info())
    for clip in clips[:4]:
        decoded = decode_clip(manifest.parent / clip.path, options=DecodeOptions(), start_s=clip.start_s)
        fields = builder.example(clip, decoded)
        theirs = serializer.serialize_example(features.encode_example(fields))
        assert tf.train.Example.FromString(builder.serialize(fields)) == tf.train.Example.FromString(theirs)
    with pytest.raises(KeyError, match="clip_id"):
        builder.serialize({})


@pytest.mark.parametrize(("count", "each"), [(1, 64), (65_536, 64), (65_537, 65), (1_000_000, 977), (10_000_000, 1024)])
def test_clips_of_a_shard(count, each):
    assert shards.clips_per_shard(count) == each


# --- interrupted ---


def kill(source, out, *when, flags=()):
    """Run prepare in a process that kills itself at the given moment."""
    command = [sys.executable, "-c", KILL, *map(str, when), "prepare", str(source), "--out", str(out), *FLAGS, *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (out / "prepare.json").exists()


@pytest.mark.parametrize(
    ("when", "jobs"),
    [
        (("builder", "serialize", 0), 19),  # before any record
        (("builder", "serialize", 6), 11),  # in the middle of a shard: it is made again, those before it are not
        (("shards", "_sync", 3), 11),  # between a shard's records and its book
        (("builder", "assemble", 0), 0),  # when all shards are finished
        (("path", "replace", 13), 0),  # when some of them have got their final names
        (("assemble", "_describe", 0), 0),  # before TFDS's metadata
        (("assemble", "write_jsonl", 1), 0),  # between clips.jsonl and rejects.jsonl
    ],
)
def test_killed_build_goes_on(source, undisturbed, decoded, tmp_path, capsys, when, jobs):
    out = tmp_path / "set"
    kill(source[0], out, *when)
    if when[1] == "replace":
        assert (out / BUILDING / NAMES).is_file()
        assert len(list(out.glob("twinreel_clips/*/*"))) == 2, "not the moment that was meant"
    report, _ = run(source[0], out, workers=2)
    assert (report, tree(out)) == (undisturbed[1], undisturbed[0])
    assert decoded.total() == jobs
    done = 19 - jobs
    assert (f"going on: {done} of 19 clips are done" in capsys.readouterr().err) == (done > 0)
