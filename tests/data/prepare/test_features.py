"""Precomputed features: into records and out again as batches; every bad file is refused with its reason."""

import io
import json
import tarfile

import numpy as np
import pytest

from twinreel.data.manifest import Clip, write_manifest
from twinreel.data.media.decode import DecodedClip, DecodeError
from twinreel.data.prepare.features import add_features, no_video
from twinreel.data.prepare.prepare import prepare

RNG = np.random.default_rng(0)
SCALE = {"features_scale": {"a": [0.5, -3.0]}}


def npy(array: np.ndarray, **settings) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **settings)
    return file.getvalue()


def clip(**fields) -> Clip:
    return Clip(clip_id="x", path="", captions=("a",), features={"a": "a.npy"}, **fields)


def add(folder, raw: bytes, **fields):
    (folder / "a.npy").write_bytes(raw)
    return add_features(clip(**fields), no_video(), root=folder)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "uint8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_features_come_back_as_they_were(tmp_path, dtype, order):
    array = np.asarray(RNG.integers(0, 255, (5, 3)), dtype, order=order)
    decoded, found = add(tmp_path, npy(array), meta=SCALE)
    assert isinstance(decoded, DecodedClip) and decoded.duration_s == 5 and decoded.encoded == []
    back = np.load(io.BytesIO(found["a"].npy), allow_pickle=False)
    np.testing.assert_array_equal(back, array)
    assert back.dtype == np.dtype(dtype).newbyteorder("<") and back.flags.c_contiguous
    assert found["a"].shape == (5, 3)
    assert found["a"].scale == ((0.5, -3.0) if dtype == "uint8" else None)


def test_duration_is_that_of_the_window_or_of_the_rows(tmp_path):
    raw = npy(np.ones((6, 2), np.float32))
    assert add(tmp_path, raw)[0].duration_s == 6
    assert add(tmp_path, raw, meta={"features_fps": 4})[0].duration_s == 1.5
    assert add(tmp_path, raw, start_s=1.0, end_s=9.5)[0].duration_s == 8.5
    decoded = DecodedClip(**{**vars(no_video()), "duration_s": 2.25})
    with_video = Clip(clip_id="x", path="a.mp4", features={"a": "a.npy"})
    assert add_features(with_video, decoded, root=tmp_path)[0].duration_s == 2.25


def lying_header() -> bytes:
    """A header that promises a terabyte."""
    raw = npy(np.ones((5, 3), np.float32))
    return raw.replace(b"(5, 3), }" + b" " * 12, b"(500000000000, 1), }"[:21].ljust(21))


OBJECTS = npy(np.array([[{"a": 1}]], object), allow_pickle=True)
FLOATS = npy(np.ones((5, 3), np.float32))


@pytest.mark.parametrize(
    "raw,fields,why",
    [
        (OBJECTS, {}, "Python objects, which are never loaded"),
        (npy(np.ones(5, np.float32)), {}, r"shape \[5\], wanted \[rows, columns\]"),
        (npy(np.ones((0, 5), np.float32)), {}, "one row at least"),
        (npy(np.ones((5, 0), np.float32)), {}, "one row at least"),
        (npy(np.ones((5, 3), np.float64)), {}, "dtype float64, wanted float32"),
        (npy(np.ones((5, 3), np.int64)), {}, "dtype int64"),
        (npy(np.array([[1, np.nan]], np.float32)), {}, "NaN"),
        (npy(np.array([[1, np.inf]], np.float16)), {}, "infinite"),
        (npy(np.ones((5, 3), np.uint8)), {}, "features_scale"),
        (npy(np.ones((5, 3), np.uint8)), {"meta": {"features_scale": {"a": [1]}}}, "features_scale"),
        (npy(np.ones((5, 3), np.uint8)), {"meta": {"features_scale": {"a": [1, "2"]}}}, "features_scale"),
        (FLOATS, {"meta": {"features_fps": 0}}, "features_fps is 0"),
        (FLOATS, {"meta": {"features_fps": "2"}}, "features_fps is '2'"),
        (FLOATS[:-1], {}, "only 59 of 60 bytes"),
        (FLOATS + b"x", {}, "more"),
        (b"", {}, "features cannot be used"),
        (b"PK\x03\x04 not an array", {}, "magic"),
        (lying_header(), {}, "bytes, more than"),
    ],
)
def test_bad_files_are_refused_with_their_reason(tmp_path, raw, fields, why):
    found, features = add(tmp_path, raw, **fields)
    assert isinstance(found, DecodeError) and features == {}
    assert found.reason == "features cannot be used"
    with pytest.raises(DecodeError, match=why):
        raise found


def test_damaged_bytes_anywhere_never_raise_anything_else(tmp_path):
    raw = npy(np.arange(12, dtype=np.float32).reshape(4, 3))
    for place in range(0, 128, 3):
        for byte in (0, 255, 0x39):
            damaged = bytearray(raw)
            damaged[place] = byte
            found, _ = add(tmp_path, bytes(damaged))
            assert isinstance(found, (DecodedClip, DecodeError))


def test_a_missing_file_is_told_and_a_clip_that_was_rejected_stays_so(tmp_path):
    found, _ = add_features(clip(), no_video(), root=tmp_path)
    assert isinstance(found, DecodeError) and "a.npy does not exist" in str(found)
    error = DecodeError("no caption")
    assert add_features(clip(), error, root=tmp_path) == (error, {})


