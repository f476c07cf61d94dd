"""Hard negatives and binary matching against their definitions in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from twinreel.losses.matching import binary_matching, draw_negatives


def test_negatives_are_drawn_by_the_softmax_of_what_is_allowed():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), jnp.float32)
    allowed = jnp.asarray(~np.eye(4, dtype=bool)).at[3].set(False)
    draw = jax.jit(jax.vmap(lambda k: draw_negatives(logits, allowed=allowed, keys=jax.random.split(k, 4))[0]))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 4000)))
    for row in range(3):
        weights = np.where(allowed[row], np.exp(np.asarray(logits[row], np.float64)), 0)
        share = np.bincount(drawn[:, row], minlength=4) / len(drawn)
        np.testing.assert_allclose(share, weights / weights.sum(), atol=0.03)
        assert share[row] == 0
    hardest, some = draw_negatives(logits, allowed=allowed, keys=None)
    assert hardest[:3].tolist() == np.where(allowed, logits, -9).argmax(1)[:3].tolist()
    assert some.tolist() == [True, True, True, False]


def test_binary_matching_is_the_mean_cross_entropy_of_pairs():
    logits, right = np.array([3.0, -1.0, 0.0, 90.0, -90.0]), np.array([True, True, False, False, False])
    valid = np.array([True, True, True, True, False])
    p = 1 / (1 + np.exp(-logits[:3]))
    wanted = (-np.log(p[0]) - np.log(p[1]) - np.log(1 - p[2]) + 90) / 4
    odds, right, valid = jnp.asarray(logits, jnp.float32), jnp.asarray(right), jnp.asarray(valid)
    loss, accuracy = binary_matching(odds, right=right, valid=valid)
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    assert float(accuracy) == (1 + 0 + 0.5 + 0) / 4
    none = binary_matching(odds, right=right, valid=jnp.zeros(5, bool))
    assert [float(x) for x in none] == [0.0, 0.0]
    broken = [float(x) for x in binary_matching(odds.at[4].set(jnp.nan), right=right, valid=valid)]
    assert broken == [float(loss), float(accuracy)]  # pair 4 takes no part
    gradient = jax.grad(lambda x: binary_matching(x, right=right, valid=valid)[0])(odds.at[4].set(jnp.nan))
    assert np.isfinite(gradient).all() and gradient[4] == 0
