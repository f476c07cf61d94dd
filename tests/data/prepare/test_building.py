"""Builds that are killed, resumed, changed, or made by Beam: always the same bytes, and nothing decoded twice."""

import hashlib
import io
import json
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from files import lines
from rich.console import Console

from twinreel.base.errors import UserError
from twinreel.data.layout import BUILDING, NAMES
from twinreel.data.manifest import Clip, Sentence, write_manifest
from twinreel.data.media.decode import DecodeOptions, decode_clip
from twinreel.data.prepare import maker, record, shards
from twinreel.data.prepare.prepare import prepare

SETTINGS = {"fps": 4, "short_side": 24, "workers": 1, "shard_clips": 4, "max_bad_fraction": 0.5}
FLAGS = ["--fps", "4", "--short_side", "24", "--workers", "1", "--shard_clips", "4", "--max_bad_fraction", "0.5"]
# Where a build is killed: (module or class, what is called, how often before), and how many clips are then not done.
MOMENTS = [
    (("maker", "serialize", 0), 19),  # before any record
    (("maker", "serialize", 6), 11),  # in the middle of a shard: it is made again, those before it are not
    (("shards", "_sync", 3), 11),  # between the records of a shard and its report
    (("builder", "assemble", 0), 0),  # when all shards are finished
    (("path", "replace", 19), 0),  # when some of them have got their final names
    (("assemble", "describe", 0), 0),  # before TFDS's metadata
    (("assemble", "write_jsonl", 0), 0),  # between clips.jsonl and rejects.jsonl
    (("builder", "end", 0), 0),  # when prepare.json is written
]
# One process forks one for each moment: so tensorflow is imported once.
KILL = """
import json, os, signal, sys
from pathlib import Path
from twinreel.__main__ import main
from twinreel.data.prepare import assemble, builder, maker, shards

assert "tensorflow" in sys.modules and "keras" not in sys.modules
moments, source, folder, *flags = map(json.loads, sys.argv[1:])
for number, (place, name, after) in enumerate(moments):
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, (place, name)
        continue
    module = {"assemble": assemble, "builder": builder, "maker": maker, "shards": shards, "path": Path}[place]
    real, calls = getattr(module, name), 0
    def stop(*args, **named):
        global calls
        calls += 1
        if calls > after:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **named)
    setattr(module, name, stop)
    main(["prepare", source, "--out", f"{folder}/{number}", *flags[0]])
    os._exit(1)
"""


def run(source, out, **settings):
    """Prepare; return prepare.json and what was printed."""
    printed = io.StringIO()
    report = prepare(source, out=out, console=Console(file=printed, width=200), **SETTINGS | settings)
    return report, printed.getvalue()


def tree(out):
    """All files of a folder with their bytes, without inputs.jsonl, which has the times of the inputs."""
    files = (path for path in sorted(out.rglob("*")) if path.is_file() and path.name != "inputs.jsonl")
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


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
    real = maker.decode_in_order

    def count(jobs, **named):
        def counted():
            for job in jobs:
                seen[Path(getattr(job, "path", "no job")).name] += 1
                yield job

        return real(counted(), **named)

    monkeypatch.setattr(maker, "decode_in_order", count)
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
    features = record.features()
    serializer = ExampleSerializer(features.get_serialized_info())
    for clip in clips[:4]:
        decoded = decode_clip(manifest.parent / clip.path, options=DecodeOptions(), start_s=clip.start_s)
        fields = record.example(clip, decoded, stored={})
        theirs = serializer.serialize_example(features.encode_example(fields))
        assert tf.train.Example.FromString(record.serialize(fields)) == tf.train.Example.FromString(theirs)
    with pytest.raises(KeyError, match="clip_id"):
        record.serialize({})


@pytest.mark.parametrize(("count", "each"), [(1, 64), (65_536, 64), (65_537, 65), (1_000_000, 977), (10_000_000, 1024)])
def test_clips_of_a_shard(count, each):
    assert shards.clips_per_shard(count) == each


# --- interrupted ---


def test_killed_builds_go_on(source, undisturbed, decoded, capsys, tmp_path):
    given = [[moment for moment, _ in MOMENTS], str(source[0]), str(tmp_path), FLAGS]
    command = [sys.executable, "-c", KILL, *map(json.dumps, given)]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert killed.returncode == 0, killed.stderr
    for number, (moment, jobs) in enumerate(MOMENTS):
        out = tmp_path / str(number)
        assert (out / BUILDING).is_dir(), moment
        assert (out / "prepare.json").exists() == (moment[1] == "end")
        if moment[1] == "replace":
            assert (out / BUILDING / NAMES).is_file()
            assert len(list(out.glob("twinreel_clips/*/*"))) == 2, "not the moment that was meant"
        decoded.clear()
        report, _ = run(source[0], out, workers=2)
        assert (report, tree(out)) == (undisturbed[1], undisturbed[0]), moment
        assert decoded.total() == jobs, moment
        done = 0 if moment[1] == "end" else 19 - jobs
        assert (f"resuming: {done} of 19 clips are done" in capsys.readouterr().err) == (done > 0), moment


@pytest.fixture
def begun(source, monkeypatch, tmp_path):
    """The beginning of a build: two shards of train, one of them without a usable clip."""
    real = maker.ShardMaker.make

    def stop(self, todo, *, advance):
        yield from real(self, todo[:2], advance=advance)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(maker.ShardMaker, "make", stop)
        with pytest.raises(KeyboardInterrupt):
            run(source[0], tmp_path / "set")
    return tmp_path / "set"


