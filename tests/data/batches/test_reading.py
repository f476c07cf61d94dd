"""What is read of a record: the sound that goes with the drawn frames, the windows and the frames' times."""

import numpy as np
import pytest

from twinreel.data.batches.clip_graph import ClipGraph
from twinreel.data.batches.flow import TARGETS, Flow
from twinreel.data.batches.order import Rows
from twinreel.data.batches.pipeline import eval_batches, make_tokenizer, train_batches
from twinreel.data.batches.reading import Reader, Wanted
from twinreel.data.batches.records import Record, Records
from twinreel.data.batches.source import Source
from twinreel.data.manifest import Clip, write_manifest
from twinreel.data.options import DataOptions
from twinreel.data.prepare.prepare import prepare

RATE = 16_000
STAMPS = [0, 50, 300, 340, 700, 1500, 1540, 2000, 2600, 2640, 3100, 3900]  # ms, of a clip of about 4 s
CLIPS = 4  # the last one has no sound


@pytest.fixture(scope="module")
def folder(tmp_path_factory, media):
    """Clips with uneven stamps and sound of which no stretch repeats."""
    root = tmp_path_factory.mktemp("reading")
    clips = []
    for c in range(CLIPS):
        sound = np.random.default_rng(c).integers(-9000, 9000, 4 * RATE).astype(np.int16)
        frames = media.grey(*(20 + 18 * i for i in range(len(STAMPS))))
        media.write(root / f"{c}.mkv", frames, stamps_ms=STAMPS, sound=sound if c < CLIPS - 1 else None)
        clips.append(Clip(clip_id=f"c{c}", path=f"{c}.mkv", captions=(f"clip {c}",), split="train"))
    write_manifest(root / "clips.jsonl", clips=clips)
    prepare(root / "clips.jsonl", out=root / "out", fps=0, short_side=0, workers=1)
    return root / "out"


@pytest.fixture(scope="module")
def options(folder):
    def make(**changes):
        given = {"dir": str(folder), "batch_size": CLIPS, "num_frames": 3, "context_length": 16, "vocab_size": 300}
        given |= {"eval_video": "center_crop(32)", "train_sampling": "uniform_jitter", "num_threads": 1}
        return DataOptions.of(given | changes)

    return make


@pytest.fixture(scope="module")
def tokenizer(options):
    return make_tokenizer(options())


@pytest.fixture(scope="module")
def stored(folder):
    """By clip: all of its sound, and its duration in seconds."""
    records = Records(folder)
    found = []
    for c in range(CLIPS):
        whole = Record(records.read("train", [c])[0]).sound(start_s=0, end_s=100, samples=10**6)
        found.append((whole, records.rows("train")[c]["duration_s"]))
    return found


def reader_of(data, *, seed):
    source = Source(data.feed.dir, split="train", field="config.data.train_split", data=data)
    return Reader([source], data=data, graph=ClipGraph.of(data, train=seed >= 0), seed=seed)


def wanted(*, epoch=0):
    return Wanted(np.zeros(CLIPS, np.int32), np.arange(CLIPS), np.full(CLIPS, epoch))


def begin_of(part, whole):
    """Where a stretch of samples begins in the whole."""
    places = np.flatnonzero(whole[: len(whole) - len(part) + 1] == part[0])
    [found] = [place for place in places if (whole[place : place + len(part)] == part).all()]
    return found


def test_evaluation_hears_the_middle_of_the_window(options, tokenizer, stored):
    data = options(audio_seconds=0.5, window_seconds=2.0)
    [batch] = eval_batches(data, tokenizer=tokenizer, split="train", batch_size=CLIPS)
    assert batch["audio_mask"].tolist() == [True, True, True, False]
    assert batch["audio_samples"].tolist() == [8000, 8000, 8000, 0]
    for c, (whole, duration) in enumerate(stored[:-1]):
        assert begin_of(batch["audio"][c], whole) == pytest.approx(RATE * (duration / 2 - 0.25), abs=1)
    assert not batch["audio"][-1].any()


def test_training_hears_any_part_of_the_window(options, stored):
    data = options(audio_seconds=0.5, window_seconds=2.0)
    places = []
    for epoch in range(30):
        read, _ = reader_of(data, seed=3).read(wanted(epoch=epoch))
        for c, (whole, _) in enumerate(stored[:-1]):
            start, end = read.window_s[c]
            begin = begin_of(read.audio[c], whole) / RATE
            assert end - start == pytest.approx(2.0, abs=1e-4)
            assert start - 1e-4 <= begin and begin + 0.5 <= end + 1e-4, "sound from outside of the window"
            assert begin == pytest.approx(read.audio_start_s[c], abs=1 / RATE)
            places.append((begin - start) / 1.5)
        assert read.audio_samples.tolist() == [8000, 8000, 8000, 0]
    counts, _ = np.histogram(places, bins=3, range=(0, 1))
    assert counts.min() > 15, "the places are not spread over the window"


def test_the_place_is_a_function_of_seed_epoch_and_record(options):
    data = options(audio_seconds=0.5)
    first, again = (reader_of(data, seed=3).read(wanted())[0] for _ in range(2))
    np.testing.assert_array_equal(first.audio, again.audio)
    for seed, epoch in ((4, 0), (3, 1)):
        other = reader_of(data, seed=seed).read(wanted(epoch=epoch))[0]
        assert (other.audio_start_s[:-1] != first.audio_start_s[:-1]).all()
    quiet = reader_of(options(), seed=3).read(wanted())[0]
    np.testing.assert_array_equal(quiet.frame_times_s, first.frame_times_s)  # sound does not change what is seen


