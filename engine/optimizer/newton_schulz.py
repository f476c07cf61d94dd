"""Newton-Schulz iteration on the Gram matrix: what Muon does to the update of a matrix, with fewer products."""

import jax.numpy as jnp
from jaxtyping import Array, Float

COEFFICIENTS, STEPS = (3.4445, -4.7750, 2.0315), 5
"""Of the quintic iteration of Muon (Jordan et al. 2024), as `optax.contrib.scale_by_muon` has them."""

_WIDE = 1.5  # from this ratio of the sides the Gram matrix needs fewer products


def orthogonalised(x: Float[Array, "*n D E"]) -> Float[Array, "*n D E"]:
    """Return what the iteration X <- c0 X + c1 (X X^T) X + c2 (X X^T)^2 X leaves after five steps.

    Each step multiplies X from the left by a polynomial of its Gram matrix A = X X^T. Of a wide matrix, only A and the
    product Q of the polynomials P = c0 I + c1 A + c2 A^2 are computed, A <- P A P and Q <- P Q; then Q X is the result.
    That takes two thirds of the products for a matrix that is three times as wide as high. All must be computed in
    float32: in bfloat16 the errors of A would grow from step to step.

    Args:
      x: matrices of Frobenius norm 1, float32.
    """
    if x.shape[-2] > x.shape[-1]:
        return jnp.swapaxes(orthogonalised(jnp.swapaxes(x, -2, -1)), -2, -1)
    first, second, third = (jnp.asarray(c, x.dtype) for c in COEFFICIENTS)
    gram = x @ jnp.swapaxes(x, -2, -1)
    if x.shape[-1] < _WIDE * x.shape[-2]:
        for step in range(STEPS):
            gram = x @ jnp.swapaxes(x, -2, -1) if step else gram
            x = first * x + (second * gram + third * (gram @ gram)) @ x
        return x
    diagonal = first * jnp.eye(x.shape[-2], dtype=x.dtype)
    product = polynomial = diagonal + second * gram + third * (gram @ gram)
    for _ in range(STEPS - 1):
        gram = polynomial @ gram @ polynomial
        polynomial = diagonal + second * gram + third * (gram @ gram)
        product = polynomial @ product
    return product @ x
