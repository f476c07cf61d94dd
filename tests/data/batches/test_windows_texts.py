"""One time window for frames, sound and transcript; captions, sentences and prompts chosen anew every epoch."""

import collections
import itertools

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.data.batches.pipeline import eval_batches, make_tokenizer, train_batches
from twinreel.data.batches.records import Record, Records
from twinreel.data.manifest import Clip, Sentence, Word, write_manifest
from twinreel.data.options import DataOptions
from twinreel.data.prepare.prepare import prepare

CLIPS, FRAMES, FPS = 12, 32, 8
SAME = {3: "caption 1 of 2", 7: "caption 0 of 5", 9: "caption 1 of 2"}  # captions that other clips have, too


TIMED = 11  # the clip whose words have times


def timed(sentence):
    """The words of a sentence of that clip, an eighth of a second each."""
    starts = [sentence / 2 + i / 8 for i in range(4)]
    words = ("said", str(sentence), "in", str(TIMED))
    return tuple(Word(start_s=start, end_s=start + 1 / 8, text=word) for start, word in zip(starts, words, strict=True))


def noise(seed):
    """Sound of which no stretch repeats: a place in it can be told."""
    return np.random.default_rng(seed).integers(-9000, 9000, 4 * 16_000).astype(np.int16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, media):
    """12 clips of 4 s; frame i is grey of level 7 i + 10; a sentence every half second; three captions each."""
    root = tmp_path_factory.mktemp("windows")
    clips = []
    for c in range(CLIPS):
        levels = [10 + 7 * i for i in range(FRAMES)]
        media.write(root / f"{c}.mp4", media.grey(*levels), fps=FPS, sound=noise(c))
        captions = [f"caption {i} of {c}" for i in range(3)]
        if c in SAME:
            captions = [SAME[c], *([] if c == 9 else [f"spare of {c}"])]
        said = tuple(
            Sentence(start_s=s / 2, end_s=s / 2 + 0.5, text=f"said {s} in {c}", words=timed(s) if c == TIMED else ())
            for s in range(8)
        )
        clips.append(
            Clip(clip_id=f"c{c}", path=f"{c}.mp4", captions=tuple(captions), split="train", sentences=said if c else ())
        )
    write_manifest(root / "clips.jsonl", clips=clips)
    prepare(root / "clips.jsonl", out=root / "out", fps=0, short_side=0, workers=1)
    return root / "out"


@pytest.fixture(scope="module")
def options(folder):
    def make(**changes):
        given = {"dir": str(folder), "batch_size": 6, "num_frames": 4, "context_length": 40, "vocab_size": 400}
        given |= {"train_video": "center_crop(32)", "eval_video": "center_crop(32)", "num_threads": 2}
        return DataOptions.of(given | changes)

    return make


@pytest.fixture(scope="module")
def tokenizer(options):
    return make_tokenizer(options())


def take(batches, count):
    got = list(itertools.islice(batches, count))
    batches.close()
    return got


def frame_indices(video):
    """Which frames they are, read off their grey levels."""
    return np.rint((video.astype(float).mean(axis=(-3, -2, -1)) - 10) / 7).astype(int)


def sound_of(folder, clip):
    return Record(Records(folder).read("train", [clip])[0]).sound(start_s=0, end_s=100, samples=10**6)


@pytest.mark.parametrize("sampling", ["uniform_jitter", "uniform", "dense", "fps(4)"])
def test_frames_sound_and_transcript_share_a_window(options, tokenizer, folder, sampling):
    data = options(
        window_seconds=1.5, train_sampling=sampling, audio_seconds=4.0, text_from="transcript", context_length=200
    )
    starts = set()
    for batch in take(train_batches(data, tokenizer=tokenizer, seed=1, start_step=0), 4):
        for i, clip in enumerate(batch["clip_index"].tolist()):
            sound, whole = batch["audio"][i], sound_of(folder, clip)
            length = int(np.flatnonzero(sound).max()) + 1
            start = _place(sound[:length], whole) / 16_000
            end = start + length / 16_000
            assert length <= 1.5 * 16_000 + 1
            frames = frame_indices(batch["video"][i])
            assert (frames / FPS > start - 1 / FPS - 1e-6).all() and (frames / FPS < end + 1e-3).all()
            text = tokenizer.decode(batch["text"][i])
            said = [s for s in range(8) if s / 2 < end - 1e-4 and s / 2 + 0.5 > start + 1e-4]
            if clip == TIMED:
                words = [word for s in range(8) for word in timed(s) if start <= word.start_s + 1 / 16 < end]
                assert text == " ".join(word.text for word in words)
            else:
                assert text == (" ".join(f"said {s} in {clip}" for s in said) if clip else "")
            assert batch["valid"][i] == (clip != 0), "clip 0 says nothing"
            starts.add(round(start, 2))
    assert len(starts) > 8, "windows hardly differ"


def _place(part, whole):
    """Where a stretch of samples begins in the whole."""
    first = np.flatnonzero(whole[: len(whole) - len(part) + 1] == part[0])
    [found] = [place for place in first if np.array_equal(whole[place : place + len(part)], part)]
    return found


