"""Explanations of models of which it is known what they look at; what the curves say of them; input that is refused."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from dual_towers import build_classifier
from flax import nnx
from known_relevance import COLUMN, ROW, SEGMENT, STEP, WORD, known_encoder, known_frames, known_sound, one_device
from small_encoder import drawn_encoder, small_spec
from tower_loops import drawn

from twinreel.base.errors import UserError
from twinreel.data.media.clip import DecodedClip
from twinreel.encode.embed.encoder import Encoder
from twinreel.encode.predict.predictor import Predictor
from twinreel.explain.clip import Clip, read_clip
from twinreel.explain.explain import explain
from twinreel.explain.explained import Asked, Explained, check
from twinreel.explain.methods import video_relevance, word_relevance
from twinreel.explain.rollout import TokenRollout
from twinreel.explain.scores import Score
from twinreel.zoo.adapt import AdaptOptions, adapted
from twinreel.zoo.build import build

TEXT = f"a {WORD} square falls"
ASKED = Asked(text=TEXT, grid=4, sound=True)


def clip_of(video, *, audio=None, duration_s=1.0):
    """A clip as `read_clip` would return it."""
    times = np.arange(len(video), dtype=np.float32) / len(video) * duration_s
    decoded = DecodedClip(encoded=[], timestamps_s=times, height=0, width=0, audio=None, duration_s=duration_s)
    given = {"path": Path("a.mp4"), "mask": None, "view": (0, 1), "audio": audio, "audio_start_s": 0.25}
    return Clip(video=video, times_s=times, duration_s=duration_s, decoded=decoded, **given)


@pytest.fixture(scope="module")
def encoder():
    return known_encoder()


@pytest.fixture(scope="module")
def clip():
    return clip_of(known_frames(), audio=known_sound())


@pytest.fixture(scope="module")
def real():
    """A small model of real towers, with random parameters, on all devices."""
    return drawn_encoder()


@pytest.fixture(scope="module")
def classifier():
    video = small_spec().towers["video"]
    layers = {key: value for key, value in video.items() if key != "family"}
    labels = ["class 0", "class 1", "class 2"]
    model = drawn(lambda: build_classifier(video=layers, num_frames=4, num_classes=3, rngs=nnx.Rngs(0)))
    spec = small_spec().replace(
        towers={"video": video}, embed_dim=None, tokenizer={}, heads={"classify": {"kind": "linear", "labels": labels}}
    )
    return Predictor(spec=spec, model=model, mesh=one_device())


@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients"])
def test_the_patch_the_sound_and_the_word_that_count_are_found(encoder, clip, method):
    seen = []
    found = explain(encoder, clip, asked=ASKED, method=method, draws=5, progress=lambda *at: seen.append(at))
    frames, cells, sound, words = (found.parts[name].values for name in ("frames", "patches", "sound", "words"))
    assert frames.argmax() == STEP and abs(np.delete(frames, STEP)).max() < 1e-5 * frames[STEP] + 1e-6
    assert np.unravel_index(cells.argmax(), cells.shape) == (STEP, ROW, COLUMN)
    assert sound.argmax() == SEGMENT and abs(np.delete(sound, SEGMENT)).max() < 0.05 * sound[SEGMENT]
    assert found.words[words.argmax()] == WORD and words[1] > 3 * abs(np.delete(words, 1)).max()
    for name, part in found.parts.items():
        areas = part.curves.areas()
        assert areas["deletion"] < areas["random_deletion"] - areas["random_deletion_std"], name
        assert areas["insertion"] > areas["random_insertion"] + areas["random_insertion_std"], name
    assert seen[-1][0] == seen[-1][1] and [done for done, _ in seen] == sorted(done for done, _ in seen)
    made = found.to_dict()
    assert made["value"] == pytest.approx(found.value) and made["value"] > made["baseline_value"]
    assert made["frames"][STEP]["start_s"] == pytest.approx(0.375) and made["sound"][0]["start_s"] == 0.25
    assert made["words"][1] == {"word": WORD, "relevance": pytest.approx(words[1])}


def test_only_the_patch_itself_carries_gradients_and_they_sum_to_the_score(clip):
    """The response is bent, so that the gradient at the clip alone would be off by half."""
    explained = Explained(known_encoder(exponent=0.5), clip, asked=ASKED)
    frames, cells = video_relevance(explained, method="integrated_gradients", path_steps=24)
    rest = np.delete(cells.values.reshape(-1), np.ravel_multi_index((STEP, ROW, COLUMN), cells.values.shape))
    assert not rest.any() and frames.values[STEP] == pytest.approx(cells.values[STEP, ROW, COLUMN])
    assert cells.gap < 1e-3 and cells.values.sum() == pytest.approx(cells.sums_to, rel=1e-3)
    words = word_relevance(explained, method="integrated_gradients", path_steps=24)
    assert words.gap < 1e-3


def test_occlusion_is_the_score_that_is_lost(encoder, clip):
    """Against clips that are changed by hand, and embedded as any others."""
    asked = dataclasses.replace(ASKED, baseline="mean_frame")
    explained = Explained(encoder, clip, asked=asked)
    frames, _ = video_relevance(explained, method="occlusion")
    mean = np.round(clip.video.mean(axis=0))
    changed = np.stack([clip.video] * 5)
    for step in range(4):
        changed[step, step] = mean
    scores = encoder.encode_video_arrays(changed) @ encoder.encode_text([TEXT])[0]
    np.testing.assert_allclose(frames.values, scores[4] - scores[:4], atol=1e-6)
    texts = [" ".join(word for word in TEXT.split() if word != left_out) for left_out in TEXT.split()]
    own = encoder.encode_video_arrays(clip.video[None])[0]
    wanted = own @ encoder.encode_text([TEXT])[0] - encoder.encode_text(texts) @ own
    np.testing.assert_allclose(word_relevance(explained, method="occlusion").values, wanted, atol=1e-6)


def test_pictures_and_sound_that_are_fused_have_one_score(clip):
    model = known_encoder(fused=True)
    explained = Explained(model, clip, asked=dataclasses.replace(ASKED, sound=False))
    assert explained.heard
    text = model.encode_text([TEXT])[0]
    both, silent = (
        model.encode_clip_arrays(clip.video[None], audio=clip.audio[None] * share, lengths=np.array([8000]))[0] @ text
        for share in (1, 0)
    )
    assert explained.video_scores(np.ones((1, 4, 4, 4), bool))[0] == pytest.approx(both, abs=1e-6)
    scores = explained.sound_scores(np.stack([np.ones(16, bool), np.zeros(16, bool)]))
    np.testing.assert_allclose(scores, [both, silent], atol=1e-6)
    alone = Explained(model, dataclasses.replace(clip, audio=None), asked=dataclasses.replace(ASKED, sound=False))
    without = model.encode_clip_arrays(clip.video[None], audio=clip.audio[None], lengths=np.array([0]))[0] @ text
    assert not alone.heard
    assert alone.video_scores(np.ones((1, 4, 4, 4), bool))[0] == pytest.approx(without, abs=1e-6)


def test_words_keep_their_places_behind_learned_prompts(clip):
    """Tokens that the tower does not see have no relevance, and all others have some."""
    options = AdaptOptions(prompts={"layers": "^text/", "count": 3})
    spec = adapted(small_spec(), options=options)
    model = Encoder(spec=spec, model=drawn(lambda: build(spec, rngs=nnx.Rngs(0))), mesh=one_device())
    explained = Explained(model, clip_of(known_frames()), asked=Asked(text=TEXT, grid=4))
    shared, _ = explained.tokens()
    part = explained.apply(TokenRollout(), {"index": np.zeros(1, np.int32)}, shared=shared, batch_size=1)["part"][0]
    assert not shared["text_mask"].all() and part.shape == shared["text_mask"].shape
    np.testing.assert_array_equal(part > 0, shared["text_mask"])


@pytest.mark.parametrize("kind", ["single", "multi", "ordinal"])
def test_log_odds_are_those_of_the_probabilities_that_the_model_predicts(classifier, kind):
    logits = np.random.default_rng(0).normal(0, 2, (5, 3)).astype(np.float32)
    classifier.kind, whole = kind, classifier.kind
    wanted = classifier._probability(logits)
    classifier.kind = whole
    for label in range(wanted.shape[1]):
        found = Score(kind)._of_logits(jnp.asarray(logits), {"label": jnp.int32(label)})
        np.testing.assert_allclose(1 / (1 + np.exp(-np.asarray(found, np.float64))), wanted[:, label], atol=2e-6)


def test_real_towers_are_explained_by_gradients_and_attention(real, clip):
    asked = dataclasses.replace(ASKED, grid=2, sound=False)
    explained = Explained(real, clip, asked=asked)
    words = word_relevance(explained, method="integrated_gradients")
    assert words.gap < 0.02
    frames, cells = video_relevance(explained, method="attention")
    assert cells.values.shape == (4, 2, 2) and cells.values.min() >= 0 and cells.values.max() > 0
    np.testing.assert_allclose(frames.values, cells.values.sum(axis=(1, 2)))
    words = word_relevance(explained, method="attention").values
    assert words.shape == (4,) and words.min() >= 0 and words.max() > 0


def test_the_predicted_class_of_a_classifier_is_explained_or_one_by_name(classifier, clip):
    predicted = classifier.named(classifier.predict_arrays(clip.video[None])[0])
    found = explain(classifier, clip, asked=Asked(grid=2), draws=2, method="integrated_gradients")
    assert found.subject == predicted["label"] and set(found.parts) == {"frames", "patches"}
    assert found.value == pytest.approx(predicted["probability"], abs=1e-5)
    assert found.parts["patches"].relevance.gap < 0.02
    other = Explained(classifier, clip, asked=Asked(label="class 0", grid=2))
    assert other.value(other.video_scores(np.ones((1, 4, 2, 2), bool)))[0] == pytest.approx(
        predicted["probabilities"]["class 0"], abs=1e-5
    )
    with pytest.raises(UserError, match=r"--label 'clas 1'.*class 1"):
        Explained(classifier, clip, asked=Asked(label="clas 1", grid=2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": ""}, "is a dual tower: give the text"),
        ({"label": "fight"}, "has no classes; leave --label out"),
    ],
)
def test_a_dual_tower_needs_a_text_and_has_no_classes(encoder, changes, message):
    with pytest.raises(UserError, match=message):
        check(encoder, asked=dataclasses.replace(ASKED, **changes), name="runs/a")


def test_a_classifier_takes_neither_text_nor_sound(classifier):
    with pytest.raises(UserError, match="no text asks; leave --text out"):
        check(classifier, asked=Asked(text="a cat"), name="runs/a")
    with pytest.raises(UserError, match="hears nothing; leave --sound out"):
        check(classifier, asked=Asked(sound=True), name="runs/a")


def test_models_that_cannot_be_shown_are_refused(encoder, clip):
    towers = dict(encoder.spec.towers)
    features = {"family": "features", "features": "clip_b32", "input_width": 8}
    cases = {
        r"takes precomputed features 'clip_b32' and no frames": towers | {"video": features},
        r"has no video tower \(it has: text, audio\)": {key: towers[key] for key in ("text", "audio")},
        r"has no audio tower \(it has: video, text\)": {key: towers[key] for key in ("video", "text")},
    }
    whole = encoder.spec
    for message, changed in cases.items():
        encoder.spec = whole.replace(towers=changed)
        with pytest.raises(UserError, match=message):
            check(encoder, asked=ASKED, name="runs/a")
    encoder.spec = whole.replace(towers=towers | {"video": {"family": "s3d"}})
    with pytest.raises(UserError, match=r"family 's3d' has no attention.*use occlusion"):
        video_relevance(Explained(encoder, clip, asked=ASKED), method="attention")
    encoder.spec = whole
    with pytest.raises(UserError, match=r"takes dual towers and classifiers"):
        check(type("Writer", (), {"spec": whole})(), asked=ASKED, name="runs/a")


@pytest.mark.parametrize(
    ("asked", "options", "message"),
    [
        ({"baseline": "mean"}, {}, r"--baseline 'mean'.*mean_"),
        ({"grid": 17}, {}, "--grid must be at least 1 and at most 16, got 17"),
        ({}, {"method": "gradcam"}, "--method 'gradcam'"),
        ({}, {"draws": 1}, "--draws must be at least 2"),
    ],
)
def test_options_out_of_range_are_refused(encoder, clip, asked, options, message):
    with pytest.raises(UserError, match=message):
        explain(encoder, clip, asked=dataclasses.replace(ASKED, **asked), **options)


def test_clips_without_sound_and_clips_that_equal_their_baseline_are_refused(encoder, clip):
    with pytest.raises(UserError, match=r"--sound: a.mp4 has no sound"):
        explain(encoder, dataclasses.replace(clip, audio=None), asked=ASKED)
    plain = dataclasses.replace(clip, video=np.full((4, 16, 16, 3), 90, np.uint8))
    with pytest.raises(UserError, match=r"its own baseline \(--baseline mean_colour\)"):
        explain(encoder, plain, asked=ASKED)


def test_files_that_cannot_be_read_are_refused(encoder, tmp_path):
    with pytest.raises(UserError, match="does not exist, or is no file"):
        read_clip(encoder.input, tmp_path / "a.mp4", sound=True)
    (tmp_path / "b.mp4").write_bytes(b"no film")
    with pytest.raises(UserError, match=r"b\.mp4 cannot be explained"):
        read_clip(encoder.input, tmp_path / "b.mp4", sound=True)
    with pytest.raises(UserError, match="takes sequences of patches"):
        read_clip(dataclasses.replace(encoder.input, eval_video="naflex(16, 4)"), tmp_path / "b.mp4", sound=True)
