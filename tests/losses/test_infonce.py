"""InfoNCE against a float64 NumPy loop, value and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twinreel.losses.infonce import info_nce, same_text


def unit(rng, rows, width):
    x = rng.normal(size=(rows, width))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def reference(video, text, scale, valid, not_negative):
    """InfoNCE by loops over pairs, float64."""
    rows = [i for i in range(len(video)) if valid[i]]
    total = 0.0
    for i in rows:
        own = scale * float(video[i] @ text[i])
        to_text = [scale * float(video[i] @ text[j]) for j in rows if j == i or not not_negative[i, j]]
        to_video = [scale * float(video[j] @ text[i]) for j in rows if j == i or not not_negative[j, i]]
        for scores in (to_text, to_video):
            total += 0.5 * (np.log(np.sum(np.exp(scores))) - own)
    return total / max(len(rows), 1)


@pytest.mark.parametrize("size", [1, 2, 7, 16])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_loops_in_float64(size, masked):
    rng = np.random.default_rng(size)
    video, text, scale = unit(rng, size, 5), unit(rng, size, 5), 7.3
    valid = rng.random(size) < 0.7 if masked else np.ones(size, bool)
    excluded = np.triu(rng.random((size, size)) < 0.3, 1) if masked else np.zeros((size, size), bool)
    excluded = excluded | excluded.T
    loss, _ = info_nce(
        video=jnp.asarray(video, jnp.float32),
        text=jnp.asarray(text, jnp.float32),
        scale=jnp.float32(scale),
        valid=jnp.asarray(valid),
        not_negative=jnp.asarray(excluded),
    )
    np.testing.assert_allclose(loss, reference(video, text, scale, valid, excluded), rtol=2e-5, atol=1e-6)


def test_gradients_equal_finite_differences_of_the_loops():
    rng = np.random.default_rng(0)
    video, text = unit(rng, 6, 4), unit(rng, 6, 4)
    valid = np.array([1, 1, 0, 1, 1, 1], bool)
    none = np.zeros((6, 6), bool)

    def loss(video, text, scale):
        return info_nce(video=video, text=text, scale=scale, valid=jnp.asarray(valid))[0]

    arguments = [jnp.asarray(x, jnp.float32) for x in (video, text, 9.0)]
    grads = jax.grad(loss, argnums=(0, 1, 2))(*arguments)
    eps = 1e-6
    for which, index in [(0, (0, 1)), (0, (2, 0)), (1, (3, 2)), (1, (5, 3))]:
        moved = [video.copy(), text.copy()]
        moved[which][index] += eps
        up = reference(*moved, 9.0, valid, none)
        moved[which][index] -= 2 * eps
        slope = (up - reference(*moved, 9.0, valid, none)) / (2 * eps)
        np.testing.assert_allclose(grads[which][index], slope, rtol=1e-3, atol=2e-5)
    slope = (reference(video, text, 9 + eps, valid, none) - reference(video, text, 9 - eps, valid, none)) / (2 * eps)
    np.testing.assert_allclose(grads[2], slope, rtol=1e-3, atol=1e-5)


def test_invalid_rows_change_nothing_and_get_no_gradient():
    rng = np.random.default_rng(1)
    video, text = (jnp.asarray(unit(rng, 8, 4), jnp.float32) for _ in range(2))
    valid = jnp.asarray([True] * 5 + [False] * 3)

    def masked(video, text):
        return info_nce(video=video, text=text, scale=jnp.float32(20), valid=valid)[0]

    short, _ = info_nce(video=video[:5], text=text[:5], scale=jnp.float32(20))
    np.testing.assert_allclose(masked(video, text), short, rtol=1e-6)
    for grad in jax.grad(masked, argnums=(0, 1))(video, text):
        assert np.all(np.asarray(grad[5:]) == 0)
        assert np.all(np.isfinite(grad)) and np.any(np.asarray(grad[:5]) != 0)


def test_no_valid_row_gives_zero():
    x = jnp.eye(3, dtype=jnp.float32)
    loss, metrics = info_nce(video=x, text=x, scale=jnp.float32(1), valid=jnp.zeros(3, bool))
    assert float(loss) == 0 and all(float(v) == 0 for v in metrics.values())


def test_accuracies_count_rows_whose_partner_is_best():
    video = jnp.asarray([[1, 0], [0, 1], [1, 0]], jnp.float32)
    text = jnp.asarray([[1, 0], [0, 1], [0, 1]], jnp.float32)
    _, metrics = info_nce(video=video, text=text, scale=jnp.float32(10))
    assert float(metrics["accuracy_v2t"]) == pytest.approx(2 / 3)
    assert float(metrics["accuracy_t2v"]) == pytest.approx(2 / 3)


def test_same_text_finds_equal_captions_only_where_real():
    text = jnp.asarray([[5, 6, 0], [5, 6, 9], [5, 7, 0]])
    mask = jnp.asarray([[True, True, False], [True, True, False], [True, True, False]])
    np.testing.assert_array_equal(
        same_text(text, mask=mask), [[True, True, False], [True, True, False], [False, False, True]]
    )


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_sharded_rows_give_the_loss_and_gradients_of_one_device(devices):
    rng = np.random.default_rng(2)
    video, text = (jnp.asarray(unit(rng, 16, 8), jnp.float32) for _ in range(2))
    mesh = jax.make_mesh((devices,), ("replica",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("replica"))

    def loss(video, text, scale):
        return info_nce(video=video, text=text, scale=scale)[0]

    both = jax.value_and_grad(loss, argnums=(0, 1, 2))
    one = both(video, text, jnp.float32(14))
    many = jax.jit(both)(jax.device_put(video, rows), jax.device_put(text, rows), jnp.float32(14))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, many)
