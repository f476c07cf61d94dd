"""Masked language, masked frames and distillation against float64 loops, row by row; options that do not fit."""

import functools

import jax
import jax.numpy as jnp
import joint_loops
import numpy as np
import pytest
from contrastive_toy import BATCH, VOCAB, batch_of, objective
from flax import nnx
from tower_loops import drawn, f64

from twinreel.base.errors import UserError
from twinreel.engine.sharding.mesh import make_mesh, put_batch
from twinreel.losses.vocabulary import token_losses
from twinreel.models.layers.draws import fold, kept_tokens, row_keys
from twinreel.pretrain.terms.masked_frames import patch_targets
from twinreel.pretrain.terms.masked_language import mask_tokens

HEADS = {
    "masked_language": {"kind": "cross_encoder", "width": 8, "heads": 2},
    "masked_frames": {"kind": "decoder", "width": 8, "depth": 1, "heads": 2},
    "distillation": {"kind": "linear", "width": 5},
}
TERMS = {
    "masked_language": {"rate": 0.4, "without_video": 0.5},
    "masked_frames": {"ratio": 0.5},
    "distillation": {"weight": 2.0, "source": "teacher", "embedding": 0.5},
}
VALID = np.array([True] * 6 + [False, True])
SPECIAL = (0, 1, 2)
SEED = 3


def batch():
    made = {key: value for key, value in batch_of(0).items() if key != "clip_index"} | {"valid": VALID}
    made["text"][:, 0] = 1  # begin
    rng = np.random.default_rng(7)
    for side in ("video", "text"):
        x = rng.normal(size=(BATCH, 5))
        made[f"teacher_{side}"] = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    mask = np.arange(2)[None] < np.array([[1], [2]] * 4)
    return made | {"teacher_scale": np.full(BATCH, 7, np.float32), "video_mask": mask}


def made(*, microbatch=1, terms=None, heads=None, **model):
    return objective(loss={"terms": terms or TERMS, "microbatch": microbatch}, heads=heads or HEADS, **model)


@functools.cache
def run():
    """Model, loss and metrics of a batch in two parts, on two devices."""
    one = made(microbatch=2)
    one._special_ids = SPECIAL
    graph, params = nnx.split(drawn(lambda: one.init(nnx.Rngs(0)), seed=4))
    params["log_scale"][...] = jnp.float32(1.0)
    mesh = make_mesh(devices=jax.devices()[:2])

    @jax.jit
    def loss_of(params, batch):
        return one.loss(nnx.merge(graph, params), batch, rngs=nnx.Rngs(SEED))

    with jax.set_mesh(mesh):
        loss, logged = jax.device_get(loss_of(params, put_batch(batch(), mesh=mesh)))
    return nnx.merge(graph, params), float(loss), {key: float(value) for key, value in logged.items()}


def keys_of(term):
    """The keys of a term's draws in `run`."""
    rngs = nnx.Rngs(SEED)
    rngs()  # of the towers
    return fold(row_keys(rngs(), rows=BATCH), list(TERMS).index(term))


def test_the_terms_are_added_with_their_weights():
    _, loss, logged = run()
    parts = (logged[f"loss_{name}"] * TERMS[name].get("weight", 1.0) for name in TERMS)
    assert loss == pytest.approx(logged["loss_video_text"] + sum(parts), rel=1e-5)


