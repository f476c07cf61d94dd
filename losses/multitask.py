"""How the losses of several tasks are weighed: by learned uncertainties, or by the sizes of their gradients."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def uncertainty_weighted(
    losses: Float[Array, "K"], *, log_variance: Float[Array, "K"], factor: Float[Array, "K"]
) -> Float[Array, ""]:
    """Compute the sum over tasks of `factor exp(-s) L + s / 2`, s the logarithm of the task's variance.

    Kendall, Gal & Cipolla 2018 (arXiv:1705.07115, equations 7 and 10): a task of which the model is uncertain counts
    less; the second term keeps the variances from growing without end.

    Args:
      losses: of the tasks.
      log_variance: s, learned with the model.
      factor: 1/2 for a squared error, the likelihood of a Gaussian; 1 for a cross-entropy.
    """
    return jnp.sum(factor * jnp.exp(-log_variance) * losses + jnp.float32(0.5) * log_variance)


def gradnorm_weights(
    weights: Float[Array, "K"],
    *,
    norms: Float[Array, "K"],
    losses: Float[Array, "K"],
    first: Float[Array, "K"],
    alpha: float,
    lr: float,
) -> Float[Array, "K"]:
    """Return the weights of the tasks after a step of GradNorm (Chen et al. 2018, arXiv:1711.02257, algorithm 1).

    The gradient of task k is to have the size `mean(w G) r_k^alpha`, r_k its loss as a share of its first one relative
    to the mean of these shares: tasks that have learned less than the others get larger gradients. The weights descend
    the sum of the absolute differences, the target held constant; they stay positive and sum up to K.

    Args:
      weights: before the step, positive.
      norms: G, of the gradients of the unweighted losses by the last shared layer.
      losses: of this step.
      first: of the first step, positive.
      alpha: strength of the pull towards a common rate of training; 0 = gradients of one size.
      lr: learning rate of the weights.

    Returns:
      float32 [K].
    """
    share = losses / jnp.maximum(first, jnp.float32(1e-12))
    rate = share / jnp.maximum(jnp.mean(share), jnp.float32(1e-12))
    size = weights * norms
    target = jnp.mean(size) * jnp.maximum(rate, jnp.float32(0)) ** jnp.float32(alpha)
    moved = weights - jnp.float32(lr) * jnp.sign(size - target) * norms
    moved = jnp.maximum(moved, jnp.float32(1e-3))
    return jax.lax.stop_gradient(moved * (jnp.float32(len(weights)) / jnp.sum(moved)))