def test_a_member_of_a_tar_archive_is_read_in_place(tmp_path):
    array = RNG.normal(size=(4, 2)).astype(np.float32)
    (tmp_path / "in.npy").write_bytes(npy(array))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "in.npy", arcname="deep/in.npy")
    for member, good in (("deep/in.npy", True), ("none.npy", False)):
        one = Clip(clip_id="x", path="", features={"a": f"a.tar::{member}"})
        found, features = add_features(one, no_video(), root=tmp_path)
        assert isinstance(found, DecodedClip) is good
        if good:
            np.testing.assert_array_equal(np.load(io.BytesIO(features["a"].npy)), array)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, media):
    """A folder of features-only clips, one with a video, one that is bad."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out") / "p"
    arrays = {f"c{i}": RNG.normal(size=(3 + i, 4)).astype(np.float32) for i in range(6)}
    eight = RNG.integers(0, 255, (5, 2)).astype(np.uint8)
    clips = []
    for name, array in arrays.items():
        np.save(source / f"{name}.npy", array)
        clips.append(
            Clip(clip_id=name, path="", captions=(f"clip {name}",), split="train", features={"a": f"{name}.npy"})
        )
    np.save(source / "eight.npy", eight)
    media.write(source / "v.mp4", media.grey(*range(10, 90, 10)))
    both = {"a": "c0.npy", "b": "eight.npy"}
    scale = {"features_scale": {"b": [0.5, -3.0]}}
    clips.append(Clip(clip_id="v", path="v.mp4", captions=("video",), split="train", features=both, meta=scale))
    clips.append(Clip(clip_id="bad", path="", captions=("bad",), split="train", features={"a": "none.npy"}))
    write_manifest(source / "clips.jsonl", clips=clips)
    prepare(source / "clips.jsonl", out=out, max_bad_fraction=0.2, workers=1)
    return source, out, arrays, eight


def test_records_hold_the_files(prepared):
    from twinreel.data.batches.records import Records

    _, out, arrays, eight = prepared
    rows = [json.loads(line) for line in (out / "clips.jsonl").read_text().splitlines()]
    assert [row["clip_id"] for row in rows] == [*arrays, "v"]
    for row in rows[:-1]:
        want = arrays[row["clip_id"]]
        assert row["features"] == {"a": list(want.shape)} and row["features_scale"] == {}
        assert (row["num_frames"], row["height"], row["width"], row["has_audio"]) == (0, 0, 0, False)
        assert row["duration_s"] == len(want)
    assert rows[-1]["features"] == {"a": [3, 4], "b": [5, 2]} and rows[-1]["features_scale"] == {"b": [0.5, -3.0]}
    assert rows[-1]["num_frames"] == 8
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert [(line["clip_id"], line["reason"]) for line in rejects] == [
        ("bad", "features cannot be used: a: none.npy does not exist")
    ]
    import tensorflow_datasets as tfds

    stored = tfds.builder_from_directory(next((out / "twinreel_clips").iterdir())).as_data_source(split="train")
    for index, (name, want) in enumerate(arrays.items()):
        record = stored[index]
        assert record["clip_id"] == name.encode() and list(record["feature_names"]) == [b"a"]
        np.testing.assert_array_equal(np.load(io.BytesIO(record["feature_data"][0])), want)
    np.testing.assert_array_equal(np.load(io.BytesIO(stored[6]["feature_data"][1])), eight)
    assert Records(out).splits


def test_batches_give_the_numbers_that_the_bytes_stand_for(prepared):
    from twinreel.data.batches.pipeline import eval_batches, make_tokenizer
    from twinreel.data.options import DataOptions

    _, out, arrays, _ = prepared
    data = DataOptions.of({"dir": str(out), "batch_size": 4, "num_frames": 0, "features": {"a": 4}, "vocab_size": 300})
    rows = [row for b in eval_batches(data, tokenizer=make_tokenizer(data), split="train", batch_size=4)
            for row in zip(b["features_a"], b["features_a_mask"], b["valid"], strict=True)]  # fmt: skip
    assert len(rows) == 8 and not rows[7][2]
    for (found, mask, _), want in zip(rows, arrays.values(), strict=False):
        assert mask.sum() == min(4, len(want))
        middles = ((np.arange(4) + 0.5) * len(want) / 4).astype(int) if len(want) > 4 else np.arange(len(want))
        np.testing.assert_array_equal(found[mask], want[middles])


def test_video_of_clips_without_frames_is_refused(prepared):
    from twinreel.base.errors import UserError
    from twinreel.data.batches.pipeline import make_tokenizer, train_batches
    from twinreel.data.options import DataOptions

    given = {"dir": str(prepared[1]), "batch_size": 4, "num_frames": 2, "features": {"a": 4}, "vocab_size": 300}
    data = DataOptions.of(given)
    with pytest.raises(UserError, match=r"has precomputed features but no frames; set config\.data\.num_frames=0"):
        train_batches(data, tokenizer=make_tokenizer(data), seed=0, start_step=0)


def test_bytes_are_dequantised(prepared):
    from twinreel.data.batches.reading import _real

    _, _, _, eight = prepared
    row = {"features_scale": {"b": [0.5, -3.0]}}
    np.testing.assert_array_equal(_real(eight, "b", row), eight.astype(np.float32) * 0.5 - 3)
    assert _real(eight, "b", {}) is eight


def test_a_changed_feature_file_is_noticed_by_its_content(prepared):
    """Also where the size stays; the records are made again."""
    from twinreel.data.batches.records import Record, Records

    source, out, arrays, _ = prepared
    settings = {"out": out, "max_bad_fraction": 0.2, "workers": 1}
    first = prepare(source / "clips.jsonl", **settings)
    for changed in (arrays["c3"] + 100, arrays["c3"]):
        np.save(source / "c3.npy", changed)
        report = prepare(source / "clips.jsonl", **settings)
        stored = Record(Records(out).read("train", [3])[0]).features("a")
        np.testing.assert_array_equal(stored, changed)
    assert report == first