def test_a_sentence_of_the_window_is_drawn_each_epoch(options, tokenizer):
    data = options(text_from="sentences", window_seconds=2.0)
    heard = collections.defaultdict(set)
    for batch in take(train_batches(data, tokenizer=tokenizer, seed=1, start_step=0), 40):
        for i, clip in enumerate(batch["clip_index"].tolist()):
            if clip == 0:
                assert not batch["valid"][i] and batch["caption_index"][i] == -1
                continue
            number = int(batch["caption_index"][i])
            text = tokenizer.decode(batch["text"][i])
            assert text == f"said {number} in {clip}" or (clip == TIMED and text in f"said {number} in {clip}")
            frames = frame_indices(batch["video"][i]) / FPS
            assert frames.min() - 2.1 < number / 2 < frames.max() + 2.1
            heard[clip].add(number)
    assert all(len(numbers) >= 5 for numbers in heard.values())


def test_several_windows_for_evaluation(options, tokenizer):
    [batch] = eval_batches(options(eval_clips=3), tokenizer=tokenizer, split="train", batch_size=CLIPS)
    assert batch["video"].shape == (CLIPS, 3, 4, 32, 32, 3)
    want = [[low + (i + 0.5) * 4 / 3 / 4 for i in range(4)] for low in (0.0, 4 / 3, 8 / 3)]
    for video in batch["video"]:
        np.testing.assert_array_equal(frame_indices(video), np.floor(np.array(want) * FPS))
    [batch] = eval_batches(
        options(eval_clips=2, window_seconds=1.0), tokenizer=tokenizer, split="train", batch_size=CLIPS
    )
    np.testing.assert_array_equal(frame_indices(batch["video"][5]), [[1, 3, 5, 7], [25, 27, 29, 31]])


def test_a_bag_of_windows_in_training_is_that_of_evaluation(options, tokenizer):
    bags = options(train_clips=2, window_seconds=1.0)
    [batch] = take(train_batches(bags, tokenizer=tokenizer, seed=0, start_step=0, bags=True), 1)
    assert batch["video"].shape == (6, 2, 4, 32, 32, 3)
    for video in batch["video"]:
        np.testing.assert_array_equal(frame_indices(video), [[1, 3, 5, 7], [25, 27, 29, 31]])
    with pytest.raises(UserError, match=r"config\.data\.train_clips=2 makes a bag of windows"):
        train_batches(bags, tokenizer=tokenizer, seed=0, start_step=0)


def test_prompts_are_drawn_for_training_only(options, tokenizer):
    data = options(prompts=("a video of {}", "{}, filmed", "{}"))
    found = set()
    for batch in take(train_batches(data, tokenizer=tokenizer, seed=0, start_step=0), 6):
        for row, clip, caption in zip(batch["text"], batch["clip_index"], batch["caption_index"], strict=True):
            text = tokenizer.decode(row)
            plain = text.removeprefix("a video of ").removesuffix(", filmed")
            found.add(text.replace(plain, "{}"))
            assert clip in SAME or plain == f"caption {caption} of {clip}"
    assert found == set(data.augment.prompts)
    [batch] = eval_batches(data, tokenizer=tokenizer, split="train", batch_size=CLIPS)
    assert tokenizer.decode(batch["text"][1]) == "caption 0 of 1"


def test_several_candidate_captions(options, tokenizer):
    [batch] = take(train_batches(options(captions_per_clip=3), tokenizer=tokenizer, seed=0, start_step=0), 1)
    assert batch["text"].shape == (6, 3, 40) and batch["text_mask"].shape == (6, 3, 40)
    for i, clip in enumerate(batch["clip_index"].tolist()):
        numbers = batch["caption_index"][i]
        count = {3: 2, 7: 2, 9: 1}.get(clip, 3)
        assert (numbers >= 0).tolist() == [k < count for k in range(3)]
        assert len(set(numbers[:count].tolist())) == count and batch["valid"][i]
        assert batch["text_mask"][i].any(axis=1).all(), "an empty caption still has begin and end"


def captions_of(batch, tokenizer):
    return [tokenizer.decode(row) for row, valid in zip(batch["text"], batch["valid"], strict=True) if valid]


def test_no_caption_stands_twice_in_a_global_batch(options, tokenizer):
    plain, unique, masked = 0, 0, 0
    for data in (options(batch_size=12), options(batch_size=12, unique_captions=True)):
        for batch in take(train_batches(data, tokenizer=tokenizer, seed=4, start_step=0), 30):
            texts = captions_of(batch, tokenizer)
            repeats = len(texts) - len(set(texts))
            if data.feed.unique_captions:
                unique += repeats
                masked += (~batch["valid"]).sum()
                assert set(batch["clip_index"][~batch["valid"]].tolist()) <= {9}, "only clip 9 has no other caption"
            else:
                plain += repeats
    assert plain > 5 and unique == 0 and masked > 0


