"""`prepare --frames_as h264`: its options, and folders that grow."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from twinreel.__main__ import main
from twinreel.data.batches.records import Record, Records
from twinreel.data.transforms.units import is_unit

FLAGS = ["--fps=8", "--short_side=24", "--workers=1", "--frames_as=h264"]


@pytest.fixture(scope="module")
def source(tmp_path_factory, media):
    """A folder of a film with its sound, a picture, and a text for each."""
    root = tmp_path_factory.mktemp("source")
    media.write(root / "film.mp4", media.grey(*range(10, 210, 10), size=(48, 50)), sound=media.tone(2.5))
    Image.fromarray(np.arange(31 * 25 * 3).reshape(31, 25, 3).astype(np.uint8)).save(root / "picture.png")
    for name in ("film", "picture"):
        (root / f"{name}.txt").write_text(f"a {name}")
    return root


def prepared(folder):
    return json.loads((folder / "prepare.json").read_text())


def shards(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*.array_record*")}


def test_options_are_kept_and_compared(source, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["prepare", str(source), "--out", str(out), *FLAGS]) == 0
    kept = prepared(out)["options"]
    assert (kept["frames_as"], kept["segment"], kept["crf"]) == ("h264", 8, 18) and "jpeg_quality" not in kept
    found = {row["clip_id"]: (split, row) for split in Records(out).splits for row in Records(out).rows(split)}
    sizes = {name: (row["num_frames"], row["height"], row["width"]) for name, (_, row) in found.items()}
    assert sorted(sizes.values()) == [(1, 30, 24), (20, 24, 25)]
    for split, row in found.values():
        record = Record(Records(out).read(split, [row["index"]])[0])
        assert all(map(is_unit, record.frames(range(row["num_frames"]))))
    before = shards(out)
    assert main(["prepare", str(source), "--out", str(out), *FLAGS, "--segment=8"]) == 0  # it is what is there
    assert main(["prepare", str(source), "--out", str(tmp_path / "again"), *FLAGS, "--crf=18"]) == 0
    assert shards(tmp_path / "again") == before == shards(out)
    capsys.readouterr()
    for flags, words in (
        ([*FLAGS, "--crf=20"], "crf: 18 -> 20"),
        ([*FLAGS, "--segment=2"], "segment: 8 -> 2"),
        (FLAGS[:-1], "frames_as"),
    ):
        assert main(["prepare", str(source), "--out", str(out), *flags]) == 2
        assert words in capsys.readouterr().err and shards(out) == before


def test_folders_of_other_options_are_not_joined(source, tmp_path, capsys):
    for name, flags in (("a", FLAGS), ("b", FLAGS[:-1]), ("c", [*FLAGS, "--segment=2"])):
        shutil.copytree(source, tmp_path / f"of_{name}")
        for file in (tmp_path / f"of_{name}").iterdir():
            file.rename(file.with_name(f"{name}{file.name}"))
        assert main(["prepare", str(tmp_path / f"of_{name}"), "--out", str(tmp_path / name), *flags]) == 0
    capsys.readouterr()
    for other, words in (("b", "frames_as"), ("c", "segment: 8 -> 2")):
        both = [str(tmp_path / name) for name in ("a", other)]
        assert main(["prepare", "--merge", *both, "--out", str(tmp_path / "x")]) == 2
        assert words in capsys.readouterr().err
    append = ["prepare", str(tmp_path / "of_c"), "--out", str(tmp_path / "a"), "--append", *FLAGS]
    assert main([*append, "--segment=2"]) == 2 and "segment: 8 -> 2" in capsys.readouterr().err
    assert main(append) == 0
    whole = Records(tmp_path / "a")
    for split in whole.splits:
        for row, raw in zip(whole.rows(split), whole.read(split, range(whole.splits[split])), strict=True):
            assert len(Record(raw).frames(range(row["num_frames"]))) == row["num_frames"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--frames_as=h264 --jpeg_quality=90", "--jpeg_quality is 90, which --frames_as h264 does not have"),
        ("--segment=4", "--segment is 4, which --frames_as jpeg does not have; leave it out, or give --frames_as h264"),
        ("--crf=20", "--crf is 20, which --frames_as jpeg does not have"),
        ("--frames_as=h264 --segment=0", "--segment is 0, wanted 1 to 64 frames"),
        ("--frames_as=h264 --segment=65", "--segment is 65, wanted 1 to 64 frames"),
        ("--frames_as=h264 --crf=52", "--crf is 52, wanted 1 (best) to 51"),
        ("--frames_as=av1", "av1"),
    ],
)
def test_senseless_options_are_refused(source, tmp_path, capsys, flags, words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        code = 0
        try:
            code = main(["prepare", str(source), "--out", str(tmp_path / "o"), *flags.split()])
        except SystemExit as error:
            code = error.code
    assert code == 2 and words in " ".join(capsys.readouterr().err.split())
