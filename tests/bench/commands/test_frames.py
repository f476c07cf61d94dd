"""`twinreel bench frames` on two films."""

import json

import numpy as np
import pytest
from rich.console import Console

from twinreel.base.errors import UserError
from twinreel.bench.commands import frames as bench
from twinreel.data.manifest import Clip, write_manifest


@pytest.fixture(scope="module")
def source(tmp_path_factory, media):
    root = tmp_path_factory.mktemp("bench")
    slope = np.add.outer(np.arange(48), np.arange(80))[..., None] * np.array([1, 2, 1]) % 250
    films = [[np.roll(slope, 2 * i, axis=1).astype(np.uint8)[:, :64] for i in range(count)] for count in (20, 5)]
    for i, film in enumerate(films):
        media.write(root / f"{i}.mp4", film)
    clips = [Clip(clip_id=str(i), path=f"{i}.mp4", captions=("a",), split="train") for i in range(2)]
    write_manifest(root / "clips.jsonl", clips=clips)
    return str(root / "clips.jsonl")


def test_json(source, capsys):
    flags = ["--clips=2", "--fps=0", "--short_side=0", "--segment=4", "--crf", "18", "30", "--rounds=1"]
    assert bench.main([source, *flags, "--jpeg_quality=92", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["clips"], result["frames"], result["crop"]) == (2, 25, 48)
    jpeg, better, worse = result["ways"].values()
    assert list(result["ways"])[1:] == ["H.264, segments of 4, CRF 18", "H.264, segments of 4, CRF 30"]
    assert jpeg["stored_bytes"] > better["stored_bytes"] > worse["stored_bytes"]
    assert better["psnr_db"] > worse["psnr_db"] + 2 and jpeg["psnr_db"] > 25
    assert jpeg["spread_read_bytes"] == pytest.approx(jpeg["stored_bytes"] * (8 + 5) / 2, rel=0.1)
    # Frames 1, 3, 6, 8, 11, 13, 16, 18 of twenty, and all five: with what is ahead of them in segments of four.
    assert better["spread_read_bytes"] < better["stored_bytes"] * (2 + 4 + 3 + 1 + 4 + 2 + 1 + 3 + 5) / 2 * 1.3
    assert all(way[f"{draw}_decode_us"] > 0 for way in result["ways"].values() for draw in bench.DRAWS)


def test_bytes_of_frames_that_share_a_segment_count_once():
    assert bench._bytes_of([b"k12", b"k1", b"k12", b"j", b"k"]) == 4


def test_table_and_faults(source, capsys, monkeypatch):
    monkeypatch.setattr(bench, "Console", lambda **given: Console(width=150, **given))
    assert bench.main([source, "--clips=1", "--segment=8", "--crf=20", "--rounds=1", "--num_frames=2"]) == 0
    out = capsys.readouterr().out
    assert "JPEG, quality 92" in out and "H.264, segments of 8, CRF 20" in out and "2 drawn, 48 px" in out
    with pytest.raises(UserError, match="--rounds must be at least 1, got 0"):
        bench.measure(source, rounds=0)
