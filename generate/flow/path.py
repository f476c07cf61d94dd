"""The straight path from noise to data of a rectified flow, and the loss of its velocity.

Sources: Liu et al. 2022 (rectified flow, arXiv:2209.03003); Lipman et al. 2022 (flow matching, arXiv:2210.02747); times
drawn logit-normally, Esser et al. 2024 (arXiv:2403.03206).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def point_at(
    noise: Float[Array, "B *rest"], data: Float[Array, "B *rest"], *, time: Float[Array, "B"]
) -> Float[Array, "B *rest"]:
    """Return the points `(1 - time) * noise + time * data`; time 0 is noise, time 1 is data."""
    t = over_rows(time, data)
    return (1 - t) * noise + t * data


def draw_times(key: Key[Array, ""], *, rows: int, mean: float = 0.0, spread: float = 1.0) -> Float[Array, "B"]:
    """Draw times in 0..1 as the logistic function of normal numbers with this mean and deviation, float32."""
    normal = jax.random.normal(key, (rows,), jnp.float32)
    return jax.nn.sigmoid(jnp.float32(mean) + jnp.float32(spread) * normal)


def velocity_loss(
    predicted: Float[Array, "B *rest"], *, noise: Float[Array, "B *rest"], data: Float[Array, "B *rest"]
) -> Float[Array, "B"]:
    """Return by row the mean square of the error of a velocity, which on a straight path is `data - noise`."""
    return jnp.mean(jnp.square(predicted - (data - noise)), axis=tuple(range(1, data.ndim)))


def over_rows(values: Float[Array, "B"], x: Float[Array, "B *rest"]) -> Float[Array, "B *ones"]:
    """Give values of rows the rank of `x`."""
    return values.reshape(-1, *(1,) * (x.ndim - 1))
