"""WebDataset archives to records: the same as of the files in a folder, rejects, the command line, S3."""

import io
import json
import subprocess

import fsspec
import numpy as np
import pytest
from files import lines
from rich.console import Console
from webdataset_archives import META, pack

from twinreel.__main__ import main as twinreel
from twinreel.base.errors import UserError
from twinreel.data.manifest import read_manifest
from twinreel.data.prepare.prepare import prepare
from twinreel.data.sources.read import read_source
from twinreel.data.sources.splits import hashed_split


def built(source, out, **options):
    """Prepare; return the records' files, the rows without what names their place, prepare.json, what was printed."""
    printed = io.StringIO()
    console = Console(file=printed, width=300)
    settings = {"fps": 4, "short_side": 24, "workers": 2, "max_bad_fraction": 0.5, "console": console}
    report = prepare(source, out=out, **settings | options)
    shards = {path.name: path.read_bytes() for path in (out / "twinreel_clips").rglob("*.array_record*")}
    rows = [{key: value for key, value in row.items() if key != "file"} for row in lines(out / "clips.jsonl")]
    return shards, rows, report, printed.getvalue()


def test_records_equal_those_of_the_same_files_in_a_folder(tmp_path, media):
    rng = np.random.default_rng(0)
    (tmp_path / "v").mkdir()
    names = [f"v/{index}" for index in range(6)]
    for index, name in enumerate(names):
        frames = [rng.integers(0, 255, (32, 48, 3), dtype=np.uint8) for _ in range(8)]
        sound = media.tone(1.0, hertz=300) if index % 2 and index < 5 else None
        media.write(tmp_path / f"{name}.{'webm' if index == 5 else 'mp4'}", frames, **_codec(index), sound=sound)
        (tmp_path / f"{name}.txt").write_text(f"caption {index}")
    rows = [
        {"clip_id": name, "path": f"{name}.{'webm' if name == 'v/5' else 'mp4'}", "captions": [f"caption {name[2:]}"]}
        for name in names
    ]
    (tmp_path / "m.jsonl").write_text(
        "\n".join(json.dumps(row | {"split": hashed_split(row["clip_id"])}) for row in rows)
    )
    (tmp_path / "t").mkdir()
    subprocess.run(["tar", "-cf", str(tmp_path / "t" / "0.tar"), "--sort=name", "v"], cwd=tmp_path, check=True)
    folder = built(tmp_path / "m.jsonl", tmp_path / "a")
    tars = built(f"{tmp_path}/t/{{0..0}}.tar", tmp_path / "b")
    assert folder[0] == tars[0] and folder[1] == tars[1] and len(folder[0]) > 0


def _codec(index):
    return {"codec": "libvpx-vp9"} if index == 5 else {}


def test_rejects_of_an_archive_are_listed_and_counted(tmp_path, media):
    frames = media.grey(*range(10, 90, 10))
    data = media.write(tmp_path / "x.mp4", frames).read_bytes()
    files = {f"{n:03d}_00000.mp4": data for n in range(3)} | {f"{n:03d}_00000.txt": "grey" for n in range(3)}
    files |= {
        "100.mp4": b"no media at all",
        "100.txt": "x",
        "101.json": META | {"status": "failed"},
        "train/../x.mp4": b"",
    }
    pack(tmp_path / "train-0.tar", files)
    _, _, report, printed = built(tmp_path / "train-0.tar", tmp_path / "out")
    assert report["counts"] == {"train": {"clips": 3, "rejected": 3}}
    assert report["rejected"] == {
        "cannot be opened": 1,
        "no media in the archive": 1,
        "member has a name with '..' in it": 1,
    }
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert [line["path"].split("::")[-1] for line in rejects] == ["100.mp4", "train-0.tar", "train/../x.mp4"]
    assert "status 'failed'" in printed
    with pytest.raises(UserError, match="2 of 6 clips cannot be used"):
        built(tmp_path / "train-0.tar", tmp_path / "out2", max_bad_fraction=0.2)


def test_one_manifest_may_name_members(tmp_path, media):
    data = media.write(tmp_path / "x.mp4", media.grey(*range(10, 90, 10))).read_bytes()
    pack(tmp_path / "0.tar", {"one.mp4": data, "two.mp4": data[:100]})
    rows = [
        {"clip_id": name, "path": f"0.tar::{name}.mp4", "captions": ["x"], "split": "train"}
        for name in ("one", "two", "three")
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    _, _, report, _ = built(tmp_path / "m.jsonl", tmp_path / "out", max_bad_fraction=0.7)
    assert report["counts"]["train"]["clips"] == 1
    assert report["rejected"] == {"cannot be opened": 1, "file does not exist": 1}


def test_command_line(tmp_path, media, capsys):
    data = media.write(tmp_path / "x.mp4", media.grey(*range(10, 90, 10))).read_bytes()
    pack(tmp_path / "s" / "train-0.tar", {"k.mp4": data, "k.txt": "grey"})
    flags = ["--short_side", "24", "--workers", "1"]
    assert (
        twinreel(
            ["prepare", "webdataset", "--shards", f"{tmp_path}/s/train-{{0..0}}.tar", "--out", f"{tmp_path}/a", *flags]
        )
        == 0
    )
    assert twinreel(["prepare", f"{tmp_path}/s", "--out", f"{tmp_path}/b", *flags]) == 0
    a, b = ((tmp_path / out / "clips.jsonl").read_text() for out in ("a", "b"))
    assert a == b and json.loads(a)["captions"] == ["grey"]
    capsys.readouterr()
    assert twinreel(["prepare", "webdataset", "--out", f"{tmp_path}/c"]) == 2
    assert "--shards" in capsys.readouterr().err


def test_archives_on_s3(tmp_path, media, s3):
    data = media.write(tmp_path / "x.mp4", media.grey(*range(10, 90, 10))).read_bytes()
    for part in range(3):
        path = pack(tmp_path / f"train-{part}.tar", {f"{part}.mp4": data, f"{part}.txt": f"grey {part}"})
        with fsspec.open(f"{s3}/shards/train-{part}.tar", "wb") as file:
            file.write(path.read_bytes())
    here = built(f"{tmp_path}/train-{{0..2}}.tar", tmp_path / "a")
    for source in (f"{s3}/shards/train-{{0..2}}.tar", f"{s3}/shards"):
        listing = read_source(source)
        assert listing.root == f"{s3}/shards" and len(listing.clips) == 3
    there = built(f"{s3}/shards", tmp_path / "b")
    assert here[:2] == there[:2]


@pytest.mark.real
def test_real_clips_in_archives_give_the_same_records(tmp_path, real_dir):
    clips = [clip for clip in read_manifest(real_dir / "clips.jsonl") if clip.captions][::40]
    for part in range(2):
        files = {}
        for clip in clips[part::2]:
            files[f"{clip.clip_id}.mp4"] = (real_dir / clip.path).read_bytes()
            files[f"{clip.clip_id}.json"] = {"caption": clip.captions[0], "url": clip.path}
        pack(tmp_path / f"{part}.tar", files)
    rows = [
        {"clip_id": clip.clip_id, "path": str(real_dir / clip.path), "captions": clip.captions[:1]}
        | {"split": hashed_split(clip.path), "meta": {"url": clip.path}}
        for clip in clips[0::2] + clips[1::2]
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    folder = built(tmp_path / "m.jsonl", tmp_path / "a", fps=2, short_side=64)
    tars = built(f"{tmp_path}/{{0..1}}.tar", tmp_path / "b", fps=2, short_side=64)
    assert folder[:2] == tars[:2] and len(clips) > 10
