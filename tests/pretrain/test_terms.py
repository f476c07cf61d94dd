"""Terms of the loss against float64 loops over the batch; in parts, on devices, and options that do not fit."""

import functools
import re

import jax
import jax.numpy as jnp
import joint_loops
import numpy as np
import pytest
from contrastive_toy import MODEL, batch_of, objective
from flax import nnx
from tower_loops import randomised

from twinreel.base.errors import UserError
from twinreel.engine.sharding.mesh import make_mesh, put_batch
from twinreel.zoo.build import build
from twinreel.zoo.spec import ModelSpec

HEADS = {"text_pooling": {"kind": "x_pool", "block": 3}, "matching": {"kind": "cross_encoder", "depth": 1, "heads": 2}}
TERMS = {"text_pooling": {"weight": 0.5}, "matching": {"weight": 2.0}}
VALID = np.array([True] * 6 + [False, True])


def batch():
    made = {key: value for key, value in batch_of(0).items() if key != "clip_index"} | {"valid": VALID}
    made["text"][3], made["text_mask"][3] = made["text"][0], made["text_mask"][0]  # rows 0 and 3 say the same
    return made


@functools.cache
def run(*, microbatch=1, devices=1, seed=None):
    """Loss, metrics and gradients; the model is the same in all runs."""
    made = objective(loss={"terms": TERMS, "microbatch": microbatch}, heads=HEADS)
    graph, params = nnx.split(randomised(made.init(nnx.Rngs(0)), seed=4))
    params["log_scale"][...] = jnp.float32(1.0)
    mesh = make_mesh(devices=jax.devices()[:devices])

    @jax.jit
    def both(params, batch):
        def loss_of(params):
            rngs = None if seed is None else nnx.Rngs(seed)
            return made.loss(nnx.merge(graph, params), batch, rngs=rngs)

        return jax.value_and_grad(loss_of, has_aux=True)(params)

    with jax.set_mesh(mesh):
        (loss, logged), gradients = jax.device_get(both(params, put_batch(batch(), mesh=mesh)))
    return nnx.merge(graph, params), float(loss), {key: float(value) for key, value in logged.items()}, gradients


def wanted_terms(model):
    """Both terms and the scores of all pairs by loops; negatives are the hardest ones."""
    rows = {key: jnp.asarray(value) for key, value in batch().items()}
    text, words = model.encode_with_tokens("text", inputs=rows)
    video, tokens = model.encode_with_tokens("video", inputs=rows)
    frames, keep = model.clips(tokens).frames, np.flatnonzero(VALID)
    pooled = np.array([[joint_loops.x_pool(model.heads["text_pooling"], t, c) for c in frames] for t in text])
    same = {(0, 3), (3, 0)}
    log_sums, scale = [], float(model.scale)
    for scores in (pooled, pooled.T):
        for i in keep:
            others = [scores[i, j] for j in keep if (i, j) not in same]
            log_sums.append(np.log(np.exp(scale * np.array(others)).sum()) - scale * scores[i, i])
    cosines, losses = np.asarray(text, np.float64) @ np.asarray(video, np.float64).T, []
    for i in keep:
        wrong = [j for j in keep if j != i and (i, j) not in same]
        clip, other = max(wrong, key=lambda j: cosines[i, j]), max(wrong, key=lambda j: cosines[j, i])
        for t, v, right in ((i, i, 1), (i, clip, -1), (other, i, -1)):
            odds = joint_loops.cross_encoder(model.heads["matching"], words[t][batch()["text_mask"][t]], tokens[v])
            losses.append(np.log1p(np.exp(-right * odds)))
    return np.mean(log_sums), np.mean(losses)


