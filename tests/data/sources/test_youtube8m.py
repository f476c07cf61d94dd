"""YouTube-8M files that tensorflow's own writer made, read by their context alone, and their features by place."""

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.data.prepare.sequences import RecordError, read_sequence
from twinreel.data.sources.tfrecords import contexts, place_of
from twinreel.data.sources.youtube8m import read_youtube8m
from twinreel.data.tf_cpu import tf

RNG = np.random.default_rng(0)
VOCABULARY = "Index,TrainVideoCount,KnowledgeGraphId,Name\n0,788288,/m/03bt1gh,Game\n1,2,/m/01,\n7,3,/m/02,Vehicle\n"


def sequence(name: str, labels: list[int], rows: dict[str, np.ndarray], key: str = "id") -> bytes:
    feature = tf.train.Feature
    context = {key: feature(bytes_list=tf.train.BytesList(value=[name.encode()]))}
    if labels:
        context["labels"] = feature(int64_list=tf.train.Int64List(value=labels))
    lists = {
        name: tf.train.FeatureList(
            feature=[feature(bytes_list=tf.train.BytesList(value=[row.tobytes()])) for row in array]
        )
        for name, array in rows.items()
    }
    return tf.train.SequenceExample(
        context=tf.train.Features(feature=context), feature_lists=tf.train.FeatureLists(feature_list=lists)
    ).SerializeToString()


