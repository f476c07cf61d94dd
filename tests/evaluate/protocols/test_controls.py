"""What controls do to frames, sound and words, against loops; how they are chosen; what they cost."""

import numpy as np
import pytest
from fakes import embeddings

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.ranks import hits, recall_at
from twinreel.evaluate.protocols import controls
from twinreel.evaluate.protocols.control_rows import control_rows
from twinreel.evaluate.protocols.controls import CONTROLS, change_texts, choose, mute, other_sounds, reorder_frames
from twinreel.evaluate.protocols.retrieval import retrieval_ranks
from twinreel.evaluate.results import measure

ORDERS = {  # written out by hand
    "reversed_frames": {4: [3, 2, 1, 0], 5: [4, 3, 2, 1, 0]},
    "one_frame": {4: [2, 2, 2, 2], 5: [2, 2, 2, 2, 2]},
    "half_fps": {4: [0, 0, 2, 2], 5: [0, 0, 2, 2, 4]},
    "first_half": {4: [0, 0, 1, 1], 5: [0, 0, 1, 1, 2]},
}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("count", [4, 5])
def test_frames_views_and_features_are_put_in_order(name, count):
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 255, (count, 2, 2, 3), dtype=np.uint8)
    found = reorder_frames(clip, name=name, key=(0, 1))
    for place, frame in enumerate(ORDERS[name][count]):
        np.testing.assert_array_equal(found[place], clip[frame])
    views = np.stack([clip, clip[::-1]])
    found = reorder_frames(views, name=name, key=(0, 1))
    for view in range(2):
        np.testing.assert_array_equal(found[view], reorder_frames(views[view], name=name, key=(0, 1)))
    features = rng.normal(size=(count + 2, 3))
    found = reorder_frames(features, name=name, key=(0, 1), real=np.arange(count + 2) < count)
    np.testing.assert_array_equal(found[count:], features[count:])
    for place, frame in enumerate(ORDERS[name][count]):
        np.testing.assert_array_equal(found[place], features[frame])
    padded = np.concatenate([views, views[:, -1:]], axis=1)
    real = np.tile(np.arange(count + 1) < count, (2, 1))
    found = reorder_frames(padded, name=name, key=(0, 1), real=real)
    np.testing.assert_array_equal(found[:, :count], reorder_frames(views, name=name, key=(0, 1)))
    np.testing.assert_array_equal(found[:, count], padded[:, count])
    one = reorder_frames(padded[0], name=name, key=(0, 1), real=real[0])
    np.testing.assert_array_equal(one[:count], reorder_frames(clip, name=name, key=(0, 1)))


def test_a_random_order_is_that_of_seed_and_clip():
    clip = np.arange(16)[:, None]
    keys = ((1, 2), (1, 2), (2, 2), (1, 3))
    drawn = [reorder_frames(clip, name="shuffled_frames", key=key).ravel().tolist() for key in keys]
    first, again, seed, other = drawn
    assert sorted(first) == list(range(16)) and first == again
    assert first != list(range(16)) and first != seed and first != other


def test_each_sounding_clip_gets_another_ones_sound():
    sounding = np.random.default_rng(0).random(40) < 0.6
    partner = other_sounds(sounding, seed=3)
    for clip in range(40):
        assert (partner[clip] != clip and sounding[partner[clip]]) if sounding[clip] else partner[clip] == clip
    assert not np.array_equal(partner, other_sounds(sounding, seed=4))
    assert other_sounds(np.array([False, True, False]), seed=0).tolist() == [0, 1, 2]
    drawn = [int(other_sounds(np.ones(4, bool), seed=seed)[1]) for seed in range(300)]
    assert all(70 < drawn.count(other) < 130 for other in (0, 2, 3))


def test_muted_rows_are_masked():
    sound = {"audio": np.ones((2, 3), np.int16), "audio_mask": np.ones(2, bool), "audio_samples": np.array([3, 2])}
    found = mute(sound)
    assert {key: value.dtype for key, value in found.items()} == {key: value.dtype for key, value in sound.items()}
    assert not found["audio_mask"].any() and not found["audio_samples"].any()


