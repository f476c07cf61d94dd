"""Records whose frames are segments of H.264, read by everything that reads frames."""

import io
import itertools

import numpy as np
import pytest
from damaged_records import damage_frames
from object_store import upload
from PIL import Image

from twinreel.base.errors import UserError
from twinreel.data.batches.partial import PartialRecord
from twinreel.data.batches.pipeline import make_tokenizer, train_batches
from twinreel.data.batches.recorded import clip_of_record
from twinreel.data.batches.records import Record, Records
from twinreel.data.batches.source import Source, read_in_parts
from twinreel.data.inspect.inspect import inspect
from twinreel.data.options import DataOptions, InputSpec
from twinreel.data.prepare.prepare import prepare
from twinreel.data.tf_cpu import tf
from twinreel.data.transforms.units import is_key, split_units
from twinreel.encode.media.files import frames_of
from twinreel.evaluate.reports.pictures import clip_frames, write_thumbnails

SEGMENT = 4


@pytest.fixture(scope="module")
def folder(tiny_data, tmp_path_factory):
    """The clips of `tiny_data` with frames of 51 x 51 pixels, in segments of four."""
    out = tmp_path_factory.mktemp("segments") / "data"
    settings = {"fps": 6.0, "short_side": 51, "segment": SEGMENT, "crf": 12, "workers": 1}
    [manifest] = (tiny_data.parent / "videos").glob("*.jsonl")
    prepare(manifest, out=out, frames_as="h264", **settings)
    return out


@pytest.fixture
def url(folder, s3):
    upload(folder, f"{s3}/data")
    return f"{s3}/data"


def options(folder, **changes):
    given = {"dir": str(folder), "batch_size": 8, "num_frames": 3, "train_video": "random_crop(40)|flip_lr"}
    given |= {"eval_video": "center_crop(40)", "vocab_size": 300, "num_threads": 2, "context_length": 16}
    return DataOptions.of(given | changes)


def batches(data, *, count):
    found = train_batches(data, tokenizer=make_tokenizer(data), seed=1, start_step=0)
    made = list(itertools.islice(found, count))
    found.close()
    return made


def test_batches_are_those_of_jpeg_files_but_for_the_last_bits(folder, tiny_data):
    """The same frames and windows of the same size; the pixels differ by what the codecs lose."""
    changes = {"train_video": "resize(32, 32)"}
    ours, theirs = (batches(options(where, **changes), count=3) for where in (folder, tiny_data))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one["clip_index"], other["clip_index"])
        assert one["video"].shape == other["video"].shape == (8, 3, 32, 32, 3) and one["valid"].all()
        assert np.abs(one["video"].astype(int) - other["video"]).mean() < 4


def test_what_is_stored_is_one_unit_for_each_frame(folder):
    records = Records(folder)
    assert records.segment == SEGMENT and records.options["frames_as"] == "h264" and records.options["crf"] == 12
    assert "jpeg_quality" not in records.options
    [raw] = records.read("val", [1])
    stored = tf.train.Example.FromString(raw).features.feature["frames"].bytes_list.value
    assert len(stored) == records.rows("val")[1]["num_frames"]
    assert [i for i, unit in enumerate(stored) if is_key(unit)] == list(range(0, len(stored), SEGMENT))
    assert [len(split_units(value)) for value in Record(raw).frames([0, 3, 4, 6])] == [1, 4, 1, 3]
    assert Record(raw).frames([6]) == [b"".join(stored[4:7])]


@pytest.mark.parametrize("changes", [{"order": "records"}, {"order": "blocks", "train_sampling": "dense(1)"}])
def test_range_reads_give_the_same_batches(folder, url, s3_proxy, tmp_path, changes):
    want = batches(options(folder, **changes), count=4)
    got = batches(options(url, fetch="frames", cache_dir=str(tmp_path / "c"), **changes), count=4)
    for one, other in zip(want, got, strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)
    assert not list((tmp_path / "c").rglob("*.array_record*"))
    assert [path for method, path in s3_proxy.seen if method == "GET" and ".array_record" in path]


