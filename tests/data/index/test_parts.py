"""Where the parts of a record lie: bytes taken from the file equal what ArrayRecord and protobuf read."""

import zlib

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from twinreel.data.batches.records import Record
from twinreel.data.index.parts import find_parts, in_file, joined, load_parts, range_of, save_parts, without_headers
from twinreel.data.prepare.shards import write_records
from twinreel.data.tf_cpu import tf


def example(frames, sound):
    rng = np.random.default_rng(frames * 100 + sound)
    bytes_list = lambda values: tf.train.Feature(bytes_list=tf.train.BytesList(value=values))  # noqa: E731
    times = np.arange(frames) / 8
    features = {
        "frames": bytes_list([rng.bytes(int(n)) for n in rng.integers(1, 30_000, frames)]),
        "audio": bytes_list([rng.bytes(sound)]),
        "captions": bytes_list([b"a", b"b"]),
        "timestamps_s": tf.train.Feature(float_list=tf.train.FloatList(value=times)),
        "height": tf.train.Feature(int64_list=tf.train.Int64List(value=[48])),
    }
    made = tf.train.Example(features=tf.train.Features(feature=features))
    return made.SerializeToString(deterministic=True)


def test_parts_taken_from_the_file_are_those_of_the_records(tmp_path):
    records = [example(n, sound) for n, sound in [(1, 0), (8, 0), (0, 7), (30, 70_000), (3, 5), (60, 1)]]
    records += [example(1, size) for size in range(65_300, 65_500, 25)]  # ends near the edges of blocks
    write_records(tmp_path / "a", records=iter(records))
    content = (tmp_path / "a").read_bytes()

    def take(begin, size):
        first, length = range_of(int(begin), size=int(size))
        return without_headers(content[first : first + length], begin=first)

    parts = find_parts(tmp_path / "a")
    ends = parts.counts.cumsum()
    for record, row, end, count in zip(records, parts.records, ends, parts.counts, strict=True):
        assert take(row["value"], row["bytes"]) == record and zlib.crc32(record) == row["crc"]
        parsed, own = Record(record), parts.frames[end - count : end]
        np.testing.assert_array_equal(own["time_s"], parsed.timestamps_s)
        for i, frame in enumerate(own):
            [jpeg] = parsed.frames([i])
            assert take(row["value"] + frame["begin"], frame["bytes"]) == jpeg and zlib.crc32(jpeg) == frame["crc"]
        sound = parsed._feature["audio"].bytes_list.value[0]
        if sound:
            assert take(row["value"] + row["sound"], row["sound_bytes"]) == sound
    save_parts(tmp_path / "p", parts=parts)
    for a, b in zip(load_parts(tmp_path / "p"), parts, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("how", ["group_size:1", "group_size:4,uncompressed"])
def test_shards_of_another_form_are_refused(tmp_path, how):
    writer = ArrayRecordWriter(str(tmp_path / "a"), how)
    for _ in range(4):
        writer.write(example(3, 2000))
    writer.close()
    with pytest.raises(ValueError, match=r"compressed|several"):
        find_parts(tmp_path / "a")


def test_places_in_the_file_skip_the_headers():
    assert [in_file(0), in_file(65511), in_file(65512)] == [24, 65535, 65536 + 24]
    assert range_of(65511, size=2) == (65535, 26)


def test_ranges_that_lie_close_are_joined():
    assert joined([(50, 10), (0, 10), (12, 5), (60, 1)], gap=2) == [(0, 17), (50, 11)]
    assert joined([(0, 10), (3, 2)], gap=0) == [(0, 10)]
