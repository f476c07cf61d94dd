"""Gradient transformations by name; each treats a layer of a stack as a matrix of its own."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from ...models.layers.devices import on_one_cpu
from ..sharding.layers import is_stacked, layer_rank
from .newton_schulz import COEFFICIENTS, STEPS, orthogonalised


def per_layer(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """Apply `transform` to each parameter by itself, and to each layer of stacked ones by itself.

    For transformations that look at a whole matrix (its rows and columns, its norm): the layers of a stack must not
    be mixed. The state is {path: state of that parameter}, with the depth as axis 0 where it is stacked.
    """

    def over_layers(path: str, function: Callable[..., Any]) -> Callable[..., Any]:
        return jax.vmap(function) if is_stacked(path) else function

    def init(params: Any) -> Any:
        return {path: over_layers(path, transform.init)(value) for path, value in params.items()}

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        assert params is not None
        done = {
            path: over_layers(path, transform.update)(value, state[path], params[path])
            for path, value in updates.items()
        }
        return {path: new for path, (new, _) in done.items()}, {path: kept for path, (_, kept) in done.items()}

    return optax.GradientTransformation(init, update)


def is_matrix(path: str, value: Any) -> bool:
    """Tell whether Muon takes a parameter: a kernel of rank 2 per layer inside stacked layers."""
    return is_stacked(path) and path.endswith("kernel") and layer_rank(path, value) == 2


def _adam(*, b1: float, b2: float, eps: float, mu_dtype: Any, **_) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=b1, b2=b2, eps=eps, mu_dtype=mu_dtype)


def _lion(*, b1: float, b2: float, mu_dtype: Any, **_) -> optax.GradientTransformation:
    return optax.scale_by_lion(b1=b1, b2=b2, mu_dtype=mu_dtype)


def _sgd(*, b1: float, mu_dtype: Any, **_) -> optax.GradientTransformation:
    return optax.trace(decay=b1, accumulator_dtype=mu_dtype)


def _adafactor(*, b1: float, b2: float, mu_dtype: Any, **_) -> optax.GradientTransformation:
    def decay(step: jax.Array, rate: jax.Array) -> jax.Array:
        return jnp.minimum(1.0 - (step.astype(jnp.float32) + 1.0) ** -rate, b2)

    matrix = optax.chain(
        optax.scale_by_factored_rms(decay_rate=0.8, decay_rate_fn=decay),  # pyright: ignore[reportArgumentType]
        optax.clip_by_block_rms(1.0),
    )
    momentum = optax.ema(b1, debias=False, accumulator_dtype=mu_dtype) if b1 else optax.identity()
    return optax.chain(per_layer(matrix), momentum)


def _muon(*, muon_beta: float, mu_dtype: Any, **options: Any) -> optax.GradientTransformation:
    def labels(params: Any) -> dict[str, str]:
        return {path: "muon" if is_matrix(path, value) else "adam" for path, value in params.items()}

    def wide(updates: Any, _: Any) -> Any:
        # The root mean square of an update becomes 0.2, about that of AdamW's (Liu et al. 2025, section 2.2), so that
        # one learning rate serves both.
        return jax.tree.map(lambda u: 0.2 * jnp.sqrt(jnp.asarray(max(u.shape[-2:]), u.dtype)) * u, updates)

    matrices = optax.chain(_orthogonal(beta=muon_beta, mu_dtype=mu_dtype), optax.stateless(wide))
    return optax.partition({"muon": matrices, "adam": _adam(mu_dtype=mu_dtype, **options)}, labels)


def _orthogonal(**momentum: Any) -> optax.GradientTransformation:
    """Momentum and the Newton-Schulz iteration of Muon; on one CPU in the form that takes fewer products."""
    numbers = optax.contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)
    momentum |= {"weight_dimension_numbers": lambda tree: jax.tree.map(lambda _: numbers, tree)}
    whole = optax.contrib.scale_by_muon(ns_coeffs=COEFFICIENTS, ns_steps=STEPS, **momentum)
    normalised = optax.contrib.scale_by_muon(ns_coeffs=COEFFICIENTS, ns_steps=0, **momentum)  # by the Frobenius norm

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if not on_one_cpu():
            return whole.update(updates, state, params)
        updates, state = normalised.update(updates, state, params)
        return jax.tree.map(orthogonalised, updates), state

    return optax.GradientTransformation(whole.init, update)


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adamw": _adam,
    "lamb": _adam,
    "lion": _lion,
    "adafactor": _adafactor,
    "muon": _muon,
    "sgd": _sgd,
}
"""Name -> function of b1, b2, eps, muon_beta and mu_dtype; without weight decay, learning rate and clipping.

adamw (Loshchilov & Hutter 2019), lion (Chen et al. 2023), lamb (You et al. 2020); adafactor (Shazeer & Stern 2018,
without its scaling by the parameter and with momentum b1, as Zhai et al. 2022; b1=0 saves the first moment); muon
(Jordan et al. 2024, scaled as Liu et al. 2025) for the kernels of stacked layers and adamw for all else; sgd with
momentum b1.
"""
