"""Batches of a small prepared data set: the same for any number of processes and after any resume, pixel by pixel."""

import itertools
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from damaged_records import damage_frames

from twinreel.base.errors import UserError
from twinreel.data.batches.pipeline import eval_batches, make_tokenizer, train_batches
from twinreel.data.batches.records import Records
from twinreel.data.manifest import Clip, write_manifest
from twinreel.data.media.decode import DecodeOptions, decode_clip
from twinreel.data.options import DataOptions
from twinreel.data.prepare.prepare import prepare
from twinreel.data.tf_cpu import tf
from twinreel.encode.media.files import frames_of

TRAIN, TEST = 21, 5
FRAMES = [3 + 2 * (i % 5) for i in range(TRAIN)]  # 3 to 11
PAIRS = [(0, 1), (2, 3), (4, 5)]


def texture(seed: int, count: int, height: int, width: int) -> list[np.ndarray]:
    """Frames that differ from each other: coloured tiles of 8 pixels, one frame brighter than the last."""
    rng = np.random.default_rng(seed)
    tiles = np.kron(rng.integers(0, 128, (height // 8, width // 8, 3)), np.ones((8, 8, 1), int))
    return [(tiles + 110 * i // count).astype(np.uint8) for i in range(count)]


@pytest.fixture(scope="module")
def source(tmp_path_factory, media) -> Path:
    """The manifest of 21 train and 5 test clips of 3 to 11 frames; every third has sound."""
    root = tmp_path_factory.mktemp("clips")
    clips = []
    for i in range(TRAIN + TEST):
        split, n = ("train", FRAMES[i]) if i < TRAIN else ("test", 6)
        size = (64, 48) if i % 4 == 0 else (48, 80)
        sound = media.tone(n / 8, hertz=300 + 40 * i) if i % 3 == 0 else None
        media.write(root / f"{i}.mp4", texture(i, n, *size), sound=sound)
        group = next((f"pair{a}" for a, b in PAIRS if i in (a, b)), "") if split == "train" else ""
        clips.append(
            Clip(
                clip_id=f"c{i}",
                path=f"{i}.mp4",
                captions=tuple(f"clip number {i} in wording {w}" for w in range(1 + i % 3)),
                split=split,
                labels=(("even", "odd")[i % 2],) if i != 7 else (),
                meta={"group": group} if group else {},
            )
        )
    write_manifest(root / "clips.jsonl", clips=clips)
    return root / "clips.jsonl"


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "data"
    prepare(source, out=out, fps=0, short_side=0, workers=1)
    return out


@pytest.fixture(scope="module")
def options(folder):
    """Makes a DataOptions of this folder."""

    def make(**changes) -> DataOptions:
        given = {
            "dir": str(folder),
            "batch_size": 8,
            "num_frames": 4,
            "train_video": "random_crop(32)|flip_lr",
            "eval_video": "center_crop(32)",
            "context_length": 24,
            "vocab_size": 400,
            "num_threads": 2,
        }
        return DataOptions.of(given | changes)

    return make


@pytest.fixture(scope="module")
def tokenizer(options):
    return make_tokenizer(options())


def take(batches, count):
    got = list(itertools.islice(batches, count))
    batches.close()
    return got


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def stored_frames(folder: Path, split: str) -> list[list[np.ndarray]]:
    """Every record's frames, read by TFDS's own reader of the folder and decoded by simplejpeg."""
    import tensorflow_datasets as tfds

    records = tfds.builder_from_directory(folder / "twinreel_clips" / "2.0.0").as_data_source(split)
    return [[simplejpeg.decode_jpeg(frame) for frame in record["frames"]] for record in records]


def test_keys_shapes_and_types(options, tokenizer):
    data = options(audio_seconds=0.5)
    [batch] = take(train_batches(data, tokenizer=tokenizer, seed=0, start_step=0, label_names=["even", "odd"]), 1)
    got = {key: (value.dtype.name, value.shape) for key, value in batch.items()}
    assert got == {
        "video": ("uint8", (8, 4, 32, 32, 3)),
        "text": ("int32", (8, 24)),
        "text_mask": ("bool", (8, 24)),
        "valid": ("bool", (8,)),
        "clip_index": ("int64", (8,)),
        "caption_index": ("int32", (8,)),
        "label": ("int32", (8,)),
        "audio": ("int16", (8, 8000)),
        "audio_mask": ("bool", (8,)),
        "audio_samples": ("int32", (8,)),
    }


@pytest.mark.parametrize("processes", [2, 4])
def test_any_number_of_processes_sees_the_same_global_batches(options, tokenizer, processes):
    data = options(group_size=2, audio_seconds=0.25)
    whole = take(train_batches(data, tokenizer=tokenizer, seed=5, start_step=1), 3)  # spans the end of an epoch
    parts = [
        take(
            train_batches(data, tokenizer=tokenizer, seed=5, start_step=1, process_index=p, process_count=processes),
            3,
        )
        for p in range(processes)
    ]
    for k, batch in enumerate(whole):
        assert_equal(batch, {key: np.concatenate([part[k][key] for part in parts]) for key in batch})
    assert not all(batch["valid"].all() for batch in whole), "no record came twice: the seed tests less than it could"


def test_resuming_goes_on_as_if_nothing_had_happened(options, tokenizer):
    data = options()
    straight = take(train_batches(data, tokenizer=tokenizer, seed=3, start_step=0), 7)
    resumed = take(train_batches(data, tokenizer=tokenizer, seed=3, start_step=4), 3)
    for a, b in zip(straight[4:], resumed, strict=True):
        assert_equal(a, b)
    began = time.monotonic()
    take(train_batches(data, tokenizer=tokenizer, seed=3, start_step=10**9), 1)
    assert time.monotonic() - began < 20


def test_epochs_differ_in_order_frames_crops_and_captions(options, tokenizer):
    data = options(batch_size=7)  # an epoch is 3 batches
    batches = take(train_batches(data, tokenizer=tokenizer, seed=0, start_step=0), 6)
    first, second = ({k: np.concatenate([b[k] for b in e]) for k in e[0]} for e in (batches[:3], batches[3:]))
    for epoch in (first, second):
        assert sorted(epoch["clip_index"].tolist()) == list(range(TRAIN)) and epoch["valid"].all()
    assert first["clip_index"].tolist() != second["clip_index"].tolist()
    back, there = np.argsort(first["clip_index"]), np.argsort(second["clip_index"])
    other_pixels = [(first["video"][a] != second["video"][b]).any() for a, b in zip(back, there, strict=True)]
    assert np.mean(other_pixels) > 0.8
    several = np.arange(TRAIN) % 3 > 0
    assert (first["caption_index"][back] != second["caption_index"][there])[several].any()
    assert (first["caption_index"][back] <= np.arange(TRAIN) % 3).all() and first["caption_index"].min() >= 0


def test_seeds_differ(options, tokenizer):
    [a], [b] = (take(train_batches(options(), tokenizer=tokenizer, seed=s, start_step=0), 1) for s in (0, 1))
    assert a["clip_index"].tolist() != b["clip_index"].tolist()


def test_groups_stand_side_by_side(options, tokenizer):
    found = set()
    for batch in take(train_batches(options(group_size=2), tokenizer=tokenizer, seed=0, start_step=0), 3):
        found |= {frozenset(pair) for pair in batch["clip_index"].reshape(-1, 2).tolist()}
    assert {frozenset(pair) for pair in PAIRS} <= found


def test_texts_belong_to_their_clips(options, tokenizer, folder):
    rows = Records(folder).rows("train")
    for batch in take(train_batches(options(), tokenizer=tokenizer, seed=0, start_step=0), 3):
        for i, (clip, caption) in enumerate(zip(batch["clip_index"], batch["caption_index"], strict=True)):
            assert tokenizer.decode(batch["text"][i]) == rows[clip]["captions"][caption]
            assert (batch["text"][i] != 0).tolist() == batch["text_mask"][i].tolist()


def test_training_frames_are_parts_of_the_stored_frames(options, tokenizer, folder):
    """Decoded independently: all T frames are the same window of frames in order, one of each segment."""
    stored = stored_frames(folder, "train")
    data = options(train_video="random_crop(32)")
    for batch in take(train_batches(data, tokenizer=tokenizer, seed=2, start_step=0), 2):
        for clip, video in zip(batch["clip_index"].tolist(), batch["video"], strict=True):
            assert _find(video, np.stack(stored[clip])), f"clip {clip}: no window and no frames fit"


def _find(video: np.ndarray, frames: np.ndarray) -> bool:
    n, height, width, _ = frames.shape
    inner = video[:, 2:-2, 2:-2].astype(int)
    for y, x in itertools.product(range(height - 31), range(width - 31)):
        window = frames[:, y + 2 : y + 30, x + 2 : x + 30].astype(int)
        if np.abs(window[:, :4] - inner[0, :4]).max(axis=(1, 2, 3)).min() > 1:
            continue
        used = [int(np.abs(window - frame).max(axis=(1, 2, 3)).argmin()) for frame in inner]
        if all(np.abs(window[u] - frame).max() <= 1 for u, frame in zip(used, inner, strict=True)):
            t = len(inner)
            segments = [(i * n // t, -(-(i + 1) * n // t)) for i in range(t)]
            return all(low <= u < high for u, (low, high) in zip(used, segments, strict=True))
    return False


def test_evaluation_covers_every_clip_once_in_order(options, tokenizer, folder):
    stored, rows = stored_frames(folder, "test"), Records(folder).rows("test")
    batches = list(eval_batches(options(), tokenizer=tokenizer, split="test", batch_size=2))
    assert [b["clip_index"].tolist() for b in batches] == [[0, 1], [2, 3], [4, -1]]
    assert [b["valid"].tolist() for b in batches] == [[True, True], [True, True], [True, False]]
    assert all(len(value) == 2 for batch in batches for value in batch.values())
    assert not batches[-1]["video"][1].any() and batches[-1]["text_mask"][1].any()
    for batch, i in itertools.product(batches, range(2)):
        if not batch["valid"][i]:
            continue
        clip = int(batch["clip_index"][i])
        assert batch["caption_index"][i] == 0
        assert tokenizer.decode(batch["text"][i]) == rows[clip]["captions"][0]
        frames = np.stack([stored[clip][k] for k in (0, 2, 3, 5)])  # the middles of four segments of six frames
        y, x = (frames.shape[1] - 32) // 2, (frames.shape[2] - 32) // 2
        want = frames[:, y : y + 32, x : x + 32].astype(int)
        assert np.abs(want - batch["video"][i])[:, 2:-2, 2:-2].max() <= 1


def test_a_file_is_encoded_as_its_record_is_evaluated(options, tokenizer, source):
    data = options(eval_video="resize_short(40)|center_crop(32)")
    [batch] = list(eval_batches(data, tokenizer=tokenizer, split="test", batch_size=TEST))
    for i in range(TEST):
        clip = decode_clip(source.parent / f"{TRAIN + i}.mp4", options=DecodeOptions(fps=None, short_side=0))
        np.testing.assert_array_equal(frames_of(data.input, clip=clip), batch["video"][i])
    with pytest.raises(UserError, match="the given clip"):
        frames_of(options(eval_video="center_crop(200)").input, clip=clip)


@pytest.mark.parametrize(("split", "processes"), [("train", 2), ("train", 4), ("test", 4)])
def test_processes_share_the_batches_of_an_evaluation(options, tokenizer, split, processes):
    """Of the five test clips the last process has none."""
    data = options(audio_seconds=0.25)
    whole = list(eval_batches(data, tokenizer=tokenizer, split=split, batch_size=8))
    parts = [
        list(
            eval_batches(data, tokenizer=tokenizer, split=split, batch_size=8, process_index=p, process_count=processes)
        )
        for p in range(processes)
    ]
    assert {len(part) for part in parts} == {len(whole)}
    for k, batch in enumerate(whole):
        for key in ("clip_index", "valid", "video", "audio"):
            np.testing.assert_array_equal(np.concatenate([part[k][key] for part in parts]), batch[key])


@pytest.mark.parametrize("sampling", ["uniform", "middle"])
def test_sound_is_that_of_the_window_of_the_frames(options, tokenizer, folder, sampling):
    """Sound is read by the protobuf parser and cut here in NumPy: the middle of the window, or all of a short one."""
    data = options(num_frames=2, audio_seconds=0.5, eval_sampling=sampling)
    [batch] = list(eval_batches(data, tokenizer=tokenizer, split="train", batch_size=TRAIN))
    raw = Records(folder).read("train", range(TRAIN))
    for i, record in enumerate(raw):
        feature = tf.train.Example.FromString(record).features.feature
        sound = np.frombuffer(feature["audio"].bytes_list.value[0], "<i2")
        assert batch["audio_mask"][i] == (i % 3 == 0)
        start, length = ((FRAMES[i] - 2) // 2, 2) if sampling == "middle" else (0, FRAMES[i])  # in 1/8 s, 2000 samples
        crop = min(8000, 2000 * length)
        want = np.zeros(8000, np.int16)
        part = sound[2000 * start + (2000 * length - crop) // 2 :][:crop]
        want[: len(part)] = part
        np.testing.assert_array_equal(batch["audio"][i], want)
        assert batch["audio_samples"][i] == len(part)
    assert np.abs(batch["audio"].astype(int)).max() > 1000


def test_labels(options, tokenizer):
    [batch] = list(
        eval_batches(options(), tokenizer=tokenizer, split="train", batch_size=TRAIN, label_names=["odd", "even"])
    )
    want = [-1 if i == 7 else (1, 0)[i % 2] for i in range(TRAIN)]
    assert batch["label"].tolist() == want
    assert batch["valid"].tolist() == [label >= 0 for label in want]


def test_truncated_captions_are_counted(options, tokenizer):
    batches = eval_batches(options(context_length=4), tokenizer=tokenizer, split="test", batch_size=2)
    assert (
        batches.texts.lengths.truncated
        == batches.texts.lengths.total
        == sum(1 + i % 3 for i in range(TRAIN, TRAIN + TEST))
    )
    batches.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_split": "trian"}, r"split \(config\.data\.train_split\).*'trian'; did you mean 'train'"),
        ({"batch_size": 32}, "larger than the split, which has 21 clips"),
        ({"batch_size": 9, "group_size": 2}, r"config\.data\.group_size"),
        ({"train_video": "random_crop(64)"}, r"config\.data\.train_video.*64 x 64 pixels does not fit in frames of 48"),
        ({"train_video": "random_corp(32)"}, "did you mean 'random_crop'"),
        ({"train_sampling": "unifrom"}, r"config\.data\.train_sampling.*did you mean 'uniform'"),
        ({"num_frames": -1}, r"config\.data\.num_frames"),
        ({"num_threads": -1}, r"config\.data\.num_threads"),
        ({"context_length": 1}, r"config\.data\.context_length"),
        ({"text": "lowercase"}, r"config\.data\.text"),
        ({"dir": "/no/such/folder"}, "does not exist; make it with `twinreel prepare"),
    ],
)
def test_faults_are_told_before_the_first_batch(options, tokenizer, changes, message):
    with pytest.raises(UserError, match=message):
        train_batches(options(**changes), tokenizer=tokenizer, seed=0, start_step=0)


def test_evaluation_must_not_be_random(options, tokenizer):
    for changes in ({"eval_video": "random_crop(32)"}, {"eval_sampling": "uniform_jitter"}):
        with pytest.raises(UserError, match="random"):
            eval_batches(options(**changes), tokenizer=tokenizer, split="test", batch_size=2)


def test_folders_that_cannot_be_read(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is empty; make it with"):
        Records(tmp_path / "empty")
    for name, message in (
        ("prepare.json", "cut short"),
        ("twinreel_clips/2.0.0/features.json", "damaged"),
        ("twinreel_clips/2.0.0/twinreel_clips-test.array_record-00000-of-00001", "shard .* is missing"),
    ):
        broken = tmp_path / name.replace("/", "_")
        shutil.copytree(folder, broken)
        (broken / name).unlink()
        with pytest.raises(UserError, match=message):
            Records(broken)
    lines = (folder / "clips.jsonl").read_text().splitlines()
    broken = shutil.copytree(folder, tmp_path / "short")
    (broken / "clips.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(UserError, match=r"clips\.jsonl lists .* the shards hold"):
        Records(broken)
    broken = shutil.copytree(folder, tmp_path / "cut")
    shard = next(broken.glob("*/*/*test.array_record*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(UserError, match=rf"shard {shard.name} has \d+ bytes instead of {shard.stat().st_size + 100}"):
        Records(broken)
    broken = shutil.copytree(folder, tmp_path / "old")
    prepared = json.loads((broken / "prepare.json").read_text())
    (broken / "prepare.json").write_text(json.dumps(prepared | {"version": 1}))
    with pytest.raises(UserError, match=r"is of format 1, this version reads \d; run .*--overwrite"):
        Records(broken)


def test_a_damaged_shard_is_named(options, folder, tokenizer, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    shard = broken / "twinreel_clips/2.0.0/twinreel_clips-test.array_record-00000-of-00001"
    content = bytearray(shard.read_bytes())
    used = len(content.rstrip(b"\0"))
    content[used // 3 : used // 3 + 64] = b"\xaa" * 64
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"record \d of split 'test' is damaged.*twinreel prepare"):
        list(eval_batches(options(dir=str(broken)), tokenizer=tokenizer, split="test", batch_size=2))


def test_a_damaged_frame_is_named(options, tokenizer, monkeypatch):
    damage_frames(monkeypatch, index=3, change=lambda frame: frame[:60])
    batches = eval_batches(options(), tokenizer=tokenizer, split="test", batch_size=2)
    next(batches)
    with pytest.raises(UserError, match=r"record 3 of split 'test' is damaged"):
        list(batches)


def test_a_program_that_stops_in_the_middle_of_reading_ends_well(options, folder):
    code = f"""
from twinreel.data.options import Augmentation, DataOptions, FeedOptions, InputSpec
from twinreel.data.batches.pipeline import make_tokenizer, train_batches
data = {options()!r}
next(train_batches(data, tokenizer=make_tokenizer(data), seed=0, start_step=0))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr
