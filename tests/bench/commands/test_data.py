"""`twinreel bench data` on a folder of three clips."""

import json

import pytest
from rich.console import Console

from twinreel.base.errors import UserError
from twinreel.bench.commands import data as bench
from twinreel.data.manifest import Clip, write_manifest
from twinreel.data.prepare.prepare import prepare


@pytest.fixture(scope="module")
def folder(tmp_path_factory, media):
    root = tmp_path_factory.mktemp("bench")
    clips = []
    for i in range(3):
        media.write(root / f"{i}.mp4", media.grey(*range(20, 20 + 8 * 20, 20), size=(48, 64)))
        clips.append(Clip(clip_id=str(i), path=f"{i}.mp4", captions=(f"clip {i}",), split="train"))
    write_manifest(root / "clips.jsonl", clips=clips)
    prepare(root / "clips.jsonl", out=root / "data", fps=0, short_side=0, workers=1)
    return root / "data"


def test_json(folder, capsys):
    flags = ["--data", str(folder), "--json", "--seconds", "0.4", "--num_frames", "4", "--threads", "1"]
    assert bench.main(flags) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["frames_per_s"] == pytest.approx(4 * result["clips_per_s"])
    assert result["ratio"] == pytest.approx(result["frames_per_s"] / result["raw_frames_per_s"])
    assert result["clips_per_s"] > 0 and result["raw_frames_per_s"] > 0
    assert result["video"] == "random_crop(48)|flip_lr", "no larger than the frames"
    assert set(result["variants"]) == {"with sound", "all transforms", "mixture of 5"}
    assert all(found["frames_per_s"] > 0 for found in result["variants"].values())
    assert list(result["stages"]) == ["read", "parse", "draw", "decode", "transform", "rest"]
    assert sum(result["stages"].values()) == pytest.approx(result["cpu_us_per_frame"])
    assert result["batch_size"] == 3 and result["threads"] == 1 and result["num_frames"] == 4


def test_table_and_given_preprocessing(folder, capsys, monkeypatch):
    monkeypatch.setattr(bench, "Console", lambda **given: Console(width=100, **given))
    assert bench.main(["--data", str(folder), "--video", "resize(16)", "--seconds", "0.2", "--no-variants"]) == 0
    out = capsys.readouterr().out
    assert "resize(16)" in out and "libjpeg-turbo alone" in out and "ratio" in out
    assert "by stage: read" in out and "mixture" not in out


def test_frames_in_h264_are_decoded_by_pyav_alone_as_well(folder, tmp_path, capsys):
    prepare(
        folder.parent / "clips.jsonl", out=tmp_path / "d", fps=0, short_side=0, workers=1, frames_as="h264", segment=4
    )
    capsys.readouterr()
    flags = ["--data", str(tmp_path / "d"), "--json", "--seconds", "0.2", "--num_frames", "4", "--no-variants"]
    assert bench.main(flags) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["raw"] == "PyAV" and result["raw_frames_per_s"] > 0 and result["stages"]["decode"] > 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "/no/such/folder"], "does not exist"),
        (["--dta", "x"], "--data"),
        (["--seconds", "0"], "--seconds"),
        (["--split", "trian"], "did you mean 'train'"),
        (["--video", "resize(0)"], "at least 1"),
    ],
)
def test_faults(folder, flags, message):
    given = flags if "--data" in flags or "--dta" in flags else ["--data", str(folder), *flags]
    with pytest.raises(UserError, match=message):
        bench.main(given)