def test_range_reads_bring_a_frame_with_those_ahead_of_it_and_no_other(folder, monkeypatch):
    monkeypatch.setattr("twinreel.data.batches.partial._GAP", -1)
    source = Source(str(folder), split="train", field="f", data=options(folder))
    row, frames = source.rows.rows(np.array([0]))[0], source.rows.frames(0)
    part = PartialRecord("u", row=row, frames=frames, segment=source.records.segment)
    begins = [int(row["value"]) + int(frame["begin"]) for frame in frames]
    sizes = {begin: int(frame["bytes"]) for begin, frame in zip(begins, frames, strict=True)}
    places = part.places([6, 1], sound=False)
    assert [begin for begin, _ in places] == [begins[i] for i in (0, 1, 4, 5, 6)]
    assert all(size == sizes[begin] for begin, size in places)
    [raw] = source.records.read("train", [0])
    stored = tf.train.Example.FromString(raw).features.feature["frames"].bytes_list.value
    found = {place: stored[i] for place, i in zip(places, (0, 1, 4, 5, 6), strict=True)}
    assert part.take(found, indices=[6, 1], sound=False)
    assert part.frames([6, 1]) == Record(raw).frames([6, 1])
    found[places[2]] = b"x" + found[places[2]][1:]  # a picture that is not drawn, but needed
    assert not part.take(found, indices=[6, 1], sound=False)


def test_auto_counts_the_frames_ahead_of_those_that_are_drawn(url, monkeypatch):
    """2 of 12 frames are few; of segments of 12 they bring 13 along."""
    data = options(url, num_frames=2)
    source = Source(url, split="train", field="f", data=data)
    assert read_in_parts(source, data=data, ahead=True)
    monkeypatch.setattr(source.records, "segment", 12)
    assert not read_in_parts(source, data=data, ahead=True)


def test_a_damaged_picture_is_a_damaged_record(folder, monkeypatch):
    damage_frames(monkeypatch, index=3, change=lambda frame: frame[: len(frame) // 2] if is_key(frame) else frame)
    found = batches(options(folder, max_bad_fraction=0.1), count=3)
    seen = np.concatenate([batch["valid"][batch["clip_index"] == 3] for batch in found])
    assert len(seen) and not seen.any()
    with pytest.raises(UserError, match=r"record 3 of split 'train' is damaged .*H\.264"):
        batches(options(folder), count=3)


def test_reports_show_jpeg_files_of_the_frames(folder, tmp_path):
    records = Records(folder)
    jpegs, times = clip_frames(records, split="test", index=2)
    assert len(jpegs) == len(times) == records.rows("test")[2]["num_frames"]
    with Image.open(io.BytesIO(jpegs[5])) as picture:
        assert picture.format == "JPEG" and picture.size == (51, 51)
        shown = np.asarray(picture, float)
    clip = clip_of_record(records, split="test", index=2)
    spec = InputSpec(num_frames=len(times), eval_video="center_crop(51)")
    assert np.abs(frames_of(spec, clip=clip)[5] - shown).mean() < 4
    made = write_thumbnails(tmp_path / "media", records=records, split="test", clips={"a": 2})
    with Image.open(tmp_path / made["a"]) as picture:
        assert picture.format == "WEBP" and picture.n_frames == len(times)


def test_inspect_decodes_all_frames_and_shows_some(folder, tmp_path, monkeypatch):
    found = inspect(folder, out=tmp_path, verify=True)
    assert found["verified"]["faults"] == 0 and found["verified"]["records"] == 40
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert np.asarray(sheet).std() > 20
    page = (tmp_path / "index.html").read_text()
    assert "data:image/jpeg;base64," in page
    monkeypatch.setattr("twinreel.data.inspect.verify.drawable", lambda frames, i: bytes(frames[i]))
    assert inspect(folder, verify=True)["verified"]["faults"] > 0


def test_fingerprints_are_about_those_of_jpeg_files(folder, tiny_data):
    ours, theirs = (Records(where).rows("train") for where in (folder, tiny_data))
    bits = [
        bin(int(a, 16) ^ int(b, 16)).count("1")
        for one, other in zip(ours, theirs, strict=True)
        for a, b in zip(one["phash"], other["phash"], strict=True)
        if a and b
    ]
    assert len(bits) > 50 and np.mean(bits) < 6  # of 64
    assert {one["sha256"] for one in ours}.isdisjoint(one["sha256"] for one in theirs)