def test_all_of_a_window_that_is_no_longer_than_the_sound(options, stored):
    data = options(audio_seconds=3.0, window_seconds=1.0)
    for seed in (-1, 5):
        read, _ = reader_of(data, seed=seed).read(wanted())
        for c, (whole, _) in enumerate(stored[:-1]):
            start = read.window_s[c, 0]
            count = read.audio_samples[c]
            assert count == pytest.approx(RATE, abs=1)
            assert begin_of(read.audio[c, :count], whole) == pytest.approx(RATE * start, abs=1)
            assert not read.audio[c, count:].any() and read.audio_start_s[c] == start


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_each_evaluation_window_has_its_own_sound(options, tokenizer, stored, seconds):
    data = options(audio_seconds=0.25, eval_clips=3, window_seconds=seconds)
    [batch] = eval_batches(data, tokenizer=tokenizer, split="train", batch_size=CLIPS)
    assert batch["audio"].shape == (CLIPS, 3, 4000) and batch["video"].shape[:2] == (CLIPS, 3)
    assert batch["audio_mask"].tolist() == [[True] * 3] * 3 + [[False] * 3]
    assert batch["audio_samples"].tolist() == [[4000] * 3] * 3 + [[0] * 3]
    for c, (whole, duration) in enumerate(stored[:-1]):
        length = seconds or duration / 3
        for v in range(3):
            middle = v * (duration - length) / 2 + length / 2
            assert begin_of(batch["audio"][c, v], whole) == pytest.approx(RATE * (middle - 0.125), abs=1)


@pytest.mark.parametrize("sampling", ["uniform", "first", "middle(2)", "fps_middle(2)"])
@pytest.mark.parametrize("windows", [1, 2])
def test_windows_and_frame_times(options, folder, sampling, windows):
    """Against the frames' own grey levels, which tell which frames were drawn."""
    data = options(eval_sampling=sampling, eval_clips=windows, window_seconds=1.7)
    graph = ClipGraph.of(data, train=False)
    read, _ = reader_of(data, seed=-1).read(wanted())
    shape = (CLIPS, windows) if windows > 1 else (CLIPS,)
    assert read.window_s.shape == (*shape, 2) and read.frame_times_s.shape == (*shape, 3)
    assert read.window_s.dtype == read.frame_times_s.dtype == np.float32
    duration = Records(folder).rows("train")[0]["duration_s"]
    for c in range(CLIPS):
        size = {"height": int(read.height[c]), "width": int(read.width[c])}
        video = graph.decode(read.encoded[c], **size, uniforms=read.uniforms[c])
        number = np.rint((video.mean(axis=(-3, -2, -1)) - 20) / 18).astype(int)
        np.testing.assert_allclose(read.frame_times_s[c], np.array(STAMPS)[number] / 1000, atol=2e-3)
        for v in range(windows):
            start, end = read.window_s[c].reshape(windows, 2)[v]
            low = v * (duration - 1.7) if windows > 1 else (duration - 1.7) / 2
            assert low - 1e-4 <= start < end <= low + 1.7 + 1e-4
            times = read.frame_times_s[c].reshape(windows, 3)[v]
            shown_until = [next((s / 1000 for s in STAMPS if s / 1000 > t + 2e-3), duration) for t in times]
            assert (times < end).all() and (np.array(shown_until) > start).all()
    np.testing.assert_array_equal(read.window[:, 0], read.window_s.reshape(CLIPS, windows, 2)[:, 0, 0])
    np.testing.assert_array_equal(read.window[:, 1], read.window_s.reshape(CLIPS, windows, 2)[:, -1, 1])


def test_windows_without_frames(options):
    data = options(num_frames=0, audio_seconds=0.5, window_seconds=1.0)
    read, _ = reader_of(data, seed=-1).read(wanted())
    assert read.frame_times_s.shape == (CLIPS, 0) and read.encoded.shape == (CLIPS, 0)
    np.testing.assert_allclose(read.window_s[:, 1] - read.window_s[:, 0], 1.0, atol=1e-5)
    np.testing.assert_allclose(read.audio_start_s[:-1], read.window_s[:-1, 0] + 0.25, atol=1e-4)


@pytest.mark.parametrize("windows", [1, 2])
def test_batches_bring_times_on_request(options, windows):
    data = options(eval_clips=windows, audio_seconds=0.25)
    reader, graph = reader_of(data, seed=-1), ClipGraph.of(data, train=False)
    rows = Rows(np.zeros(CLIPS, np.int32), np.arange(CLIPS), np.zeros(CLIPS, np.int64), np.ones(CLIPS, bool))
    given = {"graph": graph, "data": data, "rows": lambda k: (rows, np.zeros((CLIPS, 1), np.int32)), "steps": (0, 1)}
    [plain] = Flow(reader, **given).decoded().as_numpy_iterator()
    [batch] = Flow(reader, **given, targets=TARGETS).decoded().as_numpy_iterator()
    assert batch.keys() - plain.keys() == set(TARGETS)
    read, _ = reader.read(wanted())
    for name in TARGETS:
        np.testing.assert_array_equal(batch[name], getattr(read, name))


def test_processes_hear_the_same(options, tokenizer):
    data = options(audio_seconds=0.5, batch_size=4)
    given = {"tokenizer": tokenizer, "seed": 5, "start_step": 2}
    whole = next(iter(train_batches(data, **given)))
    parts = [next(iter(train_batches(data, **given, process_index=p, process_count=2))) for p in range(2)]
    for name in ("audio", "audio_samples", "audio_mask"):
        np.testing.assert_array_equal(whole[name], np.concatenate([part[name] for part in parts]))
