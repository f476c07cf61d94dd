"""`twinreel prepare NAME`: coverage, subset ids, what a second run does, and the command line."""

import hashlib
import io
import json
import subprocess
import sys

import pytest
from files import lines
from rich.console import Console

from twinreel.__main__ import main as twinreel
from twinreel.base.errors import UserError
from twinreel.data.manifest import ids_sha256
from twinreel.data.prepare.benchmark import prepare_benchmark, show
from twinreel.data.sources.registry import SOURCES

SETTINGS = {"fps": 4, "short_side": 24, "workers": 1}


def run(name, folder, out, **settings):
    printed = io.StringIO()
    report = prepare_benchmark(
        name,
        annotations=folder / "annotations",
        videos=folder / "videos",
        out=out,
        console=Console(file=printed, width=200),
        **SETTINGS | settings,
    )
    return report, printed.getvalue()


def counted(report):
    return {
        split: (count["expected"], count["present"], count["prepared"]) for split, count in report["coverage"].items()
    }


@pytest.fixture
def folder(tmp_path, media):
    """MSR-VTT 1k-A in small: three test clips and two for training; a video of each split is missing."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "MSRVTT_JSFUSION_test.csv").write_text(
        "key,vid_key,video_id,sentence\nr0,m9,video9,a fish\nr1,m8,video8,a cat\nr2,m7,video7,a dog\n"
    )
    (tmp_path / "annotations" / "MSRVTT_train.9k.csv").write_text("video_id\nvideo1\nvideo2\n")
    sentences = [{"video_id": f"video{n}", "caption": f"about {n}", "sen_id": n} for n in (1, 2)]
    (tmp_path / "annotations" / "MSRVTT_data.json").write_text(json.dumps({"videos": [], "sentences": sentences}))
    for name in ("TestVideo/video7", "TestVideo/video9", "TrainVal/video1"):
        media.write(tmp_path / "videos" / f"{name}.mp4", media.grey(*range(20, 180, 20)))
    return tmp_path


def test_missing_videos_are_coverage_and_not_bad_clips(folder, tmp_path):
    report, printed = run("msrvtt", folder, tmp_path / "set", max_bad_fraction=0.0)
    assert counted(report) == {"train": (2, 1, 1), "test": (3, 2, 2)}
    assert report["counts"] == {"train": {"clips": 1, "rejected": 1}, "test": {"clips": 2, "rejected": 1}}
    assert report["rejected"] == {"video missing": 2}
    assert report == json.loads((tmp_path / "set" / "prepare.json").read_text())
    assert report["source"] == "msrvtt"
    assert report["benchmark"]["options"] == {"variant": "1ka", "train": "9k"}
    assert report["benchmark"]["deviations"][0] == "test clips: the files have 3, the protocol says 1,000"
    assert "test: coverage 2 of 3 (66.7 %)" in printed
    assert "the protocol says 9,000" in printed
    assert lines(tmp_path / "set" / "rejects.jsonl") == [
        {"clip_id": "video2", "path": "video2", "split": "train", "reason": "video missing"},
        {"clip_id": "video8", "path": "video8", "split": "test", "reason": "video missing"},
    ]
    rows = [(row["clip_id"], row["captions"]) for row in lines(tmp_path / "set" / "clips.jsonl")]
    assert rows == [("video1", ["about 1"]), ("video9", ["a fish"]), ("video7", ["a dog"])]


def test_subset_id_is_that_of_sort_and_sha256sum(folder, tmp_path):
    coverage = run("msrvtt", folder, tmp_path / "set")[0]["coverage"]["test"]
    made = subprocess.run(
        "LC_ALL=C sort | sha256sum", shell=True, input=b"video9\nvideo7\n", capture_output=True, check=True
    )
    assert coverage["prepared_ids_sha256"] == made.stdout.split()[0].decode()
    assert coverage["expected_ids_sha256"] == hashlib.sha256(b"video7\nvideo8\nvideo9\n").hexdigest()
    assert ids_sha256([]) == hashlib.sha256(b"").hexdigest()


def test_evaluation_refuses_or_states_the_coverage(folder, tmp_path):
    from twinreel.evaluate.protocols.retrieval import name_test_set, split_coverage

    out = tmp_path / "set"
    report, _ = run("msrvtt", folder, out)
    rows = [row for row in lines(out / "clips.jsonl") if row["split"] == "test"]
    with pytest.raises(UserError, match=r"covers 66.67 % of its clips: 1 of 3 are missing \(first: video8: video miss"):
        split_coverage(out, split="test", rows=rows, allow_missing=False)
    coverage = split_coverage(out, split="test", rows=rows, allow_missing=True)
    assert (coverage["found"], coverage["expected"]) == (2, 3)
    assert name_test_set(report, rows=rows) == {
        "benchmark": "msrvtt variant=1ka train=9k",
        "subset_id": report["coverage"]["test"]["prepared_ids_sha256"],
    }
    assert name_test_set({"counts": {}}, rows=[])["benchmark"] == ""


def test_the_same_command_again_does_nothing_and_another_video_is_another_source(folder, tmp_path, media):
    out = tmp_path / "set"
    first, _ = run("msrvtt", folder, out)
    stamp = (out / "prepare.json").stat().st_mtime_ns
    again, printed = run("msrvtt", folder, out)
    assert again == first
    assert "prepared already" in printed
    assert (out / "prepare.json").stat().st_mtime_ns == stamp
    media.write(folder / "videos" / "video8.mp4", media.grey(*range(20, 180, 20)))
    with pytest.raises(UserError, match="from another list of clips"):
        run("msrvtt", folder, out)
    whole, _ = run("msrvtt", folder, out, overwrite=True)
    assert counted(whole)["test"] == (3, 3, 3)
    test = whole["coverage"]["test"]
    assert (
        test["prepared_ids_sha256"] == test["expected_ids_sha256"] == first["coverage"]["test"]["expected_ids_sha256"]
    )
    assert [line["clip_id"] for line in lines(out / "rejects.jsonl")] == ["video2"]


def test_a_run_that_ends_just_before_its_last_file_is_mended_by_the_same_command(folder, tmp_path, monkeypatch):
    from twinreel.data.prepare import prepare as module

    whole, _ = run("msrvtt", folder, tmp_path / "whole")
    write = module.write_whole

    def stop(path, **parts):
        if path.name == "prepare.json":
            raise KeyboardInterrupt
        write(path, **parts)

    monkeypatch.setattr(module, "write_whole", stop)
    with pytest.raises(KeyboardInterrupt):
        run("msrvtt", folder, tmp_path / "set")
    monkeypatch.undo()
    report, _ = run("msrvtt", folder, tmp_path / "set")
    assert report == whole
    assert lines(tmp_path / "set" / "rejects.jsonl") == lines(tmp_path / "whole" / "rejects.jsonl")


def test_a_broken_video_is_present_but_not_prepared(folder, tmp_path):
    (folder / "videos" / "video8.mp4").write_bytes(b"no video " * 100)
    with pytest.raises(UserError, match=r"1 of 4 clips cannot be used"):
        run("msrvtt", folder, tmp_path / "set")
    report, _ = run("msrvtt", folder, tmp_path / "set", max_bad_fraction=0.3)
    assert counted(report)["test"] == (3, 3, 2)
    assert report["rejected"] == {"cannot be opened": 1, "video missing": 1}
    assert {line["clip_id"] for line in lines(tmp_path / "set" / "rejects.jsonl")} == {"video2", "video8"}


def test_limits_and_splits(folder, tmp_path):
    with pytest.raises(
        UserError, match=r"test: coverage 2 of 3 .*less than min_coverage=0.6.*video8|train: coverage 1 of 2"
    ):
        run("msrvtt", folder, tmp_path / "set", min_coverage=0.6)
    run("msrvtt", folder, tmp_path / "half", min_coverage=0.5, splits=["train"])  # just so
    report, _ = run("msrvtt", folder, tmp_path / "set", min_coverage=0.6, splits=["test"])
    assert counted(report) == {"test": (3, 2, 2)}
    with pytest.raises(UserError, match=r"unknown split \(--splits\) 'val' \(known: test, train\)"):
        run("msrvtt", folder, tmp_path / "other", splits=["val"])
    with pytest.raises(UserError, match=r"--min_coverage is 50, wanted a share"):
        run("msrvtt", folder, tmp_path / "other", min_coverage=50)
    assert not (tmp_path / "other").exists()


def test_no_video_at_all(folder, tmp_path):
    (folder / "videos").rename(folder / "elsewhere")
    (folder / "videos").mkdir()
    (folder / "videos" / "clip_1.mp4").touch()
    with pytest.raises(UserError, match=r"no video of 'msrvtt' is under .*1 files, such as 'clip_1.mp4'.*'video1'"):
        run("msrvtt", folder, tmp_path / "set")


# --- the command line ---


def test_command_line(folder, tmp_path, capsys):
    flags = ["--annotations", str(folder / "annotations"), "--videos", str(folder / "videos")]
    flags += ["--out", str(tmp_path / "set"), "--fps", "4", "--short_side", "24", "--workers", "1"]
    assert twinreel(["prepare", "msrvtt", *flags, "--splits", "test", "--variant", "1ka"]) == 0
    assert "test: 2 of 3 clips are in" in capsys.readouterr().out.replace("\n", " ")
    assert json.loads((tmp_path / "set" / "prepare.json").read_text())["coverage"]["test"]["present"] == 2
    assert twinreel(["prepare", "msrvtt", *flags, "--fold", "2"]) == 2
    assert "--fold does not belong to 'msrvtt'" in capsys.readouterr().err
    assert twinreel(["prepare", "msrvtt", *flags[2:]]) == 2
    assert "--annotations is missing" in capsys.readouterr().err
    assert twinreel(["prepare", "msrvt", *flags]) == 2
    assert "did you mean 'msrvtt'" in capsys.readouterr().err
    assert twinreel(["prepare", str(folder / "videos"), *flags]) == 2
    assert "--annotations goes with a benchmark" in capsys.readouterr().err


def test_a_folder_that_is_named_as_a_benchmark_is_still_a_folder(folder, tmp_path, monkeypatch, capsys):
    (folder / "ucf101" / "dance").mkdir(parents=True)
    (folder / "videos" / "TestVideo" / "video7.mp4").rename(folder / "ucf101" / "dance" / "a.mp4")
    monkeypatch.chdir(folder)
    assert twinreel(["prepare", "ucf101", "--out", "set", "--fps", "4", "--workers", "1"]) == 0
    assert "benchmark" not in json.loads((folder / "set" / "prepare.json").read_text())
    capsys.readouterr()


def test_list_names_every_source_with_its_files_and_page(capsys):
    assert twinreel(["prepare", "--list"]) == 0
    out = capsys.readouterr().out
    for source in SOURCES.values():
        assert source.name in out
        assert source.published_at in out
        assert all(line in out for line in source.layout.splitlines())


@pytest.mark.parametrize("argv", [["--list", "vatex"], ["vatex", "--list"], ["vatex", "--help"], ["vatex", "-h"]])
def test_one_source_in_full(argv, capsys):
    assert twinreel(["prepare", *argv]) == 0
    out = capsys.readouterr().out
    source = SOURCES["vatex"]
    assert all(line in out for line in (*source.layout.splitlines(), source.videos, source.notes, source.licence))
    assert "--variant hgr | all" in out
    assert "kinetics" not in out


def test_list_does_not_wait_for_tensorflow():
    program = "import sys; from twinreel.__main__ import main; main(['prepare', '--list'])"
    program += "; print('tensorflow' in sys.modules)"
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert made.stdout.splitlines()[-1] == "False"


def test_list_beside_other_flags(capsys):
    assert twinreel(["prepare", "--out", "folder", "--list"]) == 0
    assert "msrvtt" in capsys.readouterr().out


def test_list_of_an_unknown_source():
    with pytest.raises(UserError, match="did you mean 'youcook2'"):
        show("youcook")
