"""Activation functions against their formulas in float64, with their slopes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tower_loops import ACTIVATIONS as WANTED
from tower_loops import GATES

from twinreel.base.errors import UserError
from twinreel.models.layers.activations import ACTIVATIONS, GATED, activate, check_activation

X = np.linspace(-6, 6, 40)  # without 0, where relu has no slope


def slope(function, x):
    return (function(x + 1e-5) - function(x - 1e-5)) / 2e-5


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_equal_their_formulas(name):
    function, wanted = ACTIVATIONS[name], WANTED[name]
    x = jnp.asarray(X, jnp.float32)
    np.testing.assert_allclose(function(x), wanted(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: jnp.sum(function(x)))(x), slope(wanted, X), rtol=1e-4, atol=1e-5)
    half = x.astype(jnp.bfloat16)
    exact = wanted(np.asarray(half, np.float64))
    assert function(half).dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(function(half), np.float64), exact, rtol=2**-7, atol=1e-6)


def test_the_three_gelus_are_told_apart():
    x = jnp.asarray(X, jnp.float32)
    tanh, exact, quick = (np.asarray(ACTIVATIONS[name](x)) for name in ("gelu", "gelu_exact", "quick_gelu"))
    assert 1e-4 < np.abs(tanh - exact).max() < 1e-3 < np.abs(quick - exact).max() < 3e-2


@pytest.mark.parametrize("name", GATED)
def test_gates_multiply_and_have_both_slopes(name):
    assert GATED[name] == GATES[name]
    inner, up = WANTED[GATES[name]], np.cos(X)
    given = (jnp.asarray(X, jnp.float32), jnp.asarray(up, jnp.float32))
    np.testing.assert_allclose(activate(given[1], name=name, gate=given[0]), inner(X) * up, rtol=1e-5, atol=1e-5)
    grads = jax.grad(lambda gate, up: jnp.sum(activate(up, name=name, gate=gate)), argnums=(0, 1))(*given)
    for got, want in zip(grads, (slope(inner, X) * up, inner(X)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_an_unknown_name_is_an_error():
    with pytest.raises(UserError, match="activation 'swish'"):
        check_activation("swish")
    with pytest.raises(UserError, match="'swiglo'; did you mean 'swiglu'"):
        check_activation("swiglo")