def test_masked_language_is_the_mean_over_hidden_tokens():
    model, _, logged = run()
    rows, keys, head = batch(), keys_of("masked_language"), model.heads["masked_language"]
    given = {"mask": rows["text_mask"], "rate": 0.4, "vocab_size": VOCAB, "special": SPECIAL}
    masked = mask_tokens(jnp.asarray(rows["text"]), keys=fold(keys, 2), **given)
    shown = np.asarray(jax.vmap(jax.random.uniform)(fold(keys, 3))) >= 0.5
    video, mask = jnp.asarray(rows["video"]), jnp.asarray(rows["video_mask"])
    tokens, table = model.video.features(video, mask=mask), model.text.embedding[...]
    changed = jnp.where(masked.hidden, VOCAB, masked.text)
    model.text.embedding.set_value(jnp.concatenate([table, head.token[...]]))  # hidden tokens are one more word
    words = model.text.tokens(changed, mask=jnp.asarray(rows["text_mask"]))
    model.text.embedding.set_value(table)
    losses, hits = [], {True: [], False: []}
    for row in np.flatnonzero(VALID):
        clip = f64(tokens[row])[rows["video_mask"][row]] if shown[row] else np.zeros((0, 16))
        for at, place in enumerate(masked.places[row].tolist()):
            if not masked.real[row, at]:
                continue
            logits = joint_loops.masked_language(
                head, words[row][rows["text_mask"][row]], clip, place=place, table=table
            )
            wanted = rows["text"][row, place]
            losses.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[wanted])
            hits[bool(shown[row])].append(np.argmax(logits) == wanted)
    assert logged["loss_masked_language"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert logged["accuracy_masked_language_with_video"] == pytest.approx(np.mean(hits[True]), abs=1e-6)
    assert logged["accuracy_masked_language_without_video"] == pytest.approx(np.mean(hits[False]), abs=1e-6)


def test_masked_frames_is_the_error_of_the_hidden_patches():
    model, _, logged = run()
    rows, head = batch(), model.heads["masked_frames"]
    kept = np.asarray(kept_tokens(fold(keys_of("masked_frames"), 2), tokens=4, rate=0.5))
    seen, _ = model.video.tokens(jnp.asarray(rows["video"]), kept=jnp.asarray(kept))
    errors = []
    for row in np.flatnonzero(VALID):
        steps = [step for step in range(2) if rows["video_mask"][row, step]]
        painted = joint_loops.masked_frames(head, f64(seen[row])[steps], kept=kept[row], side=2)
        for number, step in enumerate(steps):
            for place in set(range(4)) - set(kept[row].tolist()):
                top, left = 4 * (place // 2), 4 * (place % 2)
                patch = rows["video"][row, step, top : top + 4, left : left + 4].astype(np.float64).reshape(-1) / 255
                wanted = (patch - patch.mean()) / np.sqrt(patch.var() + 1e-6)
                errors.append(np.mean((painted[number, place] - wanted) ** 2))
    assert logged["loss_masked_frames"] == pytest.approx(np.mean(errors), rel=1e-4)


def test_distillation_compares_embeddings_and_similarities_with_the_teachers():
    model, _, logged = run()
    rows, head, keep = batch(), model.heads["distillation"], np.flatnonzero(VALID)
    video = model.encode_video(jnp.asarray(rows["video"]), mask=jnp.asarray(rows["video_mask"]))
    text = model.encode_text(jnp.asarray(rows["text"]), mask=jnp.asarray(rows["text_mask"]))
    student, teacher = {}, {}
    for side, made in (("video", video), ("text", text)):
        student[side], teacher[side] = f64(made)[keep], f64(rows[f"teacher_{side}"])[keep]
    apart = []
    for side in student:
        mapped = student[side] @ f64(head.out.kernel) + f64(head.out.bias)
        apart += [
            1 - (x @ y) / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(mapped, teacher[side], strict=True)
        ]
    divergence = []
    mine, wanted = np.e * student["text"] @ student["video"].T, 7 * teacher["text"] @ teacher["video"].T
    for s, t in ((mine, wanted), (mine.T, wanted.T)):
        for x, y in zip(s, t, strict=True):
            p, q = (np.exp(z) / np.exp(z).sum() for z in (y, x))
            divergence.append((p * np.log(p / q)).sum())
    assert logged["loss_distillation"] == pytest.approx(0.5 * np.mean(apart) + np.mean(divergence), rel=1e-4)


def test_tokens_are_hidden_as_bert_does():
    """Shares over many rows; special tokens and padding stay as they are, and a row's draw is its own."""
    rng = np.random.default_rng(0)
    text = rng.integers(0, 50, (400, 40)).astype(np.int32)
    real = np.arange(40)[None] < rng.integers(0, 41, (400, 1))
    keys = row_keys(jax.random.key(1), rows=400)
    given = {"rate": 0.15, "vocab_size": 50, "special": range(5)}
    hide = jax.jit(functools.partial(mask_tokens, **given))
    found = jax.device_get(hide(text, mask=real, keys=keys))
    chosen = np.zeros(text.shape, bool)
    for row in range(400):
        chosen[row, found.places[row][found.real[row]]] = True
    able = real & (text >= 5)
    assert not (chosen & ~able).any() and not (found.hidden & ~chosen).any()
    counts = able.sum(1)
    np.testing.assert_array_equal(chosen.sum(1), np.minimum(np.clip(np.round(0.15 * counts), 1, 6), counts))
    np.testing.assert_array_equal(found.wanted, np.take_along_axis(text, found.places, axis=1))
    changed = found.text != text
    assert not (changed & ~chosen).any() and not (changed & found.hidden).any() and found.text[changed].min() >= 5
    total = chosen.sum()
    assert found.hidden.sum() / total == pytest.approx(0.8, abs=0.04)
    assert changed.sum() / total == pytest.approx(0.1 * 44 / 45, abs=0.03)
    np.testing.assert_array_equal(hide(text[::-1], mask=real[::-1], keys=keys[::-1]).text, found.text[::-1])


def test_logits_are_computed_some_places_at_a_time():
    """Losses, hits and gradients are those of all places at once."""
    states = np.random.default_rng(0).normal(size=(3, 7, 4)).astype(np.float32)
    wanted, sizes = np.random.default_rng(1).integers(0, 4, (3, 7)).astype(np.int32), []

    def logits(x):
        sizes.append(x.shape[1])
        return x * jnp.float32(2)

    @functools.partial(jax.jit, static_argnames="most")
    @functools.partial(jax.value_and_grad, has_aux=True)
    def summed(states, most):
        losses, right = token_losses(states, logits=logits, wanted=jnp.asarray(wanted), most=most)
        return losses.sum(), (losses, right)

    (_, whole), slope = summed(states, most=1000)
    sizes.clear()
    (_, parts), same = summed(states, most=3 * 4 * 3)
    assert max(sizes) == 3
    for one, other in zip((*parts, same), (*whole, slope), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    x = 2 * states.astype(np.float64)
    logp = x - np.log(np.exp(x).sum(-1, keepdims=True))
    np.testing.assert_allclose(parts[0], -np.take_along_axis(logp, wanted[..., None], axis=2)[..., 0], rtol=1e-5)


def test_flat_patches_are_normalised_by_their_deviation_alone():
    patches = np.array([[10, 20, 30, 40], [7, 7, 7, 7]], np.uint8)
    found = np.asarray(patch_targets(jnp.asarray(patches), epsilon=1e-12))
    np.testing.assert_allclose(found[0], (patches[0] - 25.0) / patches[0].std(), rtol=1e-4)
    np.testing.assert_array_equal(found[1], 0)
    np.testing.assert_allclose(patch_targets(jnp.asarray(patches), normalise=False), patches / 255, rtol=1e-6)


VIDEO = {"image_size": 8, "patch": 4, "width": 16, "depth": 1, "heads": 2}
FAMILIES = {
    "frames": {"family": "frames", "image": VIDEO | {"class_token": True}},
    "joint": {"family": "joint", "tubelet": 2, **VIDEO},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_towers_see_the_visible_patches_alone(family):
    """Pixels of hidden patches do not reach the decoder."""
    heads = {"masked_frames": HEADS["masked_frames"]}
    one = made(terms={"masked_frames": {"ratio": 0.5}}, heads=heads, video=FAMILIES[family])
    tower = drawn(lambda: one.init(nnx.Rngs(0))).video
    video, kept = batch()["video"][:1], np.array([[0, 3]], np.int32)
    blank = video.copy()
    blank[:, :, :4, 4:], blank[:, :, 4:, :4] = 0, 255
    both = tower.visible_patches(jnp.asarray(np.concatenate([video, blank])), kept=jnp.asarray(kept.repeat(2, axis=0)))
    steps = 1 if family == "joint" else 2
    assert both.shape == (2, steps, 2, 16) and both.std() > 0.1
    np.testing.assert_array_equal(both[0], both[1])


@pytest.mark.parametrize(
    ("terms", "model", "message"),
    [
        ({"masked_language": {"rate": 0.0}}, {}, "masked_language.rate must be above 0 and below 1, got 0.0"),
        ({"masked_language": {"without_video": 1.0}}, {}, "without_video must be at least 0 and below 1"),
        ({"masked_language": {}}, {"text": {"width": 16, "depth": 1, "heads": 2, "causal": True}}, "captioning"),
        ({"masked_language": {}}, {"text": {"family": "lstm"}}, "family 'transformer', got 'lstm'"),
        ({"masked_frames": {"ratio": 1.0}}, {}, "masked_frames.ratio must be above 0 and below 1"),
        ({"masked_frames": {"epsilon": 0.0}}, {}, "masked_frames.epsilon must be above 0"),
        ({"masked_frames": {}}, {"video": {"family": "features", "input_width": 4}}, "masked_frames needs frames"),
        ({"distillation": {}}, {}, "distillation.source must name a teacher"),
        ({"distillation": {"source": "x", "sides": ("vidoe",)}}, {}, "did you mean 'video'"),
        ({"distillation": {"source": "x", "sides": ()}}, {}, "must name video, text, or both"),
        ({"distillation": {"source": "x", "distance": "cosin"}}, {}, "did you mean 'cosine'"),
        ({"distillation": {"source": "x", "temperature": 0.0}}, {}, "temperature must be above 0"),
        ({"distillation": {"source": "x", "embedding": 0.0, "similarity": 0.0}}, {}, "and one above"),
        ({"distillation": {"source": "x", "embedding": 0.0}}, {}, "leave the head out, or set embedding above 0"),
    ],
)
def test_options_that_do_not_fit_are_named(terms, model, message):
    heads = {name: HEADS[name] for name in terms}
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        made(terms=terms, heads=heads, **model)


@pytest.mark.parametrize(
    ("terms", "heads", "video", "message"),
    [
        ("masked_frames", {"width": 6}, VIDEO, "masked_frames.width=6 must be a multiple of 4"),
        ("masked_frames", {}, {"family": "divided", **VIDEO}, "needs a video tower that encodes some patches"),
        ("masked_frames", {"depth": 0}, VIDEO, "depth=0 and heads=2 must be at least 1"),
        ("masked_language", {"depth": 0}, VIDEO, "depth=0 and heads=2 must be at least 1"),
        ("distillation", {"width": 0}, VIDEO, "distillation.width must be at least 1"),
    ],
)
def test_heads_that_cannot_be_built_are_named(terms, heads, video, message):
    one = made(terms={terms: TERMS[terms]}, heads={terms: HEADS[terms] | heads}, video=video)
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        nnx.eval_shape(lambda: one.init(nnx.Rngs(0)))


def test_batches_that_do_not_fit_are_named():
    one = made(terms={"distillation": TERMS["distillation"]}, heads={"distillation": HEADS["distillation"]})
    rows = {key: value for key, value in batch().items() if not key.startswith("teacher")}
    with pytest.raises(UserError, match="needs the teacher's embeddings of video and text in the batches"):
        jax.eval_shape(lambda rows: one.loss(one.init(nnx.Rngs(0)), rows, rngs=None), rows)
    one = made(terms={"masked_frames": {"ratio": 0.1}}, heads={"masked_frames": HEADS["masked_frames"]})
    with pytest.raises(UserError, match=r"ratio=0\.1 hides none of the 4 patches"):
        jax.eval_shape(lambda rows: one.loss(one.init(nnx.Rngs(0)), rows, rngs=None), rows)
