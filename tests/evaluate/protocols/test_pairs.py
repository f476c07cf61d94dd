"""Names of pairs, and retrieval between any two sides against a loop."""

import doctest
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import embeddings

from twinreel.base.errors import UserError
from twinreel.evaluate.protocols.pair_rows import pair_rows
from twinreel.evaluate.protocols.pairs import about_pairs, choose_pairs
from twinreel.zoo import pairs

ALL = {"video": {}, "text": {}, "audio": {}}
WIDTH = 16


def spec(*, towers=("video", "text", "audio"), fused=""):
    return SimpleNamespace(towers=dict.fromkeys(towers), fused_side=fused)


def test_the_doctests_of_names_pass():
    assert doctest.testmod(pairs).failed == 0


@pytest.mark.parametrize(
    ("model", "known"),
    [
        (spec(towers=("video", "text")), ("video_text",)),
        (spec(), ("video_text", "video_audio", "audio_text")),
        (spec(fused="audio+video"), ("video_text", "video_audio", "audio_text", "audio+video_text")),
        (spec(fused="video+text"), ("video_text", "video_audio", "audio_text", "video+text_audio")),
        (spec(fused="video+audio+text"), ("video_text", "video_audio", "audio_text")),
    ],
)
def test_all_are_those_that_the_model_has(model, known):
    assert choose_pairs(["all"], spec=model, with_sound=5) == (known, {})
    for name in known:
        assert pairs.sides_of(name)  # as `config.loss.pairs` has it
        x, y = name.split("_")
        assert choose_pairs([f"{y}:{x}"], spec=model, with_sound=5) == ((name,), {})


def test_pairs_without_sound_are_left_out_or_refused():
    chosen, unfit = choose_pairs(["all"], spec=spec(), with_sound=1)
    assert chosen == ("video_text",) and unfit == dict.fromkeys(
        ["video_audio", "audio_text"], "it needs two clips with sound, and the split has 1"
    )
    with pytest.raises(UserError, match="--pairs text:audio needs two clips with sound, and the split has 0"):
        choose_pairs(["text:audio"], spec=spec(), with_sound=0)
    with pytest.raises(UserError, match=r"--pairs text:audio: this model has no such pair; it has: video_text"):
        choose_pairs(["text:audio"], spec=spec(towers=("video", "text")), with_sound=9)


def fake_sides():
    """Twenty-four clips of two captions; every third clip has no sound."""
    fake, rng = embeddings(noise=1.0, groups=False), np.random.default_rng(3)
    fake.has_sound = np.arange(24) % 3 > 0
    audio = fake.video + rng.normal(size=fake.video.shape).astype(np.float32)
    audio[~fake.has_sound] = 0
    fake.sides = {"audio": audio, "video+text": fake.text + rng.normal(size=fake.text.shape).astype(np.float32)}
    fake.further = {"pairs": about_pairs(["video_text", "video_audio", "audio_text", "video+text_audio"], unfit={})}
    return fake


def recall(queries, gallery, *, right):
    """R@1 in percent by loops; `right[q]` are the rows of the gallery that are right for query q."""
    hit = 0
    for query, own in zip(queries, right, strict=True):
        scores = [float(query @ row / np.linalg.norm(query) / np.linalg.norm(row)) for row in gallery]
        hit += int(np.argmax(scores)) in own
    return 100 * hit / len(queries)


def test_both_directions_of_each_pair_on_the_clips_with_sound():
    fake = fake_sides()
    block = pair_rows(fake)
    clips = [clip for clip in range(24) if clip % 3]
    texts = [text for text in range(48) if (text // 2) % 3]
    assert block["protocol"] == {"clips": 16, "texts": 32, "left_out": 8, "not_applicable": {}} | {
        "rule": block["protocol"]["rule"]
    }
    sides = {"text": fake.text[texts], "video": fake.video[clips], "audio": fake.sides["audio"][clips]}
    sides["video+text"] = fake.sides["video+text"][texts]
    for x, y in (("text", "video"), ("text", "audio"), ("video+text", "audio"), ("video", "audio")):
        rows = block["rows"][next(name for name in block["rows"] if set(name.split("_")) == {x, y})]
        own = [[place // 2 if "text" in x else place] for place in range(len(sides[x]))]
        back = [[2 * clip, 2 * clip + 1] if "text" in x else [clip] for clip in range(16)]
        assert rows[f"{x}_to_{y}"]["R@1"] == pytest.approx(recall(sides[x], sides[y], right=own))
        assert rows[f"{y}_to_{x}"]["R@1"] == pytest.approx(recall(sides[y], sides[x], right=back))
        assert rows["intervals"][f"{x}_to_{y}"]["R@1"]["low"] <= rows[f"{x}_to_{y}"]["R@1"]
    assert rows["video_to_audio"]["n"] == 16 and rows["audio_to_video"]["n"] == 16


def test_what_is_missing_or_zero_is_named():
    fake = fake_sides()
    fake.sides["audio"][4] = 0
    with pytest.raises(UserError, match=r"clip 'clip004': row \d+ of 'side_audio' is all zero"):
        pair_rows(fake)
    fake.sides.pop("audio")
    with pytest.raises(UserError, match="no array 'side_audio'"):
        pair_rows(fake)
    fake.has_sound = None
    with pytest.raises(UserError, match="no array 'has_sound'"):
        pair_rows(fake)
