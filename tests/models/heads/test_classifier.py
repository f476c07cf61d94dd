"""Heads against loops in NumPy float64, and what frozen towers let through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dual_towers import build_classifier
from flax import nnx
from tower_loops import attention_by_loops, dense, f64, norm, randomised

from twinreel.base.errors import UserError
from twinreel.engine.keeping.transfer import fill, plan_transfer, position_resizers, shapes
from twinreel.engine.step.state import split_model
from twinreel.models.heads.classifier import HEADS, AttentiveHead, LinearHead, StatisticsHead
from twinreel.models.layers.draws import row_keys
from twinreel.models.layers.pooling import cells

TOWER = {"image_size": 8, "patch": 4, "width": 8, "depth": 1, "heads": 2, "temporal_depth": 1, "dropout": 0.5}


def test_linear_head_is_a_dense_layer_on_the_mean():
    head = randomised(LinearHead(width=6, num_classes=3, rngs=nnx.Rngs(0)))
    tokens = np.random.default_rng(1).normal(size=(2, 5, 6)).astype(np.float32)
    mask = np.array([[True] * 5, [True, True, False, False, False]])
    got = nnx.jit(lambda h, x, m: h(x, mask=m))(head, tokens, mask)
    for row in range(2):
        real = tokens[row].astype(np.float64)[mask[row]]
        np.testing.assert_allclose(got[row], dense(real.mean(0), head.scores), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(head(jnp.asarray(tokens))[0], got[0], rtol=1e-6)


def test_statistics_head_against_loops():
    head = randomised(StatisticsHead(width=6, num_classes=3, rngs=nnx.Rngs(0)))
    tokens = np.random.default_rng(1).normal(size=(3, 5, 6)).astype(np.float32)
    mask = np.array([[True] * 5, [True, True, True, False, False], [True, False, True, True, False]])
    got = nnx.jit(lambda h, x, m: h(x, mask=m))(head, tokens, mask)
    for row in range(3):
        x = norm(tokens[row].astype(np.float64), head.norm)
        places = [i for i in range(5) if mask[row, i]]
        first = [np.abs(x[i + 1] - x[i]) for i in range(4) if mask[row, i : i + 2].all()]
        second = [np.abs(x[i + 2] - 2 * x[i + 1] + x[i]) for i in range(3) if mask[row, i : i + 3].all()]
        spread = np.sqrt(x[places].var(axis=0) + 1e-6)
        parts = [x[places].mean(axis=0), spread, *(np.mean(d, axis=0) if d else np.zeros(6) for d in (first, second))]
        np.testing.assert_allclose(got[row], dense(np.concatenate(parts), head.scores), rtol=1e-4, atol=1e-4)
    assert np.isfinite(jax.grad(lambda x: head(x).sum())(jnp.ones((1, 1, 6)))).all()


@pytest.mark.parametrize("positions", [False, True])
def test_attentive_head_against_loops(positions):
    head = randomised(AttentiveHead(width=6, num_classes=3, heads=2, positions=positions, rngs=nnx.Rngs(0)))
    tokens = np.random.default_rng(1).normal(size=(2, 5, 6)).astype(np.float32)
    mask = np.array([[True] * 5, [True, True, False, True, False]])
    got = nnx.jit(lambda h, x, m: h(x, mask=m))(head, tokens, mask)
    pool = head.pool
    for row in range(2):
        x = norm(tokens[row].astype(np.float64), pool.norm_tokens)
        if positions:
            turns = np.arange(5)[:, None] * 10_000.0 ** (-np.arange(3) / 3)
            x = x + np.concatenate([np.sin(turns), np.cos(turns)], axis=1)
        x = x[mask[row]]
        pooled = attention_by_loops(f64(pool.query), pool.attention, context=x)[0]
        wanted = dense(norm(pooled, pool.norm_pooled), head.scores)
        np.testing.assert_allclose(got[row], wanted, rtol=2e-4, atol=2e-4)


def test_dropout_needs_keys():
    head = randomised(LinearHead(width=64, num_classes=3, dropout=0.5, rngs=nnx.Rngs(0)))
    tokens = jnp.ones((2, 3, 64))
    quiet = head(tokens)
    np.testing.assert_array_equal(quiet, head(tokens))
    assert not np.allclose(quiet, head(tokens, keys=row_keys(jax.random.key(0), rows=len(tokens))))


@pytest.mark.parametrize(("head", "frozen"), [("linear", True), ("linear", False), ("attentive", True)])
def test_frozen_towers_get_no_gradient_and_no_dropout(head, frozen):
    model = randomised(
        build_classifier(
            video=TOWER,
            num_frames=2,
            num_classes=3,
            head=head,
            head_options={"heads": 2} if head == "attentive" else {},
            rngs=nnx.Rngs(0),
        )
    )
    video = jnp.asarray(np.random.default_rng(2).integers(0, 256, (2, 2, 8, 8, 3)), jnp.uint8)

    @nnx.jit
    def scores_and_gradient(model, video):
        keys = row_keys(jax.random.key(0), rows=len(video))
        quiet, loud = model(video, frozen=frozen), model(video, keys=keys, frozen=frozen)
        return quiet, loud, nnx.grad(lambda m: jnp.sum(jnp.square(m(video, frozen=frozen))))(model)

    quiet, loud, gradient = scores_and_gradient(model, video)
    assert quiet.shape == (2, 3) and quiet.dtype == jnp.float32
    assert np.allclose(quiet, loud) == frozen
    in_tower = sum(np.abs(x).sum() for x in jax.tree.leaves(gradient["video"]))
    in_head = sum(np.abs(x).sum() for x in jax.tree.leaves(gradient["head"]))
    assert (in_tower == 0.0) == frozen
    assert in_head > 0.0


def test_remat_and_unroll_reach_the_layers():
    model = build_classifier(
        video=TOWER,
        remat="full",
        unroll=0,
        num_frames=2,
        num_classes=3,
        head="linear",
        head_options={},
        rngs=nnx.Rngs(0),
    )
    for blocks in (model.video.space, model.video.time):
        assert (blocks.options.remat, blocks.options.unroll) == ("full", 0)


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_of_more_classes_scores_the_old_ones_as_before(kind):
    """A head of fewer classes, with their parameters, fills in a larger one as `--init` does; never the other way."""
    more = {"heads": 2} if kind in ("attentive", "queries") else {}
    old, new = (randomised(HEADS[kind](width=6, num_classes=n, **more, rngs=nnx.Rngs(0)), seed=n) for n in (3, 5))
    plan = plan_transfer(split_model(old), target=shapes(new), parts=None, resizers=position_resizers(new))
    assert {"resized"} <= set(plan.status.values()) <= {"loaded", "resized"}
    fill(new, values=plan.values)
    tokens = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 6)), jnp.float32)
    np.testing.assert_allclose(new(tokens)[:, :3], old(tokens), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(new(tokens)[:, 3:], 0)
    with pytest.raises(UserError, match="do not fit the new model"):
        plan_transfer(split_model(new), target=shapes(old), parts=None, resizers=position_resizers(old))


def test_new_head_favours_no_class():
    for head in (
        LinearHead(width=8, num_classes=5, rngs=nnx.Rngs(0)),
        AttentiveHead(width=8, num_classes=5, rngs=nnx.Rngs(0)),
    ):
        assert not np.asarray(head(jnp.ones((1, 2, 8)))).any()


@pytest.mark.parametrize(
    ("head", "options", "wanted"),
    [
        ("atentive", {}, "did you mean 'attentive'"),
        ("attentive", {"dropuot": 0.1}, "did you mean 'dropout'"),
        ("attentive", {"heads": 3}, "width=8 must be a multiple of heads=3"),
    ],
)
def test_bad_heads_are_named(head, options, wanted):
    with pytest.raises(UserError, match=wanted):
        build_classifier(video=TOWER, num_frames=2, num_classes=3, head=head, head_options=options, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("grid", [1, 2, 4])
def test_patches_are_averaged_over_cells(grid):
    given = {"num_frames": 2, "num_classes": 3, "head": "attentive", "head_options": {"heads": 2, "patch_grid": grid}}
    model = build_classifier(video=TOWER | {"image_size": 16, "dropout": 0.0}, **given)
    video = np.random.default_rng(0).integers(0, 256, (2, 2, 16, 16, 3)).astype(np.uint8)
    patches = np.asarray(model.video.outputs(video, drop_patches=False).patches, np.float64)  # [B,T,16,W]
    square = patches.reshape(2, patches.shape[1], 4, 4, -1)
    side = 4 // grid
    wanted = [
        square[:, t, i * side : (i + 1) * side, j * side : (j + 1) * side].mean(axis=(1, 2))
        for t in range(patches.shape[1])
        for i in range(grid)
        for j in range(grid)
    ]
    tokens = model.tokens(video)
    np.testing.assert_allclose(tokens, np.stack(wanted, axis=1), atol=1e-5)
    randomised(model.head)
    np.testing.assert_allclose(model(video), model.score(tokens), atol=1e-6)


def test_a_grid_that_does_not_fit():
    with pytest.raises(UserError, match=r"patch_grid=3 must divide the sides .* 4 patches .* 2 to a side"):
        cells(jnp.zeros((1, 2, 4, 8)), grid=3)
    with pytest.raises(UserError, match="6 patches in each time step"):
        cells(jnp.zeros((1, 2, 6, 8)), grid=1)
    features = {"family": "features", "features": "rgb", "input_width": 4, "width": 8, "over_time": "mean"}
    with pytest.raises(UserError, match="the video tower has none; set it to 0"):
        build_classifier(video=features, num_frames=2, num_classes=3, head_options={"patch_grid": 2})
