"""Pairs with a fused side: the loss is InfoNCE on fused embeddings, in parts as on the whole batch, and it learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dual_towers import input_of
from flax import nnx

from twinreel.base.errors import UserError
from twinreel.data.batches.synthetic import synthetic_batch
from twinreel.pretrain.objective import Contrastive
from twinreel.zoo.build import build
from twinreel.zoo.spec import ModelSpec

B, S = 8, 2800  # rows; samples of sound, enough for one patch of 16 frames
TOWER = {"width": 8, "depth": 1, "heads": 2, "mlp_ratio": 2.0}
BOTH = {"modalities": ["video", "audio"]}
POE = BOTH | {"kind": "poe"}
EARLY = BOTH | {"kind": "early", "depth": 1, "heads": 2, "dropout": 0.3}
MODEL = {
    "embed_dim": 6,
    "video": TOWER | {"image_size": 8, "patch": 4, "temporal_depth": 0, "dropout": 0.2},
    "text": TOWER,
    "audio": {"family": "recurrent", "width": 8, "depth": 1, "mels": 8},
}
PAIR = {"video+audio_text": 1.0}


def objective(*, model=MODEL, fusion=None, sound=S, **loss):
    given = input_of(num_frames=2, context_length=5, audio_samples=sound)
    whole = model | ({"fusion": fusion} if fusion else {})
    return Contrastive(model=whole, loss={"pairs": PAIR} | loss, input=given, vocab_size=11)


@functools.cache
def batch():
    """Rows 2 and 5 have no sound, and noise in its place; row 3 has no text; row 0 does not take part."""
    made = synthetic_batch(
        0, batch_size=B, image_size=8, seed=3, audio_samples=S, num_frames=2, context_length=5, vocab_size=11
    )
    made["audio_mask"][[2, 5]] = False
    made["caption_index"][3] = -1
    made["valid"][0] = False
    return {key: jnp.asarray(value) for key, value in made.items() if key != "clip_index"}


def info_nce64(x, y, *, scale, valid):
    """InfoNCE by loops over rows, float64."""
    rows, total = np.flatnonzero(valid), 0.0
    scores = scale * np.asarray(x, np.float64) @ np.asarray(y, np.float64).T
    for i in rows:
        for line in (scores[i, rows], scores[rows, i]):
            total += 0.5 * (np.log(np.sum(np.exp(line - line.max()))) + line.max() - scores[i, i])
    return total / len(rows)


def test_the_loss_is_info_nce_on_fused_embeddings_plus_the_weighted_kl_term():
    weights = {"video+audio_text": 1.0, "video_text": 0.5, "audio_text": 0.25}
    made = objective(fusion=POE, pairs=weights, kl_weight=0.3, same_text="negative")
    model, rows = made.init(nnx.Rngs(0)), batch()
    loss, logged = nnx.jit(lambda m, b: made.loss(m, b, rngs=None))(model, rows)

    @nnx.jit
    def embedded(model, rows):
        given = {key: rows[key] for key in ("video", "audio", "audio_samples")}
        fused = model.encode_fused(given, present={"audio": rows["audio_mask"]})
        own = {"video": model.encode_video(rows["video"]), "audio": model.encode_audio(rows["audio"])}
        alone = model.encode_fused({"video": rows["video"]})  # as if there were no sound in the batch
        text = model.encode_text(rows["text"], mask=rows["text_mask"])
        return own | {"text": text, "video+audio": fused.embedding, "alone": alone.embedding}, fused.losses["kl"]

    side, kl = embedded(model, rows)
    np.testing.assert_allclose(np.linalg.norm(side["video+audio"], axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(side["video+audio"][jnp.array([2, 5])], side["alone"][jnp.array([2, 5])], atol=1e-6)
    assert np.abs(side["video+audio"] - side["alone"])[1].max() > 1e-3
    has = {"video": np.asarray(rows["valid"])}
    has |= {"audio": has["video"] & np.asarray(rows["audio_mask"]), "video+audio": has["video"]}
    has["text"], total = has["video"] & (np.asarray(rows["caption_index"]) >= 0), 0.0
    for pair, weight in weights.items():
        x, y = pair.split("_")
        one = info_nce64(side[x], side[y], scale=float(model.scale), valid=has[x] & has[y])
        assert float(logged[f"loss_{pair}"]) == pytest.approx(one, rel=2e-5)
        total += weight * one
    wanted_kl = np.mean(np.asarray(kl)[has["video+audio"]])
    assert float(logged["kl"]) == pytest.approx(wanted_kl, rel=1e-5)
    assert float(loss) == pytest.approx(total + 0.3 * wanted_kl, rel=2e-5)
    assert {"accuracy_va2t", "accuracy_t2va", "accuracy_v2t", "accuracy_a2t"} <= logged.keys()


def value_and_gradients(made):
    graph, params = nnx.split(made.init(nnx.Rngs(0)))

    @jax.jit
    def run(params, rows):
        loss_of = lambda p: made.loss(nnx.merge(graph, p), rows, rngs=nnx.Rngs(jax.random.key(7)))[0]  # noqa: E731
        return jax.value_and_grad(loss_of)(params)

    return run(params, batch())


@pytest.mark.parametrize("fusion", [POE, pytest.param(EARLY, marks=pytest.mark.slow)], ids=["poe", "early"])
def test_encoding_in_parts_has_the_loss_and_gradients_of_the_whole_batch(fusion):
    """With the draws of the towers and of the fusion, and the KL term."""
    weights = {"video+audio_text": 1.0, "video_text": 0.5}
    loss, wanted = value_and_gradients(objective(fusion=fusion, pairs=weights, kl_weight=0.1))
    parts, got = value_and_gradients(objective(fusion=fusion, pairs=weights, kl_weight=0.1, microbatch=2))
    assert float(parts) == pytest.approx(float(loss), rel=1e-5)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(nnx.to_pure_dict(wanted)["fusion"]["inputs"]))


def test_the_loss_falls_in_forty_steps():
    made = objective(fusion=BOTH | {"kind": "concat"})
    graph, params = nnx.split(made.init(nnx.Rngs(0)))
    tuner = optax.sgd(0.2, momentum=0.9)

    @jax.jit
    def run(params, rows):
        def step(carry, _):
            params, state = carry
            loss_of = lambda p: made.loss(nnx.merge(graph, p), rows, rngs=None)[0]  # noqa: E731
            loss, gradients = jax.value_and_grad(loss_of)(params)
            updates, state = tuner.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), loss

        return jax.lax.scan(step, (params, tuner.init(params)), length=40)[1]

    losses = np.asarray(run(params, batch()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": BOTH | {"kind": "atention"}}, r"config\.model\.fusion\.kind 'atention'; did you mean 'attention'"),
        ({"fusion": {"kind": "add", "modalities": ["video", "adio"]}}, "'adio'; did you mean 'audio'"),
        (
            {"fusion": {"kind": "add", "modalities": ["video"]}},
            r"config\.model\.fusion\.modalities=\['video'\] must be",
        ),
        ({"fusion": {"kind": "add", "modalities": ["video", "video"]}}, "at least two different modalities"),
        ({"fusion": {"kind": "add", "modalities": "video"}}, "must be a list"),
        ({"fusion": BOTH}, r"config\.model\.fusion lacks 'kind'"),
        ({"fusion": {"kind": "add"}}, r"config\.model\.fusion lacks 'modalities'"),
        ({"fusion": POE | {"widht": 4}}, r"config\.model\.fusion.*did you mean 'width'"),
        ({"fusion": EARLY | {"heads": 4}}, r"config\.model\.fusion\.width=6 must divide by"),
        (
            {"fusion": POE, "model": {k: v for k, v in MODEL.items() if k != "audio"}},
            r"no tower for 'audio'; add config\.model\.audio.* and set config\.data\.audio_seconds",
        ),
        ({"fusion": POE, "sound": 0}, r"set config\.data\.audio_seconds"),
        ({}, r"'video\+audio', but config\.model\.fusion is not set"),
        (
            {"fusion": POE, "pairs": {"video+text_audio": 1.0}},
            r"'video\+text', but config\.model\.fusion makes 'video\+a",
        ),
        ({"fusion": POE, "pairs": {"video_text": 1.0}}, r"no pair with it.*'video\+audio_text'"),
        ({"fusion": POE, "pairs": {"video+adio_text": 1.0}}, "'adio'; did you mean 'audio'"),
        ({"fusion": POE, "pairs": {"video+audio": 1.0}}, "two sides joined by '_'"),
        ({"fusion": POE, "pairs": {"video+audio_video": 1.0}}, "each modality once"),
        ({"fusion": POE, "pairs": {"text_video+audio": 1.0}}, "text second"),
        ({"fusion": POE, "kl_weight": -1.0}, r"config\.loss\.kl_weight must be at least 0, got -1"),
        ({"fusion": POE, "model": MODEL | {"projections": {"fusion": "liner"}}}, "did you mean 'linear'"),
    ],
)
def test_mistakes_name_the_field_and_the_remedy(options, message):
    with pytest.raises(UserError, match=message):
        nnx.eval_shape(lambda: objective(**options).init(nnx.Rngs(0)))


def test_precomputed_features_are_fused_with_sound_and_their_padding_is_not_seen():
    video = {"family": "features", "features": "seen", "input_width": 5, "width": 8, "over_time": "mean"}
    made = objective(model=MODEL | {"video": video}, fusion=BOTH | {"kind": "add"})
    rows = {key: value for key, value in batch().items() if key != "video"}
    mask = jnp.arange(3)[None] < jnp.array([3, 2, 1, 3, 0, 2, 3, 0])[:, None]  # rows 4 and 7 have no features
    seen = jnp.asarray(np.random.default_rng(0).normal(size=(B, 3, 5)), jnp.float32)
    run = nnx.jit(lambda model, rows: made._encode(model, rows, rngs=None, drop_patches=False)["video+audio"])
    model = made.init(nnx.Rngs(0))
    one = run(model, rows | {"features_seen": seen, "features_seen_mask": mask})
    other = run(model, rows | {"features_seen": jnp.where(mask[..., None], seen, jnp.nan), "features_seen_mask": mask})
    np.testing.assert_array_equal(one, other)
    alone = model.encode_fused({"audio": rows["audio"]}).embedding
    np.testing.assert_allclose(one[jnp.array([4, 7])], alone[jnp.array([4, 7])], atol=1e-6)
    assert np.abs(one - alone)[jnp.array([1, 3, 6])].max(axis=1).min() > 1e-3


def test_a_fusion_of_text_takes_one_text_of_a_clip():
    made = objective(
        fusion={"kind": "add", "modalities": ["video", "text"]}, pairs={"audio_video+text": 1.0}, name="mil_nce"
    )
    rows = batch() | {"text": jnp.zeros((B, 2, 5), jnp.int32), "text_mask": jnp.ones((B, 2, 5), bool)}
    with pytest.raises(UserError, match=r"config\.data\.captions_per_clip=2 .* set it to 1"):
        made.loss(nnx.eval_shape(lambda: made.init(nnx.Rngs(0))), rows, rngs=None)


def test_the_spec_keeps_the_fusion_and_a_model_without_one_says_so():
    made = objective(fusion=EARLY)
    again = ModelSpec.from_dict(made.spec.to_dict())
    assert again.fusion == made.spec.fusion and again.fused_side == "video+audio"
    with pytest.raises(UserError, match=r"set config\.model\.embed_dim"):
        build(again.replace(embed_dim=None), rngs=nnx.Rngs(0))
    plain = objective(pairs={"video_text": 1.0})
    assert plain.spec.fused_side == ""
    with pytest.raises(UserError, match=r"no fusion; add config\.model\.fusion"):
        plain.init(nnx.Rngs(0)).encode_fused({"video": batch()["video"]})
    with pytest.raises(UserError, match=r"wanted video or audio, got \['text'\]"):
        nnx.eval_shape(lambda: made.init(nnx.Rngs(0)).encode_fused({"text": batch()["text"]}))
