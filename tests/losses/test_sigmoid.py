"""The sigmoid loss against float64 loops in NumPy, and its blockwise and ring forms against the dense one."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contrast import COLLAPSED, ROWS, assert_same, chance, marks, mesh, pairs, value_and_gradients

from twinreel.base.errors import UserError
from twinreel.losses.exchange import over_slices
from twinreel.losses.sigmoid import sigmoid

OPTIONS = {"plain": {}, "positive": {"same": "positive"}, "smooth": {"label_smoothing": 0.1, "same": "negative"}}


def reference(x, y, scale, bias, *, valid=None, group=None, same="ignore", label_smoothing=0.0):
    """The loss and the accuracies by loops over pairs, float64."""
    rows = [i for i in range(len(x)) if valid is None or valid[i]]
    total, seen = 0.0, []  # (row, column, score, whether the pair is a positive)
    for i in rows:
        for j in rows:
            equal = group is not None and bool(np.all(group[i] == group[j]))
            if equal and same == "ignore" and i != j:
                continue
            positive = i == j or (equal and same == "positive")
            target = (1 - label_smoothing) * positive + label_smoothing / 2
            score = scale * float(np.dot(x[i], y[j])) + bias
            seen.append((i, j, score, positive))
            total += target * np.log1p(np.exp(-score)) + (1 - target) * np.log1p(np.exp(score))
    hits = [0, 0]
    for anchor in rows:
        for way in (0, 1):
            scores = [(score, positive) for *pair, score, positive in seen if pair[way] == anchor]
            hits[way] += chance([score for score, positive in scores if positive], [score for score, _ in scores])
    count = max(len(rows), 1)
    return total / count, {"accuracy_x2y": hits[0] / count, "accuracy_y2x": hits[1] / count}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("form", ["dense", "blockwise"])
def test_equals_loops_in_float64(options, form):
    rng = np.random.default_rng(3)
    x, y = pairs(rng, 13)
    known = marks(rng, 13) | options
    (loss, metrics), gradients = value_and_gradients(sigmoid, x, y, 6.0, -4.0, form=form, block=5, **known)
    wanted, wanted_metrics = reference(x, y, 6.0, -4.0, **known)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    assert {k: pytest.approx(float(v)) for k, v in metrics.items()} == wanted_metrics
    assert all(0 < share < 1 for share in wanted_metrics.values())
    step = 1e-6
    for which, index in [(0, (1, 2)), (1, (4, 0)), (2, ()), (3, ())]:
        sides = []
        for sign in (1, -1):
            moved = [x.copy(), y.copy(), np.array(6.0), np.array(-4.0)]
            moved[which][index] += sign * step
            sides.append(reference(*moved, **known)[0])
        slope = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose(gradients[which][index], slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("collapse", COLLAPSED.values(), ids=COLLAPSED)
@pytest.mark.parametrize("form", ["dense", "blockwise"])
def test_collapsed_embeddings_are_right_as_often_as_chance(collapse, form):
    rng = np.random.default_rng(4)
    x, y = (collapse(e) for e in pairs(rng, 13))
    known = marks(rng, 13) | {"same": "positive"}
    (_, metrics), _ = value_and_gradients(sigmoid, x, y, 10.0, -10.0, form=form, block=5, **known)
    _, wanted = reference(x, y, 10.0, -10.0, **known)
    assert {k: pytest.approx(float(v)) for k, v in metrics.items()} == wanted
    assert all(0 < share < 1 for share in wanted.values())


def test_plain_loss_is_optax_binary_cross_entropy():
    x, y = (jnp.asarray(e, jnp.float32) for e in pairs(np.random.default_rng(1), 9))
    pair = optax.sigmoid_binary_cross_entropy(10.0 * x @ y.T - 10.0, jnp.eye(9, dtype=jnp.float32))
    loss, _ = sigmoid(x=x, y=y, scale=jnp.float32(10.0), bias=jnp.float32(-10.0), form="blockwise", block=4, axes=ROWS)
    np.testing.assert_allclose(loss, pair.sum() / 9, rtol=1e-5)


@pytest.mark.parametrize(
    ("rows", "shape", "exchange", "slices"),
    [
        (23, None, "gather", 1),
        (56, (2, 4, 1), "gather", 1),
        (56, (2, 2, 2), "ring", 2),
        pytest.param(24, (1, 8, 1), "ring", 1, marks=pytest.mark.slow),
    ],
)
def test_blockwise_equals_dense(rows, shape, exchange, slices):
    rng = np.random.default_rng(rows)
    x, y = pairs(rng, rows)
    known = marks(rng, rows) | {"same": "positive", "label_smoothing": 0.1}
    wanted = value_and_gradients(sigmoid, x, y, 10.0, -5.0, **known)
    on = None if shape is None else mesh(shape)
    form = {"form": "blockwise", "exchange": exchange, "block": 5}
    with over_slices(slices):
        assert_same(value_and_gradients(sigmoid, x, y, 10.0, -5.0, on=on, **form, **known), wanted)


@pytest.mark.parametrize("form", ["dense", "blockwise"])
def test_invalid_rows_change_nothing_and_get_no_gradient(form):
    rng = np.random.default_rng(1)
    x, y = pairs(rng, 8)
    short = value_and_gradients(sigmoid, x[:5], y[:5], 10.0, -10.0, form=form, block=3)
    x[6], y[7] = np.nan, np.inf
    valid = np.array([True] * 5 + [False] * 3)
    whole = value_and_gradients(sigmoid, x, y, 10.0, -10.0, valid=valid, form=form, block=3)
    assert_same((whole[0], (whole[1][0][:5], whole[1][1][:5], *whole[1][2:])), short)
    assert not whole[1][0][5:].any() and not whole[1][1][5:].any()


def test_hard_negatives_are_refused():
    x = jnp.eye(4, dtype=jnp.float32)
    with pytest.raises(UserError, match=r"config.loss.hard_negative"):
        sigmoid(x=x, y=x, scale=jnp.float32(1.0), bias=jnp.float32(0.0), hard_negative=0.5, axes=ROWS)
