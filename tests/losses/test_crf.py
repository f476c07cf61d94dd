"""The linear-chain CRF against a sum over all paths, and its marginals against counting."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twinreel.losses.crf import Chain, crf_loss, log_partition, marginals, path_score, viterbi

K, T = 3, 4
rng = np.random.default_rng(0)
X = rng.normal(0, 2, (3, T, K)).astype(np.float32)
CHAIN = Chain(*(jnp.asarray(rng.normal(0, 2, shape), jnp.float32) for shape in ((K,), (K, K), (K,))))
MASK = np.array([[True] * 4, [True, True, False, False], [True, False, False, False]])

GIVEN = {"chain": CHAIN, "mask": jnp.asarray(MASK)}
EVERYTHING = jax.jit(
    lambda x, path: (
        log_partition(x, **GIVEN),
        viterbi(x, **GIVEN),
        marginals(x, **GIVEN),
        path_score(x, path=path, **GIVEN),
    )
)


def paths(row):
    """(path, its score) of all paths over the real steps of a row, float64."""
    start, transitions, end = (np.asarray(side, np.float64) for side in CHAIN)
    x = X[row][MASK[row]].astype(np.float64)
    for path in itertools.product(range(K), repeat=len(x)):
        score = start[path[0]] + end[path[-1]] + sum(x[t, y] for t, y in enumerate(path))
        yield path, score + sum(transitions[a, b] for a, b in itertools.pairwise(path))


@pytest.mark.parametrize("row", range(3))
def test_against_all_paths(row):
    every = dict(paths(row))
    total = np.log(sum(np.exp(score) for score in every.values()))
    path, steps = next(iter(every)), int(MASK[row].sum())
    padded = jnp.asarray([[*path, *[9] * (T - steps)]] * 3)
    partition, best, share, score = (side[row] for side in EVERYTHING(jnp.asarray(X), padded))
    assert partition == pytest.approx(total, rel=1e-5) and score == pytest.approx(every[path], rel=1e-5)
    assert tuple(best[:steps].tolist()) == max(every, key=every.get) and (best[steps:] == -1).all()
    wanted = np.zeros((T, K))
    for path, score in every.items():
        wanted[np.arange(steps), path] += np.exp(score - total)
    np.testing.assert_allclose(share, wanted, atol=1e-5)


def test_loss_is_the_mean_of_the_rows_that_take_part_and_learns_the_path():
    truth = jnp.asarray(rng.integers(0, K, (3, T)))
    loss = jax.jit(lambda x, valid: crf_loss(x, path=truth, valid=valid, **GIVEN))
    each = [float(loss(jnp.asarray(X), jnp.arange(3) == row)) for row in range(3)]
    by_hand = []
    for row in range(3):
        every, steps = dict(paths(row)), int(MASK[row].sum())
        total = np.log(sum(np.exp(score) for score in every.values()))
        by_hand.append((total - every[tuple(truth[row, :steps].tolist())]) / steps)
    assert each == pytest.approx(by_hand, rel=1e-5)
    assert loss(jnp.asarray(X), jnp.array([True, False, True])) == pytest.approx((each[0] + each[2]) / 2, rel=1e-5)
    assert loss(jnp.asarray(X), jnp.zeros(3, bool)) == 0
    step = jax.jit(lambda x: x - 2 * jax.grad(lambda x: crf_loss(x, path=truth, chain=CHAIN))(x))
    x = jnp.asarray(X)
    for _ in range(200):
        x = step(x)
    np.testing.assert_array_equal(jax.jit(lambda x: viterbi(x, chain=CHAIN))(x), truth)


def test_one_step_is_a_softmax():
    x = jnp.asarray(X[:, :1])
    chain = Chain(jnp.zeros(K), CHAIN.transitions, jnp.zeros(K))
    share = jax.jit(lambda x: marginals(x, chain=chain))(x)
    np.testing.assert_allclose(share, jax.nn.softmax(x, axis=2), rtol=1e-5)
