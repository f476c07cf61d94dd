"""The manifest: what is written is read back, and each fault is named with line, field, value and remedy."""

import json

import pytest

from twinreel.base.errors import UserError
from twinreel.data.manifest import Clip, Sentence, read_manifest, write_manifest

GOOD = {"clip_id": "a", "path": "v/a.mp4", "captions": ["a dog runs"], "split": "train"}


def write(path, *lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_round_trip_keeps_every_field_and_every_text(tmp_path):
    clips = [
        Clip(
            clip_id="ä/1",
            path="v/ä 1.mp4",
            captions=("word " * 10_000, "一只狗在雪地里奔跑", "", ' "quoted"\nnext line '),
            split="val_2",
            start_s=1.25,
            end_s=2.5,
            labels=("run", "dog"),
            transcript="good dog",
            sentences=(Sentence(start_s=0.0, end_s=1.5, text="good"), Sentence(start_s=1.0, end_s=3.0, text="dog")),
            features={"rgb": "f/a.npy"},
            meta={"group": "pair7", "n": [1, {"x": None}]},
        ),
        Clip(clip_id="b", path="b.mp4"),
        Clip(clip_id="c", path="", features={"audio": "c.npy"}),
    ]
    write_manifest(tmp_path / "new" / "m.jsonl", clips=clips)
    assert read_manifest(tmp_path / "new" / "m.jsonl") == clips
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["m.jsonl"]
    assert "一只狗" in (tmp_path / "new" / "m.jsonl").read_text(encoding="utf-8")


def test_group_comes_from_meta():
    assert Clip(clip_id="a", path="a", meta={"group": "g"}).group == "g"
    assert Clip(clip_id="a", path="a").group == ""


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.jsonl"
    write_manifest(path, clips=[Clip(clip_id="a", path="a.mp4")])
    before = path.read_bytes()

    def clips():
        yield Clip(clip_id="b", path="b.mp4")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_manifest(path, clips=clips())
    assert path.read_bytes() == before


def test_byte_order_mark_windows_line_ends_and_blank_lines_are_no_fault(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\r\n")
    assert [clip.clip_id for clip in read_manifest(path)] == ["a"]


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ({**GOOD, "start": 1}, ["line 2", "unknown field 'start'", "did you mean 'start_s'"]),
        ({**GOOD, "colour": 1}, ["unknown field 'colour'", "under `meta`"]),
        ({"path": "a.mp4"}, ["field 'clip_id'", "missing"]),
        ({**GOOD, "path": ""}, ["field 'path'", "''"]),
        ({**GOOD, "captions": "a dog"}, ["field 'captions'", "'a dog'", "list of strings"]),
        ({**GOOD, "captions": [1]}, ["field 'captions'", "[1]"]),
        ({**GOOD, "split": "Train set"}, ["field 'split'", "'Train set'", "lower case"]),
        ({**GOOD, "split": "all"}, ["field 'split'", "'all'"]),
        ({**GOOD, "start_s": -1}, ["field 'start_s'", "-1", "0 or more"]),
        ({**GOOD, "start_s": True}, ["field 'start_s'", "True"]),
        ({**GOOD, "start_s": 2, "end_s": 2}, ["field 'end_s'", "after start_s=2"]),
        ({**GOOD, "sentences": ["so"]}, ["field 'sentences'", "'so'", "start_s"]),
        ({**GOOD, "sentences": [{"start_s": 2, "end_s": 1, "text": "so"}]}, ["field 'sentences'", "end_s after it"]),
        ({**GOOD, "sentences": [{"start_s": 0, "end_s": 1, "text": ""}]}, ["field 'text'", "what is said"]),
        ({**GOOD, "features": "a.npy"}, ["field 'features'", "'a.npy'", "modality"]),
        ({**GOOD, "features": {"RGB": "a.npy"}}, ["field 'features'", "lower case"]),
        ({**GOOD, "meta": []}, ["field 'meta'", "[]", "JSON object"]),
        ({**GOOD, "meta": {"group": 7}}, ["field 'meta.group'", "7"]),
        ({**GOOD, "captions": ["\ud800"]}, ["field 'captions'", "surrogate"]),
        ("{not json", ["is not JSON", "'{not json'"]),
        ("[1, 2]", ["[1, 2]", "wanted a JSON object"]),
        ('{"clip_id": "b", "path": "b", "end_s": NaN}', ["field 'end_s'", "nan"]),
        (GOOD, ["clip_id 'a'", "line 1", "own clip_id"]),
    ],
)
def test_fault_is_named(tmp_path, line, parts):
    first = {**GOOD, "clip_id": "a" if line == GOOD else "first"}
    path = write(tmp_path / "m.jsonl", first, line)
    with pytest.raises(UserError) as error:
        read_manifest(path)
    for part in [str(path), "line 2", *parts]:
        assert part in str(error.value)


def test_long_values_are_cut_in_messages(tmp_path):
    path = write(tmp_path / "m.jsonl", {**GOOD, "captions": "word " * 10_000})
    with pytest.raises(UserError) as error:
        read_manifest(path)
    assert len(str(error.value)) < 400


def test_missing_empty_and_undecodable_files(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="has no clip"):
        read_manifest(write(tmp_path / "m.jsonl", ""))
    (tmp_path / "l.jsonl").write_bytes('{"clip_id": "ä"}'.encode("latin-1"))
    with pytest.raises(UserError, match="line 1: is not UTF-8"):
        read_manifest(tmp_path / "l.jsonl")


@pytest.mark.real
def test_real_manifest(real_dir):
    clips = read_manifest(real_dir / "clips.jsonl")
    assert len(clips) == 609
    assert {clip.split for clip in clips} == {"train", "test"}