def test_both_terms_are_those_of_the_definition_and_are_added_with_their_weights():
    model, loss, logged, gradients = run()
    pooling, matching = wanted_terms(model)
    assert logged["loss_text_pooling"] == pytest.approx(pooling, rel=1e-4)
    assert logged["loss_matching"] == pytest.approx(matching, rel=1e-4)
    assert loss == pytest.approx(logged["loss_video_text"] + 0.5 * pooling + 2 * matching, rel=1e-4)
    for name in ("accuracy_matching", "accuracy_text_pooling_t2v", "accuracy_text_pooling_v2t"):
        assert 0 <= logged[name] <= 1
    for part in (gradients["heads"]["matching"], gradients["heads"]["text_pooling"], gradients["video"]):
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(part)) and any(g.any() for g in jax.tree.leaves(part))


def test_parts_and_devices_change_nothing():
    """Draws included: each row's is its own."""
    _, loss, logged, gradients = run(seed=3, microbatch=2, devices=2)
    _, wanted, known, reference = run(seed=3)
    assert loss == pytest.approx(wanted, rel=1e-5) and logged == pytest.approx(known, rel=1e-4, abs=1e-5)
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(reference), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * max(1, np.abs(other).max()))


def test_frames_that_only_fill_up_a_clip_are_not_seen_by_the_heads():
    """Terms of a masked batch are those of one whose padding holds other frames."""
    made = objective(loss={"terms": TERMS}, heads=HEADS)
    model = randomised(made.init(nnx.Rngs(0)), seed=4)
    model.log_scale[...] = jnp.float32(4.0)
    given = batch() | {"video_mask": np.arange(2)[None] < np.array([[1], [2]] * 4)}
    noise = np.random.default_rng(5).integers(0, 256, given["video"].shape, dtype=np.uint8)
    other = given | {"video": np.where(given["video_mask"][..., None, None, None], given["video"], noise)}
    loss = nnx.jit(lambda model, rows: made.loss(model, rows, rngs=None)[1])
    masked, changed = (jax.device_get(loss(model, jax.tree.map(jnp.asarray, rows))) for rows in (given, other))
    for name in ("loss_video_text", "loss_text_pooling", "loss_matching"):
        assert masked[name] == changed[name]


def test_the_spec_declares_the_heads_and_builds_them_again():
    spec = ModelSpec.from_dict(objective(loss={"terms": TERMS}, heads=HEADS).spec.to_dict())
    assert set(spec.joint_heads) == set(HEADS) and not spec.task_heads
    assert set(build(spec, rngs=nnx.Rngs(0)).heads) == set(HEADS)


@pytest.mark.parametrize(
    ("loss", "model", "message"),
    [
        ({"terms": {"matchign": {}}}, {}, "did you mean 'matching'"),
        ({"terms": {"matching": {"wieght": 1.0}}}, {}, "did you mean 'weight'"),
        ({"terms": {"matching": {"weight": -1.0}}}, {}, "at least 0, got -1"),
        ({"terms": {"matching": {"hardness": -1.0}}}, {}, "config.loss.terms.matching.hardness must be at least 0"),
        ({"terms": {"matching": 1.0}}, {}, "must be a section such as"),
        ({"terms": {"matching": {}}}, {"heads": {}}, "trains a head that the model lacks"),
        ({}, {}, "has no term in config.loss.terms, so it would not learn"),
        ({"terms": TERMS, "form": "blockwise"}, {}, "config.loss.form='dense'"),
        ({"terms": TERMS, "name": "sigmoid"}, {}, "config.loss.name='infonce'"),
        ({"terms": TERMS, "pairs": {"video_text": 0.0, "video_audio": 1.0}}, {}, "need the pair 'video_text', which"),
    ],
)
def test_options_that_do_not_fit_are_named(loss, model, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        objective(loss=loss, **({"heads": HEADS} | model))


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({"matching": {"kind": "cross_encodr"}}, "did you mean 'cross_encoder'"),
        ({"matching": {}}, "config.model.heads.matching.kind"),
        ({"matching": {"kind": "cross_encoder", "dpeth": 1}}, "did you mean 'depth'"),
    ],
)
def test_a_head_that_cannot_be_built_is_named(heads, message):
    made = objective(loss={"terms": {"matching": {}}}, heads=heads)
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        made.init(nnx.Rngs(0))


