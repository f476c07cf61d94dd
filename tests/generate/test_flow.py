"""The mathematics of the flow: solvers against a Gaussian whose velocity is known, guidance, edits, path and loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from twinreel.base.errors import UserError
from twinreel.generate.flow.edit import edit_by_difference, edit_by_noise, edit_by_way_back
from twinreel.generate.flow.path import draw_times, point_at, velocity_loss
from twinreel.generate.flow.solve import SolverOptions, guided, solve, steps_of

MEAN, STD = 1.5, 0.4


def gaussian_velocity(x, t, *, mean=MEAN, std=STD):
    """E[data - noise | point] of data N(mean, std**2): the exact velocity of the flow to it.

    The point (1-t) noise + t data is normal, and so is its pair with data - noise: the conditional mean is linear.
    """
    variance = (1 - t) ** 2 + (t * std) ** 2
    covariance = t * std**2 - (1 - t)
    return mean + covariance / variance * (x - t * mean)


def transported(noise, *, mean=MEAN, std=STD):
    """Where that flow takes noise: in one dimension the map between quantiles, which is affine here."""
    return mean + std * noise


def test_solvers_carry_noise_to_the_known_gaussian():
    noise = norm.ppf(np.linspace(0.01, 0.99, 31)).astype(np.float32)  # quantiles of the noise
    wanted = norm.ppf(np.linspace(0.01, 0.99, 31), loc=MEAN, scale=STD)  # those of the data
    np.testing.assert_allclose(transported(noise), wanted, rtol=1e-5)
    errors = {}
    for method in ("euler", "heun"):
        for steps in (8, 16, 32):
            found = solve(gaussian_velocity, jnp.asarray(noise), begin=0.0, end=1.0, steps=steps, method=method)
            errors[method, steps] = np.abs(np.asarray(found) - wanted).max()
    assert errors["euler", 32] < 0.05 and errors["heun", 32] < 0.003
    assert 1.7 < errors["euler", 16] / errors["euler", 32] < 2.3  # first order
    assert 3.3 < errors["heun", 16] / errors["heun", 32] < 4.7  # second order


@pytest.mark.parametrize("method", ["euler", "heun"])
def test_no_noise_is_left_where_the_data_are_known(method):
    """A field as the network's: towards the prediction, divided by what is left of the way, at least 0.05 of it."""
    noise = jax.random.normal(jax.random.key(0), (64,), jnp.float32)
    given = {"begin": 0.0, "end": 1.0, "steps": 10, "method": method}
    found = solve(lambda x, t: (MEAN - x) / jnp.maximum(1 - t, 0.05), noise, **given)
    np.testing.assert_allclose(found, MEAN, atol=1e-5)


def test_the_way_back_is_the_inverse_of_the_way():
    noise = jnp.linspace(-2, 2, 9, dtype=jnp.float32)
    data = solve(gaussian_velocity, noise, begin=0.0, end=1.0, steps=64)
    np.testing.assert_allclose(solve(gaussian_velocity, data, begin=1.0, end=0.0, steps=64), noise, atol=2e-3)
    assert solve(gaussian_velocity, data, begin=0.3, end=0.3, steps=0) is data


def test_the_loss_is_least_at_the_exact_velocity():
    rng = np.random.default_rng(0)
    noise, time = rng.normal(size=20_000), rng.uniform(0.05, 0.95, 20_000)
    data = MEAN + STD * rng.normal(size=20_000)
    as32 = [jnp.asarray(x, jnp.float32) for x in (noise, data, time)]
    point = point_at(as32[0], as32[1], time=as32[2])
    np.testing.assert_allclose(point, (1 - time) * noise + time * data, rtol=1e-5, atol=1e-6)
    exact = gaussian_velocity(np.asarray(point, np.float64), time)
    losses = [
        np.mean(velocity_loss(jnp.asarray(v, jnp.float32)[:, None], noise=as32[0][:, None], data=as32[1][:, None]))
        for v in (exact, exact + 0.1, exact - 0.1, 0.9 * exact)
    ]
    assert losses[0] < min(losses[1:])
    assert losses[0] == pytest.approx(np.mean((exact - (data - noise)) ** 2), rel=1e-4)


def test_times_are_logit_normal():
    times = np.asarray(draw_times(jax.random.key(0), rows=20_000, mean=-0.5, spread=0.8), np.float64)
    logits = np.log(times / (1 - times))
    assert logits.mean() == pytest.approx(-0.5, abs=0.02) and logits.std() == pytest.approx(0.8, abs=0.02)


def test_guidance_is_affine_in_its_weight():
    one, other = jnp.asarray([1.0, 2.0]), jnp.asarray([0.5, -1.0])
    np.testing.assert_array_equal(guided(one, other, guidance=1.0), one)
    np.testing.assert_array_equal(guided(one, other, guidance=0.0), other)
    np.testing.assert_allclose(guided(one, other, guidance=3.0), 3 * np.asarray(one) - 2 * np.asarray(other))


def edits(data, *, new, old, strength, steps=64):
    """The three edits of data."""
    given = {"new": new, "strength": strength, "solver": SolverOptions(steps=steps)}
    noise = jax.random.normal(jax.random.key(1), data.shape, jnp.float32)
    return {
        "difference": edit_by_difference(data, noise, old=old, **given),
        "invert": edit_by_way_back(data, old=old, **given),
        "noise": edit_by_noise(data, noise, **given),
    }


def test_an_edit_of_no_strength_returns_the_data_bit_for_bit():
    data = jnp.linspace(-1, 3, 7, dtype=jnp.float32)
    for made in edits(data, new=gaussian_velocity, old=lambda x, t: -x, strength=0.0).values():
        assert made is data


def test_edits_between_two_known_gaussians():
    """Under two Gaussians that differ in their mean an edit has to shift the data by the difference, and no more."""
    data = jnp.asarray(MEAN + STD * norm.ppf(np.linspace(0.05, 0.95, 15)), jnp.float32)
    found = edits(
        data, new=lambda x, t: gaussian_velocity(x, t, mean=MEAN + 2), old=gaussian_velocity, strength=1.0
    )  # fmt: skip
    np.testing.assert_allclose(found["difference"], data + 2, atol=0.02)
    np.testing.assert_allclose(found["invert"], data + 2, atol=0.02)
    noise = jax.random.normal(jax.random.key(1), data.shape, jnp.float32)  # of the data nothing is left
    np.testing.assert_allclose(found["noise"], transported(np.asarray(noise), mean=MEAN + 2), atol=0.02)
    same = edits(data, new=gaussian_velocity, old=gaussian_velocity, strength=0.7)
    np.testing.assert_array_equal(same["difference"], data)  # nothing to change
    np.testing.assert_allclose(same["invert"], data, atol=0.01)


def test_an_edit_takes_its_share_of_the_steps():
    assert [steps_of(share, steps=10) for share in (0.0, 0.01, 0.5, 1.0)] == [0, 1, 5, 10]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"steps": 0}, "--steps must be at least 1, got 0"),
        ({"method": "huen"}, "did you mean 'heun'"),
        ({"guidance": -1.0}, "--guidance must be at least 0, got -1"),
    ],
)
def test_bad_options_of_the_solver(fields, words):
    with pytest.raises(UserError, match=words):
        SolverOptions(**fields)
