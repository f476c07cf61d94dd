"""Edit a point of the data along the flow: the way back towards noise, and forward again under another condition.

Sources: partly noised and denoised again, Meng et al. 2022 (SDEdit, arXiv:2108.01073); the flow backwards under the old
condition, Song et al. 2021 (DDIM inversion, arXiv:2010.02502); the difference of two flows without a way back, Kulikov
et al. 2024 (FlowEdit, arXiv:2412.08629).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .solve import SolverOptions, Velocity, solve, steps_of

METHODS = ("difference", "invert", "noise")
"""How an edit gets from one clip to another.

difference: along the difference of the velocities under the new and the old condition (FlowEdit).
invert: back along the flow under the old condition, then forward under the new one.
noise: to the clip mixed with noise, then forward under the new condition.
"""


def edit_by_difference(
    data: Float[Array, "B *rest"],
    noise: Float[Array, "B *rest"],
    *,
    new: Velocity,
    old: Velocity,
    strength: float,
    solver: SolverOptions,
) -> Float[Array, "B *rest"]:
    """Move data along the difference of two velocity fields; what both say alike stays.

    At each time the data are mixed with noise, the edit so far is added, and both fields are asked. Euler steps.

    Args:
      data: to edit.
      noise: of the shape of the data, normal; one draw serves all times.
      new: velocities under the wanted condition.
      old: velocities under the condition that describes the data.
      strength: share of the way from data to noise at which the edit begins, 0..1; 0 returns the data.
      solver: steps over the whole way.
    """
    steps = steps_of(strength, steps=solver.steps)
    if not steps:
        return data
    begin, step = 1.0 - strength, strength / steps

    def advance(i: Array, edited: Array) -> Array:
        t = jnp.float32(begin) + i.astype(jnp.float32) * jnp.float32(step)
        mixed = (1 - t) * noise + t * data
        return edited + jnp.float32(step) * (new(mixed + edited - data, t) - old(mixed, t))

    return jax.lax.fori_loop(0, steps, advance, data)


def edit_by_way_back(
    data: Float[Array, "B *rest"],
    *,
    new: Velocity,
    old: Velocity,
    strength: float,
    solver: SolverOptions,
) -> Float[Array, "B *rest"]:
    """Follow the flow back under `old` by a share of the way, then forward under `new`; see `edit_by_difference`."""
    steps = steps_of(strength, steps=solver.steps)
    if not steps:
        return data
    how = {"steps": steps, "method": solver.method}
    return solve(new, solve(old, data, begin=1.0, end=1.0 - strength, **how), begin=1.0 - strength, end=1.0, **how)


def edit_by_noise(
    data: Float[Array, "B *rest"],
    noise: Float[Array, "B *rest"],
    *,
    new: Velocity,
    strength: float,
    solver: SolverOptions,
) -> Float[Array, "B *rest"]:
    """Mix data with a share of noise, then follow the flow under `new`; see `edit_by_difference`."""
    steps = steps_of(strength, steps=solver.steps)
    if not steps:
        return data
    mixed = jnp.float32(strength) * noise + jnp.float32(1 - strength) * data
    return solve(new, mixed, begin=1.0 - strength, end=1.0, steps=steps, method=solver.method)