def test_words_change_places_and_punctuation_stays():
    texts = ["A man plays guitar, loudly.", "one", "", "A man plays guitar, loudly."]
    found = change_texts(texts, name="shuffled_words", seed=0)
    assert found[0] == found[3] != texts[0] and found[1:3] == ["one", ""]
    assert sorted(found[0].replace(",", "").replace(".", "").split()) == ["A", "guitar", "loudly", "man", "plays"]
    assert found[0].split()[3].endswith(",") and found[0].endswith(".")
    assert change_texts(texts[:1], name="shuffled_words", seed=0) == found[:1]  # whatever texts stand around it
    seeds = {change_texts(texts[:1], name="shuffled_words", seed=seed)[0] for seed in range(20)}
    assert len(seeds) > 10


def test_a_tagger_that_is_not_there_is_named():
    for name in ("masked_nouns", "masked_verbs"):
        with pytest.raises(UserError, match=rf"--control {name} needs .*python -m spacy download xx_no_model"):
            choose([name], frames=4, heard=True, with_sound=4, tagger="xx_no_model")
        with pytest.raises(UserError, match="python -m spacy download xx_no_model"):
            change_texts(["a"], name=name, seed=0, tagger="xx_no_model")


@pytest.mark.parametrize(
    ("facts", "unfit"),
    [
        ({}, ()),
        ({"frames": 1}, ("shuffled_frames", "reversed_frames", "one_frame", "half_fps", "first_half")),
        ({"heard": False}, ("swapped_sound", "muted")),
        ({"with_sound": 1}, ("swapped_sound",)),
        ({"with_sound": 0}, ("swapped_sound", "muted")),
    ],
)
def test_what_does_not_apply_is_left_out_or_refused(monkeypatch, facts, unfit):
    monkeypatch.setattr(controls, "tagger_missing", lambda model: "")
    facts = {"frames": 4, "heard": True, "with_sound": 9} | facts
    names, reasons = choose(["all"], **facts)
    assert tuple(reasons) == unfit and set(names) == CONTROLS.keys() - set(unfit) and all(reasons.values())
    assert choose(["muted", "one_frame"], frames=4, heard=True, with_sound=9) == (("one_frame", "muted"), {})
    assert choose([], **facts) == ((), {})
    for name in unfit:
        with pytest.raises(UserError, match=f"--control {name} does not apply: .*leave it out"):
            choose([name, "all"], **facts)


def changed(seed=1):
    """Embeddings whose clips have moved under one control, and whose texts have under another."""
    fake, rng = embeddings(noise=1.0), np.random.default_rng(seed)
    fake.controls = {
        "reversed_frames": fake.video + rng.normal(size=fake.video.shape).astype(np.float32),
        "shuffled_words": fake.text + 0.5 * rng.normal(size=fake.text.shape).astype(np.float32),
    }
    return fake


def test_the_drop_is_the_plain_recall_less_that_of_the_control():
    fake = changed()
    block = control_rows(fake)
    plain = measure(fake, intervals=False)
    for name, side in (("reversed_frames", "video"), ("shuffled_words", "text")):
        arrays = {"text": fake.text, "video": fake.video} | {side: fake.controls[name]}
        ranks = retrieval_ranks(**arrays, video_of_text=fake.video_of_text)
        own = retrieval_ranks(text=fake.text, video=fake.video, video_of_text=fake.video_of_text)
        for direction, found, before in zip(("text_to_video", "video_to_text"), ranks, own, strict=True):
            row = block["rows"][name]
            for k in (1, 5, 10):
                assert row[direction][f"R@{k}"] == recall_at(found, k=k)
                drop = row["drop"][direction][f"R@{k}"]
                assert drop["difference"] == pytest.approx(plain[direction][f"R@{k}"] - recall_at(found, k=k))
                per_query = [100 * (a - b) for a, b in zip(hits(before, k=k), hits(found, k=k), strict=True)]
                assert drop["low"] <= np.mean(per_query) <= drop["high"]
        assert row["n"] == len(fake.controls[name])
    assert block["rows"]["reversed_frames"]["drop"]["text_to_video"]["R@1"]["low"] > 0
    assert block["protocol"]["seed"] is None  # arrays alone do not tell


def test_one_clip_has_no_interval_and_training_needs_none():
    fake = embeddings(videos=1)
    fake.controls = {"one_frame": fake.video}
    drop = {"text_to_video": {f"R@{k}": {"difference": 0.0} for k in (1, 5, 10)}}
    assert control_rows(fake)["rows"]["one_frame"]["drop"] == drop | {"video_to_text": drop["text_to_video"]}
    assert set(control_rows(changed(), intervals=False)["rows"]["shuffled_words"]["drop"]["text_to_video"]["R@1"]) == {
        "difference"
    }