def test_changed_options_are_refused_in_the_middle(source, undisturbed, begun, decoded):
    before = tree(begun)
    with pytest.raises(UserError, match=r"(?s)beginning of a build.*options\.fps: 4\.0 -> 2\.0.*--overwrite"):
        run(source[0], begun, fps=2)
    with pytest.raises(UserError, match=r"shard_clips: 4 -> 5"):
        run(source[0], begun, shard_clips=5)
    assert tree(begun) == before
    run(source[0], begun, fps=2, overwrite=True)
    assert decoded.total() == 19
    assert {row["num_frames"] for row in lines(begun / "clips.jsonl")} <= {1, 2}
    assert not (begun / BUILDING).exists()


def test_overwrite_goes_on_too(source, undisturbed, begun, decoded):
    run(source[0], begun, overwrite=True)
    assert decoded.total() == 11
    assert tree(begun) == undisturbed[0]


def test_changed_source_costs_the_shards_that_changed(source, begun, decoded, tmp_path):
    manifest = source[0].with_name("changed.jsonl")
    clips = list(source[1])
    clips[5] = Clip(clip_id="clip5", path="1.mp4", captions=("mended",), split="train")
    write_manifest(manifest, clips=clips)
    _, printed = run(manifest, begun)
    assert "the source has changed" in printed
    assert decoded.total() == 15
    run(manifest, tmp_path / "anew")
    assert tree(begun) == tree(tmp_path / "anew")


@pytest.mark.parametrize("harm", ["cut", "gone", "report"])
def test_damaged_shard_is_made_again(source, undisturbed, begun, decoded, harm):
    file = begun / BUILDING / "train-00000.array_record"
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif harm == "gone":
        file.unlink()
    else:
        file.with_suffix(".json").write_text('{"key": ')
    (begun / BUILDING / ".train-00000.json.0123.tmp").write_text("cut short")
    run(source[0], begun)
    assert decoded.total() == 15
    assert tree(begun) == undisturbed[0]


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_lost_shard_of_a_finished_folder_is_all_that_is_made(source, undisturbed, decoded, tmp_path, harm):
    out = tmp_path / "set"
    run(source[0], out)
    file = out / "twinreel_clips" / "2.0.0" / "twinreel_clips-train.array_record-00001-of-00002"
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        file.unlink()
    decoded.clear()
    report, printed = run(source[0], out)
    assert "made again: twinreel_clips-train.array_record-00001-of-00002" in printed
    assert decoded.total() == 4
    assert (report, tree(out)) == (undisturbed[1], undisturbed[0])


def test_folder_whose_lists_are_lost_too_is_made_anew(source, undisturbed, decoded, tmp_path):
    out = tmp_path / "set"
    run(source[0], out)
    next(out.rglob("*train.array_record-00001*")).unlink()
    (out / "clips.jsonl").write_text("".join((out / "clips.jsonl").read_text().splitlines(keepends=True)[1:]))
    decoded.clear()
    run(source[0], out)
    assert decoded.total() == 19
    assert tree(out) == undisturbed[0]


def test_too_many_rejects_keep_what_is_finished(source, undisturbed, decoded, tmp_path):
    with pytest.raises(UserError, match=r"5 of 19 clips cannot be used, .* what is finished is kept"):
        run(source[0], tmp_path, max_bad_fraction=0.1)
    assert len(lines(tmp_path / "rejects.jsonl")) == 5
    assert decoded.total() == 19
    run(source[0], tmp_path)
    assert decoded.total() == 19
    assert tree(tmp_path) == undisturbed[0]


def test_full_disk(source, undisturbed, begun, decoded):
    """For a while no file may be larger than 100,000 bytes, which each shard is."""
    assert min(shard["bytes"] for shard in undisturbed[1]["shards"]) > 100_000
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*File too large; what is finished is kept: free"):
            run(source[0], begun)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((begun / BUILDING).glob(".*"))
    decoded.clear()
    run(source[0], begun)
    assert decoded.total() == 11
    assert tree(begun) == undisturbed[0]


def test_second_prepare_is_locked_out(source, tmp_path):
    """As long as another process holds the folder, and no longer, however that process ends."""
    hold = "import sys, pathlib; from twinreel.data.prepare.folder import only_one\n"
    hold += "with only_one(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(tmp_path / "set")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another prepare is writing to"):
            run(source[0], tmp_path / "set")
        process.kill()
    run(source[0], tmp_path / "set")


# --- Beam ---


def beam(source, out, options, *flags):
    pytest.importorskip("apache_beam")
    command = [sys.executable, "-m", "twinreel", "prepare", str(source), "--out", str(out), *FLAGS, *flags]
    command += ["--beam_runner", "DirectRunner", "--beam_options", options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_beam_gives_the_same_bytes(source, undisturbed, begun):
    done = beam(source[0], begun, "direct_num_workers=2,direct_running_mode=multi_processing")
    assert done.returncode == 0, done.stderr
    assert "resuming: 8 of 19 clips are done" in done.stderr
    assert tree(begun) == undisturbed[0]


def test_what_beam_left_is_gone_on_with(source, undisturbed, decoded, tmp_path):
    done = beam(source[0], tmp_path, "direct_num_workers=2", "--max_bad_fraction", "0.1")
    assert done.returncode == 2
    assert "5 of 19 clips cannot be used" in done.stderr
    run(source[0], tmp_path)
    assert decoded.total() == 0
    assert tree(tmp_path) == undisturbed[0]


def test_beam_that_fails(source, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"'NoRunner' failed: Unexpected pipeline runner.*DataflowRunner"):
        run(source[0], tmp_path / "a", beam_runner="NoRunner")
    with pytest.raises(UserError, match="--beam_options a=b has no --beam_runner"):
        run(source[0], tmp_path / "b", beam_options=["a=b"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'twinreel\[beam\]'"):
        run(source[0], tmp_path / "c", beam_runner="DirectRunner")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
