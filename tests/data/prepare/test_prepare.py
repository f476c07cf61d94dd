"""`twinreel prepare`: what lands in the folder, what is rejected, what a second, other or interrupted run does."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import simplejpeg
from files import lines
from rich.console import Console

from twinreel.__main__ import main as twinreel
from twinreel.base.errors import UserError
from twinreel.data.manifest import Clip, write_manifest
from twinreel.data.media.decode import DecodeOptions, decode_clip
from twinreel.data.prepare.prepare import prepare

SETTINGS = {"fps": 4, "short_side": 24, "workers": 2}


def run(source, out, **settings):
    """Prepare; return prepare.json and what was printed."""
    printed = io.StringIO()
    report = prepare(source, out=out, console=Console(file=printed, width=200), **SETTINGS | settings)
    return report, printed.getvalue()


def records(out, split):
    """The records of a split, read with array_record and tensorflow alone."""
    import tensorflow as tf
    from array_record.python import array_record_module

    serialized = []
    for path in sorted((out / "twinreel_clips" / "2.0.0").glob(f"twinreel_clips-{split}.array_record*")):
        reader = array_record_module.ArrayRecordReader(str(path))
        serialized += reader.read_all()
        reader.close()
    examples = []
    for record in serialized:
        feature = tf.train.Example.FromString(record).features.feature
        examples.append({name: list(getattr(f, f.WhichOneof("kind")).value) for name, f in feature.items()})
    return examples


def shards(out):
    return {path.name: path.read_bytes() for path in (out / "twinreel_clips").rglob("*.array_record*")}


@pytest.fixture(scope="module")
def source(tmp_path_factory, media):
    """A manifest of nine good clips in two splits, and the folder with their files."""
    root = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    for index in range(9):
        frames = [rng.integers(0, 255, (32, 48, 3), dtype=np.uint8)] * 8 + media.grey(*range(20, 180, 20))
        sound = None if index % 3 == 0 else media.tone(2.0, hertz=200 + 50 * index)
        media.write(root / "v" / f"{index}.mp4", frames, sound=sound)
    clips = [
        Clip(
            clip_id=f"clip{index}",
            path=f"v/{index}.mp4",
            captions=("一只狗", "word " * 10_000, " ") if index == 0 else (f"caption {index}",),
            split="test" if index % 4 == 3 else "train",
            start_s=1.0 if index == 2 else None,
            labels=("run", "dog") if index == 1 else (),
            transcript="good dog" if index == 1 else "",
            meta={"group": "pair", "n": 1, "foils": {"colour": "a red one"}} if index in (1, 5) else {},
        )
        for index in range(9)
    ]
    write_manifest(root / "m.jsonl", clips=clips)
    return root / "m.jsonl", clips


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "set"
    report, printed = run(source[0], out)
    return out, report, printed


# --- what lands in the folder ---


def test_folder(prepared):
    out, report, printed = prepared
    assert sorted(path.name for path in out.iterdir()) == [
        *("clips.jsonl", "duplicates.jsonl", "index", "inputs.jsonl", "prepare.json", "rejects.jsonl", "twinreel_clips")
    ]
    assert json.loads((out / "prepare.json").read_text(encoding="utf-8")) == report
    assert report["counts"] == {"train": {"clips": 7, "rejected": 0}, "test": {"clips": 2, "rejected": 0}}
    assert report["options"] == {
        **{"fps": 4.0, "short_side": 24, "jpeg_quality": 92, "audio": True, "max_seconds": 600.0, "max_pixels": 2**26},
        "blur_faces": "",
        "splits": ["test", "train"],
        "drop_duplicates": False,
    }
    assert report["bytes"] == sum(map(len, shards(out).values()))
    assert report["captions"] == {"empty_dropped": 1, "from_labels": 0}
    for part in ("train", "test", "1 empty captions dropped", "per clip"):
        assert part in printed
    rows = lines(out / "clips.jsonl")
    assert [(row["split"], row["index"], row["clip_id"]) for row in rows] == [
        *(("train", n, f"clip{index}") for n, index in enumerate((0, 1, 2, 4, 5, 6, 8))),
        *(("test", n, f"clip{index}") for n, index in enumerate((3, 7))),
    ]
    assert rows[1].pop("source") == {"codec": "h264", "height": 32, "width": 48, "fps": 8.0}
    assert len(rows[1].pop("sha256")) == 64
    assert [len(rows[1].pop(name)) for name in ("phash", "motion")] == [8, 8]
    assert rows[1] == {
        **{"split": "train", "index": 1, "clip_id": "clip1", "captions": ["caption 1"], "labels": ["run", "dog"]},
        **{
            "file": "v/1.mp4",
            "spans": [],
            "questions": [],
            "transcript": "good dog",
            "sentences": [],
            "features": {},
            "features_scale": {},
            "silent": False,
            "foils": {"colour": "a red one"},
            "meta": {"n": 1},
        },
        **{"group": "pair", "duration_s": 2.0, "num_frames": 8, "has_audio": True, "height": 24, "width": 36},
    }
    assert rows[0]["group"] is None
    assert "foils" not in rows[0] and "meta" not in rows[0]


def test_records_hold_what_the_decoder_gives(source, prepared):
    manifest, clips = source
    by_id = {clip.clip_id: clip for clip in clips}
    for split in ("train", "test"):
        rows = [row for row in lines(prepared[0] / "clips.jsonl") if row["split"] == split]
        for row, record in zip(rows, records(prepared[0], split), strict=True):
            clip = by_id[row["clip_id"]]
            decoded = decode_clip(
                manifest.parent / clip.path,
                options=DecodeOptions(fps=4, short_side=24),
                start_s=clip.start_s,
                end_s=clip.end_s,
            )
            assert record["clip_id"] == [clip.clip_id.encode()]
            assert record["frames"] == decoded.encoded
            np.testing.assert_array_equal(np.float32(record["timestamps_s"]), decoded.timestamps_s)
            assert (record["height"], record["width"]) == ([24], [36])
            assert record["has_audio"] == [decoded.audio is not None]
            sound = np.frombuffer(record["audio"][0], "<i2")
            np.testing.assert_array_equal(sound, np.int16([]) if decoded.audio is None else decoded.audio)
            captions = [caption.decode() for caption in record["captions"]]
            assert captions == [caption for caption in clip.captions if caption.strip()]
            assert [label.decode() for label in record.get("labels", [])] == list(clip.labels)
            assert record["transcript"] == [clip.transcript.encode()]
            assert record["group"] == [clip.group.encode()]
            assert (record["start_s"], record["end_s"]) == ([clip.start_s or 0.0], [2.0])
            assert json.loads(record["meta"][0]) == clip.meta
            assert simplejpeg.decode_jpeg(record["frames"][0]).shape == (24, 36, 3)


def test_tfds_reads_the_folder(prepared):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(prepared[0] / "twinreel_clips" / "2.0.0")
    assert builder.info.splits["train"].num_examples == 7
    assert builder.info.disable_shuffling
    data = builder.as_data_source("train")
    assert data[6]["clip_id"] == b"clip8"
    assert len(data[6]["frames"]) == 8


def test_same_bytes_with_any_number_of_workers(source, prepared, tmp_path):
    run(source[0], tmp_path / "again", workers=1)
    assert shards(tmp_path / "again") == shards(prepared[0])
    for name in ("clips.jsonl", "prepare.json"):
        assert (tmp_path / "again" / name).read_bytes() == (prepared[0] / name).read_bytes()


# --- a second run ---


def test_second_run_does_nothing(source, prepared):
    out, report, _ = prepared
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again, printed = run(source[0], out, workers=1)
    assert again == report
    assert "is prepared already (9 clips" in printed
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_other_options_or_another_source_are_refused(source, prepared, tmp_path):
    out = tmp_path / "set"
    shutil.copytree(prepared[0], out)
    with pytest.raises(UserError, match=r"(?s)options\.short_side: 24 -> 16.*--overwrite") as error:
        run(source[0], out, short_side=16)
    assert "jpeg_quality" not in str(error.value)
    copy = tmp_path / "copy"
    shutil.copytree(source[0].parent, copy)
    run(copy / "m.jsonl", out)  # the same clips elsewhere are the same source
    write_manifest(copy / "m.jsonl", clips=source[1][:-1])
    with pytest.raises(UserError, match="the list of clips is another"):
        run(copy / "m.jsonl", out)
    report, _ = run(source[0], out, short_side=16, splits=["test"], overwrite=True)
    assert report["options"]["short_side"] == 16
    assert {row["split"] for row in lines(out / "clips.jsonl")} == {"test"}
    assert [name for name in shards(out) if "train" in name] == []


def test_a_result_of_an_earlier_version_gets_its_index(source, prepared, tmp_path):
    shutil.copytree(prepared[0], tmp_path / "out")
    written = {path.name: path.read_bytes() for path in (tmp_path / "out" / "index").iterdir()}
    shutil.rmtree(tmp_path / "out" / "index")
    run(source[0], tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out" / "index").iterdir()} == written
    assert not list((tmp_path / "out").glob(".*"))


def test_damaged_result_is_made_again(source, prepared, tmp_path):
    out = tmp_path / "set"
    shutil.copytree(prepared[0], out)
    for path in out.rglob("*test.array_record*"):
        path.unlink()
    run(source[0], out)
    assert shards(out) == shards(prepared[0])


def test_killed_run_is_no_result_and_the_same_command_mends_it(source, prepared, tmp_path):
    out = tmp_path / "set"
    many = [
        Clip(clip_id=f"{n}-{clip.clip_id}", path=clip.path, captions=clip.captions, split=clip.split)
        for n in range(150)
        for clip in source[1]
    ]
    write_manifest(source[0].with_name("many.jsonl"), clips=many)
    flags = ["--fps", "4", "--short_side", "24", "--workers", "1"]
    command = [sys.executable, "-m", "twinreel", "prepare", str(source[0].with_name("many.jsonl")), "--out", str(out)]
    process = subprocess.Popen(command + flags, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        limit = time.monotonic() + 120
        while not (out / ".building").exists():
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (out / "prepare.json").exists()
    write_manifest(source[0].with_name("many.jsonl"), clips=source[1])  # few again: the rest of this test is quicker
    run(source[0].with_name("many.jsonl"), out)
    assert shards(out) == shards(prepared[0])
    assert not (out / ".building").exists()


def test_folder_of_something_else_is_left_alone(source, tmp_path):
    for name in ("clips.jsonl", "thesis.txt"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=r"holds something else \(clips.jsonl, thesis.txt"):
        run(source[0], tmp_path)
    with pytest.raises(UserError, match="is a file; give a folder"):
        run(source[0], tmp_path / "thesis.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips.jsonl", "thesis.txt"]


def test_two_runs_at_once(source, tmp_path):
    from twinreel.data.prepare.folder import only_one

    with only_one(tmp_path / "set"), pytest.raises(UserError, match="another prepare is writing"):
        run(source[0], tmp_path / "set")


# --- bad clips ---


@pytest.fixture
def mixed(source, tmp_path):
    """A CSV with two good clips and one of each bad kind."""
    shutil.copytree(source[0].parent / "v", tmp_path / "v")
    (tmp_path / "v" / "broken.mp4").write_text("no video " * 100)
    rows = ["v/1.mp4,good,train,", "v/2.mp4,,train,push_ups", "v/none.mp4,no such file,train,"]
    rows += ["v/broken.mp4,not a video,train,", "v/3.mp4,,train,", "v/4.mp4,good,test,"]
    (tmp_path / "m.csv").write_text("path,caption,split,label\n" + "\n".join(rows) + "\n")
    return tmp_path / "m.csv"


def test_bad_clips_are_listed_and_counted(mixed, tmp_path):
    report, printed = run(mixed, tmp_path / "set", max_bad_fraction=0.5)
    assert report["counts"] == {"train": {"clips": 2, "rejected": 3}, "test": {"clips": 1, "rejected": 0}}
    assert report["rejected"] == {"file does not exist": 1, "cannot be opened": 1, "no caption": 1}
    assert report["captions"] == {"empty_dropped": 0, "from_labels": 1}
    rejects = lines(tmp_path / "set" / "rejects.jsonl")
    assert [(line["clip_id"], line["path"], line["split"]) for line in rejects] == [
        *(("v/none", "v/none.mp4", "train"), ("v/broken", "v/broken.mp4", "train"), ("v/3", "v/3.mp4", "train")),
    ]
    assert rejects[1]["reason"].startswith("cannot be opened: Invalid data")
    assert lines(tmp_path / "set" / "clips.jsonl")[1]["captions"] == ["push ups"]
    for part in ("file does not exist", "v/broken.mp4 (Invalid data", "no caption", "label as caption"):
        assert part in printed


def test_too_many_bad_clips_fail(mixed, tmp_path):
    with pytest.raises(UserError, match=r"3 of 6 clips cannot be used, more than max_bad_fraction=0\.4") as error:
        run(mixed, tmp_path / "set", max_bad_fraction=0.4)
    assert "rejects.jsonl" in str(error.value)
    assert "--max_bad_fraction" in str(error.value)
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [".building", "rejects.jsonl"]
    assert len(lines(tmp_path / "set" / "rejects.jsonl")) == 3
    report, _ = run(mixed, tmp_path / "set", max_bad_fraction=0.5)  # goes on from there
    assert report["rejected"] == {"file does not exist": 1, "cannot be opened": 1, "no caption": 1}


def test_hopeless_build_is_broken_off(tmp_path):
    (tmp_path / "m.csv").write_text("path,caption\n" + "".join(f"{n}.mp4,x\n" for n in range(1000)))
    with pytest.raises(UserError, match=r"64 of 1000 clips cannot be used \(stopped after 64 of 1000\)"):
        run(tmp_path / "m.csv", tmp_path / "set")


def test_split_of_which_nothing_is_left(mixed, tmp_path):
    mixed.write_text(mixed.read_text().replace("v/4.mp4,good", "v/none2.mp4,good"))
    with pytest.raises(UserError, match="none of the 1 clips of split 'test' can be used"):
        run(mixed, tmp_path / "set", max_bad_fraction=0.9)


# --- bad input, on the command line ---


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--jpeg_quality", "101"], ["--jpeg_quality is 101", "1 to 100"]),
        (["--fps", "-1"], ["--fps is -1.0"]),
        (["--fps", "nan"], ["--fps is nan"]),
        (["--max_bad_fraction", "5"], ["--max_bad_fraction is 5.0", "0 to 1"]),
        (["--workers", "-2"], ["--workers is -2"]),
        (["--splits", "train,tset"], ["'tset'", "did you mean 'test'"]),
        (["--shortside", "64"], ["unknown flag --shortside", "--short_side"]),
    ],
)
def test_bad_flags(source, tmp_path, capsys, flags, parts):
    assert twinreel(["prepare", str(source[0]), "--out", str(tmp_path / "set"), *flags]) == 2
    message = capsys.readouterr().err
    for part in parts:
        assert part in message
    assert not (tmp_path / "set").exists()


def test_bad_sources(tmp_path, capsys):
    out = str(tmp_path / "set")
    (tmp_path / "empty").mkdir()
    (tmp_path / "m.csv").write_text("path,text\na.mp4,x\n")
    (tmp_path / "mute").mkdir()
    (tmp_path / "mute" / "a.mp4").touch()
    for name, part in (
        ("none", "does not exist"),
        ("empty", "has no video"),
        ("m.csv", "no column 'caption'; the columns found are: path, text"),
        ("mute", "none of the 1 clips of"),
    ):
        assert twinreel(["prepare", str(tmp_path / name), "--out", out]) == 2
        assert part in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_command_line_and_help(source, tmp_path, capsys):
    flags = ["--fps", "2", "--short_side", "16", "--no-audio", "--splits", "test", "--workers", "1"]
    assert twinreel(["prepare", str(source[0]), "--out", str(tmp_path / "set"), *flags]) == 0
    assert "size:" in capsys.readouterr().out
    rows = lines(tmp_path / "set" / "clips.jsonl")
    assert [(row["clip_id"], row["num_frames"], row["has_audio"], row["height"]) for row in rows] == [
        *(("clip3", 4, False, 16), ("clip7", 4, False, 16)),
    ]
    with pytest.raises(SystemExit):
        twinreel(["prepare", "--help"])
    assert "80 % of the clips go to train" in capsys.readouterr().out


# --- real clips ---


@pytest.mark.real
def test_real_clips(real_dir, tmp_path):
    picked = lines(real_dir / "clips.jsonl")[::100] + lines(real_dir / "odd.jsonl")[:6]
    rows = [f"{real_dir / line['path']},caption {n},test" for n, line in enumerate(picked)]
    (tmp_path / "m.csv").write_text("path,caption,split\n" + "\n".join(rows) + "\n")
    report, _ = run(tmp_path / "m.csv", tmp_path / "set", max_bad_fraction=0.2)
    assert report["counts"] == {"test": {"clips": len(picked) - 1, "rejected": 1}}
    assert report["rejected"] == {"no video stream": 1}
    assert all(row["num_frames"] >= 1 for row in lines(tmp_path / "set" / "clips.jsonl"))


def test_limits_and_silent_tracks(tmp_path, media):
    """A clip beyond a limit is rejected and says why; of a silent track its row tells."""
    folder = tmp_path / "a"
    media.write(folder / "train" / "label" / "quiet.mp4", media.grey(10, 90), sound=media.tone(0.25) * 0)
    media.write(folder / "train" / "label" / "large.mp4", media.grey(10, 90, size=(64, 64)))
    out = tmp_path / "out"
    report, printed = run(folder, out, max_pixels=2000, max_bad_fraction=0.5, clip_timeout=30)
    [row] = lines(out / "clips.jsonl")
    assert "quiet" in row["clip_id"] and row["silent"] and not row["has_audio"]
    [line] = lines(out / "rejects.jsonl")
    assert line["reason"] == "pictures larger than max_pixels=2000: 64 x 64 pixels"
    assert report["notes"] == {"silent sound track left out": 1} and "1 clips: silent sound track left out" in printed
    with pytest.raises(UserError, match="clip_memory_gb is"):
        run(folder, tmp_path / "b", clip_memory_gb=0.2)