def test_the_toy_has_no_heads():
    assert objective().init(nnx.Rngs(0)).heads is None and "heads" not in MODEL


@pytest.mark.parametrize("sees", ["times", "patches"])
def test_captioning_is_the_mean_over_the_tokens_of_valid_rows(sees):
    head = {"captioning": {"kind": "decoder", "sees": sees, "width": 8, "depth": 1, "heads": 2}}
    terms = {"captioning": {"weight": 2.0, "label_smoothing": 0.1}}
    made = objective(loss={"terms": terms, "microbatch": 2}, heads=head)
    model, rows = randomised(made.init(nnx.Rngs(0)), seed=4), batch()
    loss_of = nnx.jit(lambda model, rows: made.loss(model, rows, rngs=None))
    loss, logged = loss_of(model, {key: jnp.asarray(value) for key, value in rows.items()})
    _, tokens = model.encode_with_tokens("video", inputs={"video": jnp.asarray(rows["video"])})
    decoder, start = model.heads["captioning"], made.spec.towers["text"]["vocab_size"]
    patches = model.video.tokens(jnp.asarray(rows["video"]))[0]
    seen = decoder.context(model.clips(tokens)._replace(patches=patches))
    ids = jnp.asarray(np.concatenate([np.full((len(VALID), 1), start), rows["text"]], axis=1), jnp.int32)
    every = decoder.decoder(ids, context=seen)
    terms_by_hand = []
    for row in np.flatnonzero(VALID):
        words = rows["text"][row][rows["text_mask"][row]].tolist()
        for at, word in enumerate(words):
            x = np.asarray(every[row, at], np.float64)
            logp = x - np.log(np.exp(x).sum())
            terms_by_hand.append(-(0.9 * logp[word] + 0.1 * logp.mean()))
    assert float(logged["loss_captioning"]) == pytest.approx(np.mean(terms_by_hand), rel=1e-4)
    assert float(loss) == pytest.approx(float(logged["loss_video_text"]) + 2 * np.mean(terms_by_hand), rel=1e-4)
    if sees == "patches":  # without any pair the term is the whole loss
        alone = objective(loss={"terms": terms, "pairs": {}}, heads=head)
        lonely, logged = nnx.jit(lambda model, rows: alone.loss(model, rows, rngs=None))(model, rows)
        assert float(lonely) == pytest.approx(2 * np.mean(terms_by_hand), rel=1e-4)
        assert "scale" not in logged and not [name for name in logged if name.startswith("accuracy")]
    with pytest.raises(UserError, match="label_smoothing must be at least 0 and below 1"):
        objective(loss={"terms": {"captioning": {"label_smoothing": 1.0}}}, heads=head)


def test_a_loss_without_pairs_trains_the_video_tower_and_heads_alone():
    heads = {"captioning": {"kind": "decoder", "width": 8, "depth": 1, "heads": 2}}
    made = objective(loss={"terms": {"captioning": {}}, "pairs": {}}, heads=heads)
    [regex] = made.trainable
    model = nnx.eval_shape(lambda: made.init(nnx.Rngs(0)))
    paths = ["/".join(map(str, path)) for path in dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))]
    trained = {path.split("/")[0] for path in paths if re.search(regex, path)}
    assert trained == {"video", "heads"} and {"text", "log_scale"} <= {path.split("/")[0] for path in paths}
    assert made.check_batch_size(1) == ""
    with pytest.raises(UserError, match=r"terms=\['matching'\] cannot be the whole loss, which only"):
        objective(
            loss={"terms": {"matching": {}} | {"captioning": {}}, "pairs": {}},
            heads={"matching": HEADS["matching"]} | heads,
        )
    with pytest.raises(UserError, match=r"unless there are config\.loss\.terms"):
        objective(loss={"pairs": {}})
