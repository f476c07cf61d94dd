"""Integrate a velocity field: Euler's and Heun's method, with classifier-free guidance.

Heun's method with a last step of Euler's: Karras et al. 2022 (EDM, arXiv:2206.00364, algorithm 1). Guidance: Ho &
Salimans 2022 (arXiv:2207.12598), on velocities, which are affine in the score.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...base.errors import UserError, unknown

Velocity = Callable[[Float[Array, "B *rest"], Float[Array, ""]], Float[Array, "B *rest"]]
"""Points, and the time that all of them are at -> velocities."""
METHODS = ("euler", "heun")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SolverOptions:
    """How samples are drawn.

    Attributes:
      steps: steps from noise to data; an edit that begins on the way takes its share of them.
      method: "euler", one evaluation of the field a step, or "heun", two (second order), but for the last step.
      guidance: weight g of the condition: velocities are `without + g * (with - without)`. 1 = none, 0 = unconditional.
    """

    steps: int = 10
    method: str = "heun"
    guidance: float = 2.0

    def __post_init__(self):
        if self.steps < 1:
            raise UserError(f"--steps must be at least 1, got {self.steps}")
        if self.method not in METHODS:
            raise unknown("--method", self.method, METHODS)
        if not 0 <= self.guidance < float("inf"):
            raise UserError(f"--guidance must be at least 0, got {self.guidance}")


def solve(
    field: Velocity, start: Float[Array, "B *rest"], *, begin: float, end: float, steps: int, method: str = "heun"
) -> Float[Array, "B *rest"]:
    """Integrate `dx/dt = field(x, t)` from time `begin` to time `end`, which may lie before it.

    A step that ends at time 1, where the data are, is one of Euler's. On the way there a velocity is the distance to a
    predicted clip divided by what is left of the way; at its end it means nothing, and Heun's mean with it would leave
    half a step of noise in the result.

    Args:
      field: the velocities.
      start: points at `begin`.
      begin: first time.
      end: last time.
      steps: of equal length; 0 only if `begin` is `end`.
      method: one of `METHODS`.

    Returns:
      The points at `end`; `start` itself if that is `begin`.
    """
    if begin == end:
        return start
    step = jnp.float32((end - begin) / steps)

    def euler(i: Array, x: Array) -> tuple[Array, Array]:
        """Return the point after step i, and the velocity before it."""
        v = field(x, _time(i, begin=begin, step=step))
        return x + step * v, v

    def heun(i: Array, x: Array) -> Array:
        ahead, v = euler(i, x)
        return x + jnp.float32(0.5) * step * (v + field(ahead, _time(i + jnp.int32(1), begin=begin, step=step)))

    if method == "euler":
        return jax.lax.fori_loop(0, steps, lambda i, x: euler(i, x)[0], start)
    if end != 1.0:
        return jax.lax.fori_loop(0, steps, heun, start)
    return euler(jnp.int32(steps - 1), jax.lax.fori_loop(0, steps - 1, heun, start))[0]


def _time(i: Array, *, begin: float, step: Array) -> Float[Array, ""]:
    return jnp.float32(begin) + i.astype(jnp.float32) * step


def guided(
    with_condition: Float[Array, "B *rest"], without: Float[Array, "B *rest"], *, guidance: float
) -> Float[Array, "B *rest"]:
    """Return `without + guidance * (with_condition - without)`."""
    return without + jnp.float32(guidance) * (with_condition - without)


def steps_of(share: float, *, steps: int) -> int:
    """Return how many of `steps` equal steps a share 0..1 of the way takes: at least one, none of no way."""
    return max(1, round(share * steps)) if share > 0 else 0
