"""Cross-entropy against loops in NumPy float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twinreel.losses.classification import softmax_cross_entropy


def reference(logits, label, valid, smoothing):
    """The definition, one row and one class at a time."""
    total, hits, rows = 0.0, 0, 0
    for scores, own, taken in zip(logits.astype(np.float64), label, valid, strict=True):
        if not taken or own < 0:
            continue
        log_sum = math.log(sum(math.exp(s) for s in scores))
        for y, s in enumerate(scores):
            target = (1 - smoothing) * (y == own) + smoothing / len(scores)
            total -= target * (s - log_sum)
        hits += (scores[own] == max(scores)) / np.sum(scores == max(scores))
        rows += 1
    return (total / rows, hits / rows) if rows else (0.0, 0.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("valid", [[True] * 6, [True, False, True, True, False, True], [False] * 6])
def test_loss_and_accuracy(smoothing, valid):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (6, 4)).astype(np.float32)
    label = np.array([0, 3, 2, -1, 1, 1], np.int32)
    loss, metrics = softmax_cross_entropy(
        logits=jnp.asarray(logits), label=jnp.asarray(label), valid=jnp.asarray(valid), label_smoothing=smoothing
    )
    wanted_loss, wanted_accuracy = reference(logits, label, valid, smoothing)
    assert loss.dtype == jnp.float32 and loss.shape == ()
    assert float(loss) == pytest.approx(wanted_loss, rel=1e-5)
    assert float(metrics["accuracy"]) == pytest.approx(wanted_accuracy)


def test_valid_none_takes_all_labelled_rows():
    logits = jnp.array([[2.0, 0.0], [0.0, 1.0], [5.0, 0.0]])
    label = jnp.array([0, 0, -1], jnp.int32)
    loss, metrics = softmax_cross_entropy(logits=logits, label=label)
    assert float(loss) == pytest.approx(reference(np.asarray(logits), [0, 0, -1], [True] * 3, 0.0)[0], rel=1e-6)
    assert float(metrics["accuracy"]) == 0.5


def test_a_head_that_knows_nothing_is_right_as_often_as_chance():
    _, metrics = softmax_cross_entropy(logits=jnp.zeros((3, 4)), label=jnp.array([0, 0, 2], jnp.int32))
    assert float(metrics["accuracy"]) == pytest.approx(1 / 4)


def test_rows_that_do_not_take_part_get_no_gradient():
    logits = jnp.array([[2.0, 0.0], [0.0, 9.0], [5.0, 0.0]])
    label = jnp.array([0, 0, -1], jnp.int32)
    valid = jnp.array([True, False, True])
    gradient = jax.grad(lambda x: softmax_cross_entropy(logits=x, label=label, valid=valid, label_smoothing=0.1)[0])
    got = np.asarray(gradient(logits))
    assert np.abs(got[0]).sum() > 0
    assert not got[1:].any()


def test_bfloat16_scores_give_a_float32_loss():
    logits = jnp.array([[2.0, 0.0]], jnp.bfloat16)
    loss, _ = softmax_cross_entropy(logits=logits, label=jnp.array([0], jnp.int32))
    assert loss.dtype == jnp.float32
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-5)
