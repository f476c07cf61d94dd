"""The bench of input from behind a URL: what it counts is what was transferred."""

import json

import fsspec
import pytest

from twinreel.__main__ import main
from twinreel.data.prepare.prepare import prepare
from twinreel.demo import moving_shapes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    source = tmp_path_factory.mktemp("shapes")
    manifest = moving_shapes.write(source, train=12, val=2, test=2, size=48, fps=16, workers=1, progress=False)
    prepare(manifest, out=source / "data", fps=0, short_side=0, workers=1, shard_clips=4)
    return source / "data"


def test_frames_move_fewer_bytes_than_shards(folder, capsys, monkeypatch):
    system = fsspec.filesystem("memory")
    for file in folder.rglob("*"):
        if file.is_file():
            system.pipe_file(f"/bench/data/{file.relative_to(folder).as_posix()}", file.read_bytes())
    flags = ["--batch_size", "4", "--num_frames", "2", "--size", "32", "--batches", "3", "--beside", str(folder)]
    assert main(["bench", "remote", "--data", "memory://bench/data", *flags, "--json"]) == 0
    shards, frames, local = json.loads(capsys.readouterr().out)
    assert [row["fetch"] for row in (shards, frames, local)] == ["shards", "frames", "local"]
    train = sum(path.stat().st_size for path in folder.rglob("*train.array_record*"))
    assert shards["mb_per_clip"] == pytest.approx(train / 1e6 / 12)  # each shard once: 12 clips are one epoch
    assert 0 < frames["mb_per_clip"] < shards["mb_per_clip"] / 2 and local["mb_per_clip"] == 0
    assert 0 < frames["requests_per_clip"] <= 3  # at most one for each frame, and one for the sound
    assert min(row["clips_per_s"] for row in (shards, frames, local)) > 0
