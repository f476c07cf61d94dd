"""ArcFace and CosFace against their formulas in float64: values, and gradients by central differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.losses.margins import margin_cross_entropy, margin_logits

SCALE = 8.0


def reference(cosine, label, valid, *, kind, margin):
    """Mean over rows of -log softmax of s cos(theta + m), or s (cos theta - m), of the own class; by loops."""
    losses = []
    for row, own, taken in zip(cosine, label, valid, strict=True):
        if not taken or own < 0:
            continue
        logits = [SCALE * value for value in row]
        theta = np.arccos(row[own])
        if kind == "cosface":
            logits[own] = SCALE * (row[own] - margin)
        elif theta < np.pi - margin:
            logits[own] = SCALE * np.cos(theta + margin)
        else:
            logits[own] = SCALE * (row[own] - margin * np.sin(margin))
        losses.append(np.log(sum(np.exp(value) for value in logits)) - logits[own])
    return np.mean(losses)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    cosine = rng.uniform(-0.9, 0.9, (6, 5)).astype(np.float32)
    label = np.array([0, 3, 1, -1, 4, 2], np.int32)
    cosine[4, 4] = -0.97  # beyond pi - m
    return cosine, label, np.array([True, True, False, True, True, True])


@pytest.mark.parametrize(("kind", "margin"), [("arcface", 0.5), ("cosface", 0.35), ("arcface", 0.0)])
def test_value_and_gradient(rows, kind, margin):
    cosine, label, valid = rows
    given = {"kind": kind, "margin": margin}

    def loss(x):
        return margin_cross_entropy(x, label=jnp.asarray(label), valid=jnp.asarray(valid), scale=SCALE, **given)

    (value, metrics), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(jnp.asarray(cosine))
    exact = cosine.astype(np.float64)
    assert float(value) == pytest.approx(reference(exact, label, valid, **given), rel=1e-5)
    for place in np.ndindex(cosine.shape):
        step = np.zeros_like(exact)
        step[place] = 1e-6
        above, below = (reference(exact + sign * step, label, valid, **given) for sign in (1, -1))
        assert gradient[place] == pytest.approx((above - below) / 2e-6, abs=2e-5)
    taken = [i for i in range(6) if valid[i] and label[i] >= 0]
    assert metrics["accuracy"] == pytest.approx(np.mean([cosine[i].argmax() == label[i] for i in taken]))
    assert metrics["own_cosine"] == pytest.approx(np.mean([cosine[i, label[i]] for i in taken]), rel=1e-6)


def test_the_ends_of_the_cosine_have_finite_gradients():
    cosine, label = jnp.asarray([[1.0, -1.0], [-1.0, 1.0]], jnp.float32), jnp.asarray([0, 0], jnp.int32)
    gradient = jax.grad(
        lambda x: margin_logits(x, label=label, kind="arcface", margin=0.5, scale=64.0).sum()
    )(cosine)  # fmt: skip
    assert np.isfinite(gradient).all()
    none = margin_cross_entropy(
        cosine, label=label, valid=jnp.zeros(2, bool), kind="arcface", margin=0.5, scale=64.0
    )  # fmt: skip
    assert float(none[0]) == 0


def test_an_unknown_margin_is_named():
    with pytest.raises(UserError, match="did you mean 'arcface'"):
        margin_logits(jnp.zeros((1, 2)), label=jnp.zeros(1, jnp.int32), kind="arcfase", margin=0.5, scale=1.0)
