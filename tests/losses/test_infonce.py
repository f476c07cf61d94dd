"""InfoNCE against float64 loops in NumPy, and its blockwise and ring forms against the dense one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contrast import COLLAPSED, ROWS, assert_same, chance, marks, mesh, pairs, unit, value_and_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from twinreel.base.errors import UserError
from twinreel.cost.collectives import device_groups
from twinreel.cost.hlo import parse_program
from twinreel.losses.exchange import over_slices
from twinreel.losses.infonce import Foils, info_nce, text_group

OPTIONS = {
    "plain": {},
    "positive": {"same": "positive"},
    "negative": {"same": "negative"},
    "smooth": {"label_smoothing": 0.1},
    "hard": {"hard_negative": 0.7},
    "all": {"same": "positive", "label_smoothing": 0.2, "hard_negative": 0.3},
}


def reference(x, y, scale, *, valid=None, group=None, same="ignore", label_smoothing=0.0, hard_negative=0.0):
    """InfoNCE by loops over pairs, float64."""
    size = len(x)
    rows = [i for i in range(size) if valid is None or valid[i]]
    scores = [[scale * float(np.dot(x[i], y[j])) for j in range(size)] for i in range(size)]
    total, hits = 0.0, [0, 0]
    for i in rows:
        for way in (0, 1):
            positive, negative = [], []
            for j in rows:
                equal = group is not None and bool(np.all(group[i] == group[j]))
                score = scores[i][j] if way == 0 else scores[j][i]
                if j == i or (equal and same == "positive"):
                    positive.append(score)
                elif not (equal and same == "ignore"):
                    negative.append(score)
            weights = [np.exp(hard_negative * s) for s in negative]
            mean = np.mean(weights) if negative else 1.0
            bottom = sum(np.exp(s) for s in positive)
            bottom += sum(w / mean * np.exp(s) for w, s in zip(weights, negative, strict=True))
            target = (1 - label_smoothing) * np.mean(positive) + label_smoothing * np.mean(positive + negative)
            total += 0.5 * (np.log(bottom) - target)
            hits[way] += chance(positive, positive + negative)
    count = max(len(rows), 1)
    return total / count, {"accuracy_x2y": hits[0] / count, "accuracy_y2x": hits[1] / count}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("marked", [False, True])
def test_dense_equals_loops_in_float64(options, marked):
    rng = np.random.default_rng(3)
    x, y = pairs(rng, 13)
    known = marks(rng, 13) if marked else {}
    (loss, metrics), _ = value_and_gradients(info_nce, x, y, 6.0, **known, **options)
    wanted, wanted_metrics = reference(x, y, 6.0, **known, **options)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    assert {k: pytest.approx(float(v)) for k, v in metrics.items()} == wanted_metrics


def test_dense_gradients_equal_finite_differences_of_the_loops():
    rng = np.random.default_rng(0)
    x, y = pairs(rng, 6, width=4)
    known = marks(rng, 6) | {"valid": np.array([1, 1, 0, 1, 1, 1], bool)} | OPTIONS["all"]
    _, gradients = value_and_gradients(info_nce, x, y, 9.0, **known)
    step = 1e-6
    for which, index in [(0, (0, 1)), (0, (2, 0)), (1, (3, 2)), (1, (5, 3)), (2, ())]:
        sides = []
        for sign in (1, -1):
            moved = [x.copy(), y.copy(), np.array(9.0)]
            moved[which][index] += sign * step
            sides.append(reference(*moved, **known)[0])
        slope = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose(gradients[which][index], slope, rtol=1e-4, atol=1e-5)


def test_plain_loss_is_optax_cross_entropy_of_both_directions():
    x, y = (jnp.asarray(e, jnp.float32) for e in pairs(np.random.default_rng(1), 9))
    scores, own = 12.0 * x @ y.T, jnp.arange(9)
    ways = [optax.softmax_cross_entropy_with_integer_labels(s, own).mean() for s in (scores, scores.T)]
    loss, _ = info_nce(x=x, y=y, scale=jnp.float32(12.0), form="blockwise", block=4, axes=ROWS)
    np.testing.assert_allclose(loss, 0.5 * (ways[0] + ways[1]), rtol=1e-5)


@pytest.mark.parametrize(("rows", "block", "options"), [(23, 5, o) for o in OPTIONS.values()] + [(16, 8, {})])
def test_blockwise_equals_dense(rows, block, options):
    rng = np.random.default_rng(rows)
    x, y = pairs(rng, rows)
    known = (marks(rng, rows) if rows != 16 else {}) | options
    wanted = value_and_gradients(info_nce, x, y, 20.0, **known)
    assert_same(value_and_gradients(info_nce, x, y, 20.0, form="blockwise", block=block, **known), wanted)


@pytest.mark.parametrize(
    ("shape", "exchange"),
    [
        ((2, 4, 1), "gather"),
        ((2, 4, 1), "ring"),
        ((2, 2, 2), "ring"),
        pytest.param((2, 2, 2), "gather", marks=pytest.mark.slow),
        pytest.param((2, 1, 1), "gather", marks=pytest.mark.slow),
        pytest.param((2, 1, 1), "ring", marks=pytest.mark.slow),
        pytest.param((1, 4, 1), "gather", marks=pytest.mark.slow),
        pytest.param((1, 4, 1), "ring", marks=pytest.mark.slow),
        pytest.param((1, 1, 8), "ring", marks=pytest.mark.slow),
    ],
)
def test_devices_equal_dense_on_one(shape, exchange):
    rng = np.random.default_rng(5)
    x, y = pairs(rng, 56)
    known = marks(rng, 56) | (OPTIONS["all"] if shape == (2, 2, 2) else {})
    wanted = value_and_gradients(info_nce, x, y, 20.0, **known)
    form = {"form": "blockwise", "exchange": exchange, "block": 5}
    assert_same(value_and_gradients(info_nce, x, y, 20.0, on=mesh(shape), **form, **known), wanted)


@pytest.mark.parametrize("slices", [4, pytest.param(2, marks=pytest.mark.slow)])
def test_rings_of_slices_equal_dense_on_one(slices):
    rng = np.random.default_rng(5)
    x, y = pairs(rng, 56)
    known = marks(rng, 56) | OPTIONS["all"]
    wanted = value_and_gradients(info_nce, x, y, 20.0, **known)
    form = {"form": "blockwise", "exchange": "ring", "block": 5}
    with over_slices(slices):
        assert_same(value_and_gradients(info_nce, x, y, 20.0, on=mesh((4, 2, 1)), **form, **known), wanted)


def test_a_ring_crosses_the_network_once_for_each_slice():
    on, rows = mesh((4, 2, 1)), 16

    def permutes(slices):
        """Pairs of each permutation of the compiled loss, and how often it runs."""
        sharded = NamedSharding(on, PartitionSpec(("replica", "fsdp")))
        x = jax.ShapeDtypeStruct((rows, 4), np.float32, sharding=sharded)
        loss = functools.partial(
            info_nce, scale=jnp.float32(1.0), form="blockwise", exchange="ring", axes=("replica", "fsdp")
        )
        with jax.set_mesh(on), over_slices(slices):
            compiled = jax.jit(lambda x, y: loss(x=x, y=y)[0]).lower(x, x).compile()
        program = parse_program(compiled.as_text())
        for found, _, times in program.walk():
            if found.opcode.startswith("collective-permute") and found.results[0].shape == (rows // 8, 4):
                yield device_groups(found.attributes, devices=8), times

    def crossing(slices):
        """How often a device sends embeddings to another half of the devices, for the device that does it most."""
        sent = np.zeros(8, int)
        for moves, times in permutes(slices):
            far = moves[:, 0] // 4 != moves[:, 1] // 4
            np.add.at(sent, moves[far, 0], times)
        return sent.tolist()

    assert crossing(1) == [0, 0, 0, 8, 0, 0, 0, 8]
    assert crossing(2) == [2] * 8


@pytest.mark.parametrize("collapse", COLLAPSED.values(), ids=COLLAPSED)
@pytest.mark.parametrize(("form", "on"), [("dense", None), ("blockwise", None), ("blockwise", (2, 2, 2))])
def test_collapsed_embeddings_are_right_as_often_as_chance(collapse, form, on):
    rng = np.random.default_rng(4)
    x, y = (collapse(e) for e in pairs(rng, 16))
    how = {"form": form, "block": 5, "exchange": "ring", "on": None if on is None else mesh(on)}
    (_, plain), _ = value_and_gradients(info_nce, x, y, 20.0, **how)
    share = 1 / 8 if collapse is COLLAPSED["two clusters"] else 1 / 16
    assert {k: float(v) for k, v in plain.items()} == pytest.approx({"accuracy_x2y": share, "accuracy_y2x": share})
    known = marks(rng, 16) | {"same": "positive"}
    (_, metrics), _ = value_and_gradients(info_nce, x, y, 20.0, **how, **known)
    _, wanted = reference(x, y, 20.0, **known)
    assert {k: pytest.approx(float(v)) for k, v in metrics.items()} == wanted
    assert all(0 < share < 1 for share in wanted.values())


def test_dense_on_a_mesh_equals_dense_on_one():
    rng = np.random.default_rng(6)
    x, y = pairs(rng, 16)
    known = marks(rng, 16)
    wanted = value_and_gradients(info_nce, x, y, 20.0, **known)
    assert_same(value_and_gradients(info_nce, x, y, 20.0, on=mesh((2, 4, 1)), **known), wanted)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(2, 20),
    block=st.integers(1, 9),
    scale=st.sampled_from([0.5, 20.0, 100.0]),
    smooth=st.sampled_from([0.0, 0.3]),
    hard=st.sampled_from([0.0, 1.0]),
    same=st.sampled_from(["ignore", "positive", "negative"]),
    share=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_blockwise_equals_dense_whatever_the_size(rows, block, scale, smooth, hard, same, share):
    rng = np.random.default_rng(rows * 10 + block)
    x, y = unit(rng, rows, 6), unit(rng, rows, 6)
    known = {"valid": rng.random(rows) < share, "group": rng.integers(0, 4, rows).astype(np.int32)}
    known |= {"same": same, "label_smoothing": smooth, "hard_negative": hard}
    wanted = value_and_gradients(info_nce, x, y, scale, **known)
    assert_same(value_and_gradients(info_nce, x, y, scale, form="blockwise", block=block, **known), wanted)


@pytest.mark.parametrize("form", ["dense", "blockwise"])
def test_invalid_rows_change_nothing_and_get_no_gradient(form):
    rng = np.random.default_rng(1)
    x, y = pairs(rng, 8)
    valid = np.array([True] * 5 + [False] * 3)
    short = value_and_gradients(info_nce, x[:5], y[:5], 20.0, form=form, block=3)
    x[6], y[7] = np.nan, np.inf  # what an encoder may make of padding must not spread
    whole = value_and_gradients(info_nce, x, y, 20.0, valid=valid, form=form, block=3)
    assert_same((whole[0], (whole[1][0][:5], whole[1][1][:5], whole[1][2])), short)
    assert not whole[1][0][5:].any() and not whole[1][1][5:].any()


@pytest.mark.parametrize("form", ["dense", "blockwise"])
def test_no_valid_row_gives_zero(form):
    x = np.eye(3)
    (loss, metrics), gradients = value_and_gradients(
        info_nce, x, x, 1.0, valid=np.zeros(3, bool), form=form, block=2, **OPTIONS["all"]
    )
    assert loss == 0 and all(value == 0 for value in metrics.values())
    assert all(not np.any(gradient) for gradient in gradients)


def test_bfloat16_rows_are_computed_in_float32():
    x, y = (jnp.asarray(e, jnp.bfloat16) for e in pairs(np.random.default_rng(2), 8))
    loss, gradient = jax.value_and_grad(
        lambda x: info_nce(x=x, y=y, scale=jnp.float32(20.0), form="blockwise", block=3, axes=ROWS)[0]
    )(x)
    assert loss.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    wanted, _ = reference(np.asarray(x, np.float64), np.asarray(y, np.float64), 20.0)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)


def test_blockwise_never_holds_the_scores():
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((4096, 32), (4096, 32), ())]

    def temporaries(**options):
        both = jax.value_and_grad(
            lambda x, y, s: info_nce(x=x, y=y, scale=s, axes=ROWS, **options)[0], argnums=(0, 1, 2)
        )
        return jax.jit(both).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    scores = 4 * 4096**2
    assert temporaries(form="dense") >= scores
    assert temporaries(form="blockwise", block=256) < scores / 20


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"same": "positve"}, "config.loss.same_text"),
        ({"form": "blocks"}, "config.loss.form"),
        ({"form": "blockwise", "exchange": "rings"}, "config.loss.exchange"),
        ({"form": "blockwise", "block": 0}, "config.loss.block"),
        ({"label_smoothing": 1.5}, "config.loss.label_smoothing"),
        ({"hard_negative": -1.0}, "config.loss.hard_negative"),
    ],
)
def test_a_wrong_option_is_named(options, field):
    x = jnp.eye(4, dtype=jnp.float32)
    with pytest.raises(UserError, match=field):
        info_nce(x=x, y=x, scale=jnp.float32(1.0), axes=ROWS, **options)


@pytest.mark.parametrize("form", ["dense", "blockwise"])
def test_a_single_row_has_nothing_to_be_compared_with(form):
    x = jnp.ones((1, 4), jnp.float32)
    with pytest.raises(UserError, match=r"InfoNCE compares .*config\.data\.batch_size must be at least 2, got 1"):
        jax.eval_shape(lambda x: info_nce(x=x, y=x, scale=jnp.float32(1.0), form=form, axes=ROWS), x)


def test_a_batch_that_does_not_divide_is_refused():
    x = jnp.ones((6, 4), jnp.float32)
    with jax.set_mesh(mesh((4, 2, 1))), pytest.raises(UserError, match=r"multiple of 8"):
        info_nce(x=x, y=x, scale=jnp.float32(1.0), form="blockwise", axes=ROWS)


def test_text_group_is_equal_where_the_real_tokens_are():
    text = jnp.asarray([[5, 6, 0], [5, 6, 9], [5, 7, 0], [6, 5, 0], [5, 6, 0]], jnp.int32)
    mask = jnp.asarray([[1, 1, 0], [1, 1, 0], [1, 1, 0], [1, 1, 0], [1, 1, 1]], bool)
    groups = [tuple(row) for row in np.asarray(text_group(text, mask=mask)).tolist()]
    assert groups[0] == groups[1]
    assert len(set(groups)) == 4


def test_text_group_keeps_many_texts_apart():
    text = np.unique(np.random.default_rng(0).integers(0, 9, (20_000, 7)).astype(np.int32), axis=0)
    groups = np.asarray(text_group(jnp.asarray(text), mask=jnp.ones(text.shape, bool)))
    assert len(np.unique(groups, axis=0)) == len(text)
    # Each of the two numbers alone meets about n^2 / 2^33 times by chance.
    for column in groups.T:
        assert len(text) - len(np.unique(column)) <= 3


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("marked", [False, True])
def test_foils_are_further_negatives_of_every_row(options, marked):
    """Against the loops: the foils stand after the texts as columns whose own rows take no part."""
    rng, size, each = np.random.default_rng(7), 6, 2
    x, y = pairs(rng, size)
    foil = unit(rng, size, each, x.shape[1])
    there = rng.random((size, each)) < 0.7
    valid = np.array([1, 1, 0, 1, 1, 1], bool) if marked else np.ones(size, bool)
    group = np.array([[0], [1], [2], [1], [4], [5]], np.uint32)
    foil_group = np.arange(10, 10 + size * each, dtype=np.uint32).reshape(size, each, 1)
    foil_group[0, 0], there[0, 0] = 4, True  # the first row's foil is the fifth row's caption
    known = {"valid": valid, "group": group} if marked else {"valid": valid}
    foils = Foils(
        embedding=jnp.asarray(foil, jnp.float32),
        valid=jnp.asarray(there),
        group=jnp.asarray(foil_group) if marked else None,
    )
    found = info_nce(
        x=jnp.asarray(x, jnp.float32),
        y=jnp.asarray(y, jnp.float32),
        scale=jnp.float32(6),
        **{key: jnp.asarray(value) for key, value in known.items()},
        **options,
        foils=foils,
        axes=(),
    )
    loss, accuracy = with_foils(x, y, 6.0, foil=foil, there=there, foil_group=foil_group, **known, **options)
    np.testing.assert_allclose(found[0], loss, rtol=1e-5)
    assert float(found[1]["accuracy_foils"]) == pytest.approx(accuracy)
    _, without_foils = reference(x, y, 6.0, **known, **options)
    assert {k: pytest.approx(float(found[1][k])) for k in without_foils} == without_foils


def with_foils(
    x, y, scale, *, foil, there, foil_group, valid, group=None, same="ignore", label_smoothing=0.0, hard_negative=0.0
):
    """Loss and share of beaten foils by loops over rows, texts and foils, float64."""
    rows, total, beaten = np.flatnonzero(valid), 0.0, []
    for i in rows:
        for way in (0, 1):
            positive, negative = [], []
            for j in rows:
                equal = group is not None and group[i, 0] == group[j, 0]
                score = scale * float(x[i] @ y[j] if way == 0 else x[j] @ y[i])
                if j == i or (equal and same == "positive"):
                    positive.append(score)
                elif not (equal and same == "ignore"):
                    negative.append(score)
                for k in range(foil.shape[1] if way == 0 else 0):
                    if there[j, k] and not (group is not None and group[i, 0] == foil_group[j, k, 0]):
                        negative.append(scale * float(x[i] @ foil[j, k]))
            mean = np.mean(np.exp(hard_negative * np.array(negative)))
            bottom = np.exp(positive).sum() + np.exp((1 + hard_negative) * np.array(negative)).sum() / mean
            target = (1 - label_smoothing) * np.mean(positive) + label_smoothing * np.mean(positive + negative)
            total += 0.5 * (np.log(bottom) - target)
        beaten += [float(x[i] @ y[i] > x[i] @ foil[i, k]) for k in range(foil.shape[1]) if there[i, k]]
    return total / len(rows), np.mean(beaten)


def test_foils_that_are_not_there_change_nothing():
    rng = np.random.default_rng(8)
    x, y = (jnp.asarray(e, jnp.float32) for e in pairs(rng, 5))
    foils = Foils(embedding=jnp.full((5, 3, x.shape[1]), jnp.nan), valid=jnp.zeros((5, 3), bool))
    how = {"x": x, "y": y, "scale": jnp.float32(4), "hard_negative": 0.5, "axes": ()}
    loss, metrics = info_nce(**how, foils=foils)
    assert float(loss) == pytest.approx(float(info_nce(**how)[0]))
    assert float(metrics["accuracy_foils"]) == 0
    gradient = jax.grad(lambda x: info_nce(**(how | {"x": x}), foils=foils)[0])(x)
    assert bool(jnp.isfinite(gradient).all())


def test_foils_need_the_dense_form():
    rng = np.random.default_rng(8)
    x, y = (jnp.asarray(e, jnp.float32) for e in pairs(rng, 4))
    foils = Foils(embedding=x[:, None], valid=jnp.ones((4, 1), bool))
    with pytest.raises(UserError, match=r"config.loss.form='blockwise' takes no foils"):
        info_nce(x=x, y=y, scale=jnp.float32(4), foils=foils, form="blockwise", axes=())