@pytest.mark.parametrize("processes", [2, 3])
def test_unique_captions_are_the_same_for_any_number_of_processes(options, tokenizer, processes):
    data = options(batch_size=12, unique_captions=True)
    whole = take(train_batches(data, tokenizer=tokenizer, seed=4, start_step=2), 4)
    given = {"tokenizer": tokenizer, "seed": 4, "start_step": 2, "process_count": processes}
    parts = [take(train_batches(data, process_index=p, **given), 4) for p in range(processes)]
    for k, batch in enumerate(whole):
        for key in batch:
            np.testing.assert_array_equal(batch[key], np.concatenate([part[k][key] for part in parts]), err_msg=key)


def test_only_some_records(options, tokenizer):
    batches = train_batches(options(batch_size=3), tokenizer=tokenizer, seed=0, start_step=0, only=np.array([1, 4, 8]))
    assert [sorted(b["clip_index"].tolist()) for b in take(batches, 4)] == [[1, 4, 8]] * 4
    found = eval_batches(options(), tokenizer=tokenizer, split="train", batch_size=2, only=np.array([1, 4, 8]))
    assert [b["clip_index"].tolist() for b in found] == [[1, 4], [8, -1]]


# --- mixtures, through to batches ---


def mixture(folder, **weights):
    return {name: {"dir": str(folder)} | ({"weight": w} if w else {}) for name, w in weights.items()}


@pytest.mark.parametrize("processes", [1, 2, 3, 6])
def test_a_mixture_gives_the_same_batches_to_any_number_of_processes(options, tokenizer, folder, processes):
    data = options(dir="", mixture=mixture(folder, a=1.0, b=2.0), train_video="random_crop(32)|flip_lr")
    given = {"tokenizer": tokenizer, "seed": 4, "start_step": 7, "process_count": processes}
    whole = take(train_batches(data, **(given | {"process_count": 1})), 2)
    parts = [take(train_batches(data, process_index=p, **given), 2) for p in range(processes)]
    for k, batch in enumerate(whole):
        assert sorted(batch["source"].tolist()) == [0, 0, 1, 1, 1, 1]
        for key in batch:
            np.testing.assert_array_equal(batch[key], np.concatenate([part[k][key] for part in parts]), err_msg=key)


def test_epochs_of_each_source_are_told(options, tokenizer, folder):
    data = options(dir="", mixture=mixture(folder, a=1.0, b=2.0))
    batches = train_batches(data, tokenizer=tokenizer, seed=0, start_step=10)
    got = batches.facts(10)
    assert got == {"epoch/a": pytest.approx(20 / 12, abs=0.1), "epoch/b": pytest.approx(40 / 12, abs=0.1)}
    assert batches.facts(12)["epoch/b"] == pytest.approx(48 / 12, abs=0.1)
    batches.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dir": ""}, r"config\.data\.dir is empty"),
        ({"mixture": {"a": {"folder": "x"}}}, r"field of config\.data\.mixture\.a.*'folder'.*dir, split, weight"),
        ({"mixture": {"a": "x"}}, r"mixture\.a is 'x', wanted a section with dir"),
        ({"text_from": "caption"}, r"text_from.*'caption'; did you mean 'captions'"),
        ({"prompts": ("a video",)}, r"'a video' must have one {}"),
        ({"unique_captions": True, "captions_per_clip": 2}, r"unique_captions needs config\.data\.captions_per_clip=1"),
        ({"unique_captions": True, "text_from": "transcript"}, r"unique_captions=True needs .*text_from='captions'"),
        ({"features": {"rgb": 4}}, r"features of the records .*'rgb'"),
        ({"window_seconds": -1.0}, r"config\.data\.window_seconds"),
        ({"max_bad_fraction": -0.1}, r"config\.data\.max_bad_fraction"),
    ],
)
def test_faults(options, tokenizer, changes, message):
    with pytest.raises(UserError, match=message):
        train_batches(options(**changes), tokenizer=tokenizer, seed=0, start_step=0)


# --- damage ---


def damage(monkeypatch, *clips):
    whole = Records.read

    def read(self, split, indices):
        if bad := set(indices) & set(clips):
            raise UserError(f"record {min(bad)} of split {split!r} is damaged (shard x at byte 7)")
        return whole(self, split, indices)

    monkeypatch.setattr(Records, "read", read)


def test_damaged_records_are_skipped_up_to_the_limit(options, tokenizer, monkeypatch):
    damage(monkeypatch, 2, 5)
    batches = train_batches(options(max_bad_fraction=0.2), tokenizer=tokenizer, seed=0, start_step=0)
    for batch in itertools.islice(batches, 6):
        bad = np.isin(batch["clip_index"], [2, 5])
        np.testing.assert_array_equal(batch["valid"], ~bad)
        assert not batch["video"][bad].any()
    assert batches.facts(6)["damaged_records"] == 2.0
    batches.close()


def test_more_damage_than_the_limit_stops(options, tokenizer, monkeypatch):
    damage(monkeypatch, 2, 5)
    with pytest.raises(
        UserError, match=r"record \d of split 'train' .* at byte 7.*2 of the 12 .*max_bad_fraction=0\.1"
    ):
        take(train_batches(options(max_bad_fraction=0.1), tokenizer=tokenizer, seed=0, start_step=0), 8)
