"""Alignment with the tokens of an image teacher (UMT) against loops: the loss, the teacher's tokens, its places."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contrastive_toy import BATCH, SIDE, batch_of, objective
from flax import nnx
from public_models import source
from tower_loops import block_by_loops, drawn, f64, layer_of

from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.encode.embed.teacher_tokens import TokenOptions, visible_tokens
from twinreel.engine.sharding.mesh import make_mesh, put_batch
from twinreel.models.layer_tokens import attended_places, kept_places
from twinreel.models.towers.frames import FramesTower
from twinreel.pretrain.pretrain import pretrain
from twinreel.pretrain.synthetic import batch_like
from twinreel.pretrain.terms import distillation as term

LAYERS, WIDTH, COUNT = 2, 5, 2
VIDEO = {"image_size": SIDE, "patch": 4, "width": 16, "depth": 3, "heads": 2, "temporal_depth": 1}
HEADS = {"distillation": {"kind": "tokens", "width": WIDTH, "layers": LAYERS}}
TERM = {"source": "teacher", "sides": ("video",), "embedding": 0.0, "similarity": 0.0, "tokens": 2.0}
VALID = np.array([True] * 6 + [False, True])


def batch():
    rng = np.random.default_rng(1)
    places = np.sort(np.stack([rng.permutation(4)[:COUNT] for _ in range(BATCH)]), axis=1).astype(np.int32)
    tokens = rng.normal(size=(BATCH, 2, COUNT, LAYERS, WIDTH)).astype(np.float32)
    mask = np.arange(2)[None] < np.array([[1], [2]] * 4)
    made = {key: value for key, value in batch_of(0).items() if key != "clip_index"} | {"valid": VALID}
    return made | {"teacher_tokens": tokens, "teacher_places": places, "video_mask": mask}


def test_the_loss_is_the_squared_distance_of_unit_tokens():
    """The student's tokens by loops over blocks, patch by patch; in two parts, on two devices."""
    made = objective(loss={"terms": {"distillation": TERM}, "microbatch": 2}, heads=HEADS, video=VIDEO)
    graph, params = nnx.split(drawn(lambda: made.init(nnx.Rngs(0)), seed=4))
    params["log_scale"][...] = jnp.float32(1.0)
    mesh, rows = make_mesh(devices=jax.devices()[:2]), batch()
    with jax.set_mesh(mesh):
        step = jax.jit(lambda params, batch: made.loss(nnx.merge(graph, params), batch, rngs=None))
        _, logged = jax.device_get(step(params, put_batch(rows, mesh=mesh)))
    model = nnx.merge(graph, params)
    head, tower = model.heads["distillation"], model.video
    embedded = f64(tower.embed(jnp.asarray(rows["video"]))) + f64(tower.space_position)  # [B,T,N,D]
    errors = []
    for row in np.flatnonzero(VALID):
        for time in range(2):
            if not rows["video_mask"][row, time]:
                continue
            x, layers = embedded[row, time][rows["teacher_places"][row]], []
            for number in range(3):
                x = block_by_loops(x, layer_of(tower.space, number))
                layers.append(x)
            for number, tokens in enumerate(layers[-LAYERS:]):
                mapped = tokens @ f64(head.layers.kernel)[number] + f64(head.layers.bias)[number]
                wanted = np.asarray(rows["teacher_tokens"][row, time, :, number], np.float64)
                for one, other in zip(mapped, wanted, strict=True):
                    errors.append(2 - 2 * one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    assert logged["loss_distillation"] == pytest.approx(2 * np.mean(errors), rel=1e-4)


def test_each_part_of_the_term_has_its_own_factor(monkeypatch):
    monkeypatch.setattr(term, "aligned_tokens", lambda seen: jnp.float32(3))
    options = term.DistillationOptions(source="x", sides=("video",), embedding=0.5, similarity=0.0, tokens=2.0)
    x = jnp.eye(2, dtype=jnp.float32)
    made = {"videos": x, "valid": jnp.ones(2, bool), "batch": {"teacher_video": x[::-1]}}
    seen = SimpleNamespace(texts=SimpleNamespace(embedding=x), model=SimpleNamespace(heads=None), **made)
    assert float(term.distillation(seen, options)[0]) == pytest.approx(2 * 3 + 0.5)


IMAGE = {"image_size": 8, "patch": 4, "width": 8, "depth": 2, "heads": 2, "pool": "cls", "class_token": True}


def test_the_teacher_gives_its_tokens_at_the_places_that_it_draws():
    """An image tower with a class token; frames of 4 x 4 patches of 2 pixels become its own 4 x 4 patches."""
    image = IMAGE | {"image_size": 16}
    given = {"num_frames": 2, "pixel_mean": (0.5,) * 3, "pixel_std": (0.5,) * 3}
    tower = drawn(lambda: FramesTower(image=image, **given, rngs=nnx.Rngs(0)), seed=2)
    video = jnp.asarray(np.random.default_rng(3).integers(0, 256, (2, 4, 16, 16, 3)), jnp.uint8)
    options = TokenOptions(layers=1, ratio=0.75, patch=4, tubelet=2, width=8)
    found = jax.device_get(jax.jit(lambda tower, video: visible_tokens(tower, video, options=options))(tower, video))
    again = jax.device_get(visible_tokens(tower, video[:1], options=options))
    np.testing.assert_array_equal(found["teacher_places"][:1], again["teacher_places"])  # whatever else is in the batch
    assert found["teacher_tokens"].shape == (2, 2, 4, 1, 8) and kept_places(16, ratio=0.75) == 4
    for row in range(2):
        places = found["teacher_places"][row]
        assert (np.diff(places) > 0).all() and places.max() < 16
        for time in range(2):
            frame = video[row, 1 + 2 * time]
            x = f64(tower.image.embed(frame[None, None])[0, 0]) + f64(tower.image.space_position)
            x = np.concatenate([f64(tower.image.class_token), x])
            for number in range(2):
                x = block_by_loops(x, layer_of(tower.image.blocks, number))
            np.testing.assert_allclose(found["teacher_tokens"][row, time, :, 0], x[1:][places], rtol=2e-3, atol=2e-3)


def test_places_are_drawn_in_proportion_to_the_attention_without_repetition():
    attention = np.array([0.5, 0.3, 0.15, 0.05, 0.0], np.float32)
    keys = jax.random.split(jax.random.key(0), 4000)
    rows = jnp.broadcast_to(jnp.asarray(attention)[None], (4000, 5))
    first = np.asarray(attended_places(rows, count=1, keys=keys))[:, 0]
    shares = np.bincount(first, minlength=5) / 4000
    np.testing.assert_allclose(shares, attention, atol=0.03)  # 3.8 deviations
    three = np.asarray(attended_places(rows, count=3, keys=keys))
    assert (np.diff(three, axis=1) > 0).all() and three.max() < 4


@pytest.mark.parametrize(
    ("term", "heads", "match"),
    [
        ({"tokens": 0.0, "embedding": 1.0}, HEADS, "and the head go together: set tokens above 0"),
        ({}, {}, "and the head go together: set tokens above 0"),
        ({}, {"distillation": {"kind": "linear", "width": 5}}, "and the head go together"),
        ({"sides": ("text",)}, HEADS, "compares tokens of clips; add 'video'"),
        ({"token_ratio": 1.0}, HEADS, "token_ratio must be at least 0 and below 1"),
        ({"tokens": 0.0}, HEADS, "embedding, similarity, tokens must be at least 0, and one above"),
        ({}, {"distillation": HEADS["distillation"] | {"layers": 0}}, "width=5 and layers=0 must be at least 1"),
    ],
)
def test_options_that_do_not_fit_are_named(term, heads, match):
    with pytest.raises(UserError, match=match):
        objective(loss={"terms": {"distillation": TERM | term}}, heads=heads, video=VIDEO).init(nnx.Rngs(0))


def test_more_layers_than_the_tower_has_and_batches_without_a_teacher():
    heads = {"distillation": HEADS["distillation"] | {"layers": 4}}
    made = objective(loss={"terms": {"distillation": TERM}}, heads=heads, video=VIDEO)
    rows = {key: jax.ShapeDtypeStruct(value.shape, value.dtype) for key, value in batch().items()}
    model = nnx.eval_shape(lambda: made.init(nnx.Rngs(0)))
    with pytest.raises(UserError, match="layers=4, but the tower has 3 blocks over patches"):
        nnx.eval_shape(lambda model, rows: made.loss(model, rows, rngs=None), model, rows)
    del rows["teacher_tokens"]
    with pytest.raises(UserError, match="tokens needs the teacher's tokens in the batches"):
        nnx.eval_shape(lambda model, rows: made.loss(model, rows, rngs=None), model, rows)


def test_a_run_learns_from_an_image_encoder_without_a_joint_space(tiny_overrides, tmp_path):
    """DINOv2's form; the frames of the batch have the student's size, the teacher as many patches."""
    config = load_config("demo", overrides=[*tiny_overrides, "train.steps=1", "optimizer.warmup_steps=0"])
    with config.unlocked():
        config.model.heads = {"distillation": {"kind": "tokens", "width": 24}}
        config.loss.terms = {"distillation": TERM | {"source": str(source("dinov2", tmp_path / "teacher"))}}
        config.evaluations = {}
    like = batch_like(config, rows=2)
    pretrain(config, workdir=tmp_path / "run")
    lines = [json.loads(one) for one in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    [loss] = [value for one in lines for key, value in one.items() if key.endswith("loss_distillation")]
    assert 0 < loss < 8  # twice a squared distance of unit vectors
    assert like["teacher_tokens"].shape[3:] == (1, 24) and "teacher_video" not in like
    config.model.heads.distillation.width = 7
    with pytest.raises(UserError, match=r"distillation.width=7, but the tokens of the teacher .* have 24 numbers"):
        pretrain(config, workdir=tmp_path / "other")
