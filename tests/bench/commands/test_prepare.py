"""`twinreel bench prepare` on a folder of four clips."""

import json

import numpy as np
import pytest
from rich.console import Console

from twinreel.__main__ import main as twinreel
from twinreel.bench.commands import prepare as bench
from twinreel.bench.made.films import write_films
from twinreel.bench.sides import bare
from twinreel.data.manifest import Clip, read_manifest, write_manifest
from twinreel.data.media.decode import DecodeOptions, decode_clip


@pytest.fixture(scope="module")
def source(tmp_path_factory, media):
    """Three clips of 16 pictures (one a window of 1 s), and a file that is no video."""
    root = tmp_path_factory.mktemp("bench")
    rng = np.random.default_rng(0)
    for i in range(2):
        frames = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)] * 4 + media.grey(
            *range(20, 200, 15), size=(48, 64)
        )
        media.write(root / f"{i}.mp4", frames, sound=media.tone(2.0) if i else None)
    (root / "3.mp4").write_text("no video " * 100)
    clips = [
        Clip(clip_id="a", path="0.mp4", captions=("a",), split="train"),
        Clip(clip_id="b", path="1.mp4", captions=("b",), split="train"),
        Clip(clip_id="window", path="1.mp4", captions=("c",), split="train", start_s=0.5, end_s=1.5),
        Clip(clip_id="bad", path="3.mp4", captions=("d",), split="train"),
        Clip(clip_id="mute", path="0.mp4", split="train"),
    ]
    write_manifest(root / "clips.jsonl", clips=clips)
    return root / "clips.jsonl"


def test_json(source, capsys):
    flags = ["--json", "--workers", "2", "--rounds", "1", "--fps", "4", "--short_side", "24"]
    assert twinreel(["bench", "prepare", str(source), *flags]) == 0
    result = json.loads(capsys.readouterr().out)
    prepared, alone = result["prepare"], result["bare"]
    assert (result["clips"], result["workers"], result["rounds"]) == (4, 2, 1), "a clip without a caption is left out"
    assert prepared["frames"] == alone["frames"] == 8 + 8 + 4
    assert prepared["failed"] == alone["failed"] == 1
    for side in (prepared, alone):
        assert side["clips_per_s"] == pytest.approx(4 / side["wall_s"])
        assert side["frames_per_s"] == pytest.approx(20 / side["wall_s"])
        assert side["cpu_s"] == pytest.approx(side["own_cpu_s"] + side["workers_cpu_s"])
        assert side["workers_cpu_s"] > 0.1, "two processes that load NumPy and PyAV"
    assert result["ratio"] == pytest.approx(alone["wall_s"] / prepared["wall_s"])
    assert result["cpu_ratio"] == pytest.approx(alone["cpu_s"] / prepared["cpu_s"])
    assert set(alone["stages_s"]) == {"decode", "scale", "jpeg", "sound"} and min(alone["stages_s"].values()) > 0
    assert result["options"]["short_side"] == 24


def test_table_and_films_of_its_own(source, capsys, monkeypatch):
    monkeypatch.setattr(bench, "Console", lambda **given: Console(width=120, **given))
    monkeypatch.setattr("twinreel.bench.made.films.write_films", lambda folder: source)
    assert bench.main(["--workers", "1", "--rounds", "1", "--no-audio"]) == 0
    out = capsys.readouterr().out
    for part in ("PyAV + simplejpeg alone", "CPU ratio", "sound 0 %", "1 in prepare, 1 in the bare loop"):
        assert part in out


def test_films_are_clips_with_sound(tmp_path):
    manifest = write_films(tmp_path, films=2, repeats=3)
    clips = read_manifest(manifest)
    assert len(clips) == 6 and len({clip.clip_id for clip in clips}) == 6 and len({clip.path for clip in clips}) == 2
    found = decode_clip(tmp_path / clips[0].path, options=DecodeOptions(fps=8.0, short_side=128, audio=True))
    assert (
        len(found.encoded) == 4 * 8 and found.audio is not None and len(found.audio) == pytest.approx(64_000, abs=2048)
    )
    assert (tmp_path / "0.mp4").read_bytes() != (tmp_path / "1.mp4").read_bytes()


@pytest.mark.parametrize(
    ("start", "end", "fps"), [(None, None, 4.0), (None, None, 0.0), (0.5, 1.5, 8.0), (0.5, None, 3.0)]
)
def test_bare_loop_keeps_as_many_frames(source, start, end, fps):
    path = source.parent / "1.mp4"
    options = {"fps": fps, "short_side": 24, "jpeg_quality": 92, "audio": True}
    theirs = decode_clip(path, options=DecodeOptions(**options), start_s=start, end_s=end)
    assert bare.decode(str(path), start, end, options)["frames"] == len(theirs.encoded)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["/no/such/file.csv"], "does not exist"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--wrkers", "2"], "--workers"),
    ],
)
def test_faults(source, capsys, flags, message):
    given = flags if flags[0].startswith("/") else [str(source), *flags]
    assert twinreel(["bench", "prepare", *given]) == 2
    assert message in capsys.readouterr().err