def arrays(n: int) -> dict[str, np.ndarray]:
    return {"rgb": RNG.integers(0, 256, (n, 1024), np.uint8), "audio": RNG.integers(0, 256, (n, 128), np.uint8)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two files with records long and short, and what stands in them."""
    here = tmp_path_factory.mktemp("yt8m")
    (here / "vocabulary.csv").write_text(VOCABULARY)
    truth = {"aaaa": ([7, 0], arrays(120)), "bbbb": ([1], arrays(1)), "cccc": ([0], arrays(3)), "test": ([], arrays(2))}
    for file, names in {"train00": ["aaaa", "bbbb"], "validate1": ["cccc"], "test5": ["test"]}.items():
        (here / "frame").mkdir(exist_ok=True)
        with tf.io.TFRecordWriter(str(here / "frame" / f"{file}.tfrecord")) as writer:
            for name in names:
                writer.write(sequence(name, *truth[name]))
    return here, truth


def test_clips_have_labels_splits_and_places(folder):
    here, truth = folder
    found = read_youtube8m(here)
    assert [(c.clip_id, c.split, c.labels, c.path) for c in found.clips] == [
        ("aaaa", "train", ("Vehicle", "Game"), ""),
        ("bbbb", "train", ("/m/01",), ""),
        ("cccc", "val", ("Game",), ""),
    ]
    assert found.clips[0].meta["label_numbers"] == [7, 0]
    assert sum(found.notes.values()) == 1, "the test file's records have no label"
    for clip in found.clips:
        for name, path in clip.features.items():
            file, offset, what = place_of(path)
            assert what == name
            read = read_sequence(here / file, offset=offset, name=name)
            np.testing.assert_array_equal(read, truth[clip.clip_id][1][name])


def test_places_agree_with_tensorflows_own_reading(folder):
    here, _ = folder
    path = here / "frame" / "train00.tfrecord"
    whole = [tf.train.SequenceExample.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(path))]
    for (_, context), example in zip(contexts(path), whole, strict=True):
        assert context["id"] == list(example.context.feature["id"].bytes_list.value)
        assert context["labels"] == list(example.context.feature["labels"].int64_list.value)


def test_the_scale_is_the_owners_dequantize(folder):
    here, _ = folder
    scale, offset = read_youtube8m(here).clips[0].meta["features_scale"]["rgb"]
    low, high = -2, 2
    for byte in (0, 1, 128, 255):
        assert byte * scale + offset == pytest.approx(byte * (high - low) / 255 + ((high - low) / 512 + low))


def test_a_long_context_and_another_order_of_fields_are_read(tmp_path):
    path = tmp_path / "train.tfrecord"
    whole = tf.train.SequenceExample.FromString(sequence("aaaa", [1], arrays(100), key="video_id"))
    swapped = tf.train.SequenceExample(feature_lists=whole.feature_lists).SerializeToString()
    swapped += tf.train.SequenceExample(context=whole.context).SerializeToString()
    long = tf.train.SequenceExample.FromString(sequence("bbbb", list(range(1, 60_000)), {}))
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in (swapped, long.SerializeToString()):
            writer.write(record)
    (_, first), (offset, second) = contexts(path)
    assert first["video_id"] == [b"aaaa"] and first["labels"] == [1]
    assert second["labels"] == list(range(1, 60_000))
    assert read_sequence(path, offset=0, name="rgb").shape == (100, 1024) and offset == len(swapped) + 16


def test_damage_is_told(folder, tmp_path):
    here, _ = folder
    raw = (here / "frame" / "train00.tfrecord").read_bytes()
    (tmp_path / "vocabulary.csv").write_text(VOCABULARY)
    cut = tmp_path / "train00.tfrecord"
    cut.write_bytes(raw[:-5])
    with pytest.raises(UserError, match=r"train00\.tfrecord: the record at byte [\d,]+ goes beyond the end"):
        read_youtube8m(tmp_path)
    cut.write_bytes(b"not a TFRecord file at all")
    with pytest.raises(UserError, match="cut short or is no TFRecord file"):
        read_youtube8m(tmp_path)
    flipped = bytearray(raw)
    flipped[len(raw) // 2] ^= 1
    other = tmp_path / "flipped.tfrecord"
    other.write_bytes(flipped)
    with pytest.raises(RecordError, match="byte 0"):
        read_sequence(other, offset=0, name="rgb")
    with pytest.raises(RecordError, match="byte 3"):
        read_sequence(here / "frame" / "train00.tfrecord", offset=3, name="rgb")
    with pytest.raises(RecordError, match="no feature list 'depth', only audio, rgb"):
        read_sequence(here / "frame" / "train00.tfrecord", offset=0, name="depth")


def test_faults_of_the_folder_are_named(folder, tmp_path):
    here, _ = folder
    with pytest.raises(UserError, match=r"vocabulary\.csv"):
        read_youtube8m(tmp_path)
    (tmp_path / "vocabulary.csv").write_text("Index,Name\n3,Sea\n")
    with pytest.raises(UserError, match=r"train0000\.tfrecord"):
        read_youtube8m(tmp_path)
    raw = (here / "frame" / "train00.tfrecord").read_bytes()
    (tmp_path / "train00.tfrecord").write_bytes(raw)
    with pytest.raises(UserError, match=r"label 7 is not in vocabulary\.csv"):
        read_youtube8m(tmp_path)
    (tmp_path / "train00.tfrecord").rename(tmp_path / "some.tfrecord")
    with pytest.raises(UserError, match="its name tells no split"):
        read_youtube8m(tmp_path)


def test_prepare_makes_records_of_it(folder, tmp_path):
    import io
    import json

    import tensorflow_datasets as tfds

    from twinreel.data.prepare.benchmark import prepare_benchmark

    here, truth = folder
    out = tmp_path / "out"
    report = prepare_benchmark("youtube8m", annotations=here, videos=here, out=out, workers=1)
    assert {split: count["clips"] for split, count in report["counts"].items()} == {"train": 2, "val": 1}
    row = json.loads((out / "clips.jsonl").read_text().splitlines()[0])
    assert row["features"] == {"audio": [120, 128], "rgb": [120, 1024]} and row["duration_s"] == 120
    assert row["features_scale"]["rgb"] == pytest.approx([4 / 255, 4 / 512 - 2])
    stored = tfds.builder_from_directory(next((out / "twinreel_clips").iterdir())).as_data_source(split="train")
    for index, name in enumerate(("aaaa", "bbbb")):
        found = dict(zip(stored[index]["feature_names"], stored[index]["feature_data"], strict=True))
        for modality, want in truth[name][1].items():
            np.testing.assert_array_equal(np.load(io.BytesIO(found[modality.encode()])), want)
