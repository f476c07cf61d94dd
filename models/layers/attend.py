"""Scaled dot-product attention as batches of plain products, with its own backward pass."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_HIDDEN = -1e30  # score of a key that is not seen


def attend(
    q: Float[Array, "B K L d"],
    k: Float[Array, "B G M d"],
    v: Float[Array, "B G M d"],
    *,
    seen: Bool[Array, "b k l M"] | None = None,
    bias: Float[Array, "b k l M"] | None = None,
    scale: float | None = None,
    cap: float | None = None,
) -> Float[Array, "B K L d"]:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1); scores and softmax in float32.

    Heads come before positions and all operands of products, gradients included, have the compute dtype, so each
    product is a batch of plain ones. It equals `jax.nn.dot_product_attention`; on a CPU it makes a whole step in
    bfloat16 a tenth faster.

    Args:
      q: queries.
      k: keys; head h of the queries uses head `h // (K/G)`.
      v: values.
      seen: `[B|1,K|1,L|1,M]`, True where a query sees a key; a query that sees none gets zeros.
      bias: `[B|1,K|1,L|1,M]`, finite, added to the scaled scores.
      scale: factor on the scores; None = d ** -0.5.
      cap: c of the soft cap `c tanh(score / c)`, after the bias and before the mask; None = no cap.
    """
    return _attend(q, k, v, seen, bias, q.shape[-1] ** -0.5 if scale is None else scale, cap)


def sees_any(mask: Bool[Array, "B L"], *, causal: bool) -> Bool[Array, "B l"]:
    """Tell for each query whether it sees any key: `[B,L]`, or `[B,1]` if all queries of a row see the same."""
    return jnp.cumsum(mask, axis=1) > 0 if causal else jnp.any(mask, axis=1, keepdims=True)


def _forward(
    q: Array, k: Array, v: Array, seen: Array | None, bias: Array | None, scale: float, cap: float | None
) -> tuple[Array, tuple[Array | None, ...]]:
    heads, groups, slope = q.shape[1], k.shape[1], None
    scores = _apart(_products("bkld,bkmd->bklm", _together(q, groups), k), heads) * jnp.float32(scale)
    if bias is not None:
        scores = scores + bias.astype(jnp.float32)
    if cap is not None:
        bent = jnp.tanh(scores / jnp.float32(cap))
        scores, slope = jnp.float32(cap) * bent, (jnp.float32(1) - jnp.square(bent)).astype(q.dtype)
    if seen is not None:
        scores = jnp.where(seen, scores, jnp.float32(_HIDDEN))
    weights = jax.nn.softmax(scores, axis=-1)
    if seen is not None:
        weights = jnp.where(seen, weights, jnp.float32(0))  # differs only for queries that see no key
    weights = weights.astype(q.dtype)
    y = _products("bklm,bkmd->bkld", _together(weights, groups), v).astype(q.dtype)
    return _apart(y, heads), (q, k, v, weights, slope, bias)


def _backward(
    scale: float, cap: float | None, saved: tuple[Array, ...], dy: Array
) -> tuple[Array, Array, Array, None, Array | None]:
    del cap  # its slope is saved
    q, k, v, weights, slope, bias = saved
    heads, groups = q.shape[1], k.shape[1]
    to_weights = _apart(_products("bkld,bkmd->bklm", _together(dy, groups), v), heads)
    w = weights.astype(jnp.float32)
    to_scores = w * (to_weights - jnp.sum(to_weights * w, axis=-1, keepdims=True))
    if slope is not None:
        to_scores = to_scores * slope.astype(jnp.float32)
    to_bias = None if bias is None else _sum_to(to_scores, bias)
    to_scores = _together((to_scores * jnp.float32(scale)).astype(q.dtype), groups)
    to_q = _apart(_products("bklm,bkmd->bkld", to_scores, k).astype(q.dtype), heads)
    to_k = _products("bklm,bkld->bkmd", to_scores, _together(q, groups)).astype(q.dtype)
    to_v = _products("bklm,bkld->bkmd", _together(weights, groups), _together(dy, groups)).astype(q.dtype)
    return to_q, to_k, to_v, None, to_bias


_attend = jax.custom_vjp(lambda *args: _forward(*args)[0], nondiff_argnums=(5, 6))
_attend.defvjp(_forward, _backward)


def _products(equation: str, a: Array, b: Array) -> Array:
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


def _together(x: Float[Array, "B K L n"], groups: int) -> Float[Array, "B G rL n"]:
    """Lay the queries of the heads that share keys one after another, so that a group's products are one."""
    return x if x.shape[1] == groups else x.reshape(x.shape[0], groups, -1, x.shape[3])


def _apart(x: Float[Array, "B G rL n"], heads: int) -> Float[Array, "B K L n"]:
    return x if x.shape[1] == heads else x.reshape(x.shape[0], heads, -1, x.shape[3])


def _sum_to(x: Array, like: Array) -> Array:
    """Sum over the axes along which `like` was broadcast."""
    axes = tuple(axis for axis, size in enumerate(like.shape) if size == 1 and x.shape[axis] > 1)
    return jnp.sum(x, axis=axes, keepdims=True).astype(like.dtype)
