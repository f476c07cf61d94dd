"""Losses of mixed and several labels, levels and numbers, against loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.losses import classification as losses

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (5, 3)).astype(np.float32)
VALID = np.array([True, True, False, True, True])
WEIGHTS = np.array([0.5, 1.0, 3.0], np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_soft_targets(weights):
    target = RNG.dirichlet([1, 1, 1], 5).astype(np.float32)
    total = over = 0.0
    for x, y in zip(LOGITS[VALID].astype(np.float64), target[VALID].astype(np.float64), strict=True):
        own = y * (1 if weights is None else weights)
        total, over = total - (own * np.log(np.exp(x) / np.exp(x).sum())).sum(), over + own.sum()
    given = {"valid": jnp.asarray(VALID), "weights": None if weights is None else jnp.asarray(weights)}
    loss = jax.jit(lambda x, y: losses.soft_cross_entropy(logits=x, target=y, **given))
    assert loss(jnp.asarray(LOGITS), jnp.asarray(target)) == pytest.approx(total / over, rel=1e-5)


@pytest.mark.parametrize(("weights", "smoothing"), [(None, 0.0), (WEIGHTS, 0.2)])
def test_several_labels(weights, smoothing):
    target = RNG.integers(0, 2, (5, 3)).astype(np.float32)
    soft = target * (1 - smoothing) + smoothing / 2
    positive = soft * (1 if weights is None else weights)
    p = sigmoid(LOGITS.astype(np.float64))
    each = -(positive * np.log(p) + (1 - soft) * np.log(1 - p))
    given = {"valid": jnp.asarray(VALID), "weights": None if weights is None else jnp.asarray(weights)}
    loss = jax.jit(lambda x, y: losses.multilabel_cross_entropy(logits=x, target=y, label_smoothing=smoothing, **given))
    assert loss(jnp.asarray(LOGITS), jnp.asarray(target)) == pytest.approx(each[VALID].mean(), rel=1e-5)


def test_levels_and_numbers():
    level = np.array([0, 3, 9, 2, 1])
    p = sigmoid(LOGITS.astype(np.float64))
    above = level[:, None] > np.arange(3)
    wanted = -np.where(above, np.log(p), np.log(1 - p))[VALID].mean()
    given = {"level": jnp.asarray(level, jnp.float32), "valid": jnp.asarray(VALID)}
    assert losses.ordinal_cross_entropy(logits=jnp.asarray(LOGITS), **given) == pytest.approx(wanted, rel=1e-5)
    truth, predicted = np.array([0.0, 1.0, 5.0, -2.0, 0.3]), LOGITS[:, 0].astype(np.float64)
    error = np.abs(predicted - truth)[VALID]
    huber = np.where(error < 1, error**2 / 2, error - 0.5)
    for kind, each in {"l1": error, "l2": error**2, "huber": huber}.items():
        given = {"predicted": jnp.asarray(LOGITS[:, 0]), "truth": jnp.asarray(truth, jnp.float32)}
        got = losses.number_loss(**given, valid=jnp.asarray(VALID), kind=kind)
        assert got == pytest.approx(each.mean(), rel=1e-5), kind
    with pytest.raises(UserError, match=r"number_loss: 'l3'"):
        losses.number_loss(predicted=jnp.zeros(1), truth=jnp.zeros(1), valid=jnp.ones(1, bool), kind="l3")
