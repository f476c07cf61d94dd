"""Weights of the losses of several tasks, against loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twinreel.losses.multitask import gradnorm_weights, uncertainty_weighted

LOSSES, FACTOR = np.array([0.7, 2.5, 0.02]), np.array([1.0, 0.5, 1.0])


def test_uncertainty_is_the_negative_logarithm_of_the_likelihood():
    """-log N(y; f, sigma) without its constant, with squared error; lowest where sigma^2 is the error."""
    variance = np.array([0.3, 2.0, 1.0])
    found = uncertainty_weighted(
        *(jnp.asarray(x, jnp.float32) for x in (LOSSES,)),
        log_variance=jnp.asarray(np.log(variance), jnp.float32),
        factor=jnp.asarray(FACTOR, jnp.float32),
    )
    wanted = sum(c * loss / v + np.log(np.sqrt(v)) for loss, v, c in zip(LOSSES, variance, FACTOR, strict=True))
    assert float(found) == pytest.approx(wanted, rel=1e-6)
    best = jnp.asarray(np.log(2 * FACTOR * LOSSES), jnp.float32)
    slope = jax.grad(
        lambda s: uncertainty_weighted(
            jnp.asarray(LOSSES, jnp.float32), log_variance=s, factor=jnp.asarray(FACTOR, jnp.float32)
        )
    )(best)
    np.testing.assert_allclose(slope, 0, atol=1e-6)


def test_gradnorm_descends_the_distance_of_gradients_from_their_targets():
    weights, norms, first = np.array([1.2, 0.8, 1.0]), np.array([3.0, 0.5, 1.0]), np.array([1.0, 2.6, 0.5])
    alpha, lr = 1.5, 0.01
    rate = (LOSSES / first) / np.mean(LOSSES / first)
    target = np.mean(weights * norms) * rate**alpha

    def distance(w):
        return sum(abs(w[k] * norms[k] - target[k]) for k in range(3))

    slope = [
        (distance(weights + 1e-6 * np.eye(3)[k]) - distance(weights - 1e-6 * np.eye(3)[k])) / 2e-6 for k in range(3)
    ]
    moved = weights - lr * np.array(slope)
    given = {name: jnp.asarray(x, jnp.float32) for name, x in (("norms", norms), ("losses", LOSSES), ("first", first))}
    found = gradnorm_weights(jnp.asarray(weights, jnp.float32), alpha=alpha, lr=lr, **given)
    np.testing.assert_allclose(found, moved * 3 / moved.sum(), rtol=1e-5)
    assert float(found.sum()) == pytest.approx(3.0, rel=1e-6)
    assert found[0] < weights[0] * 3 / moved.sum(), "the task with too large a gradient loses weight"
