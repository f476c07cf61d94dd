"""Self-attention of short rows in one Pallas kernel for TPUs: all heads of a row at a time, scores never in memory.

The backward kernel computes the scores again from queries and keys, so that nothing but these and the values is kept.
Tokens stay where the projections put them: no padding, no transposition. Source: flash attention, Dao et al. 2022,
without its blocks, which rows that fit on the chip do not need.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from .attend import sees_any
from .devices import HEADS_AXIS, auto_axes, on_tpu, row_axes

_HIDDEN = -1e30  # score of a key that is not seen
_NAME = "short_attention_"  # cost.kernels knows it


class _Kind(NamedTuple):
    """What is the same for all rows: heads K of `size` channels, and the arguments of `short_attention`."""

    size: int
    causal: bool
    scale: float
    cap: float | None
    interpret: bool


def short_attention(
    q: Float[Array, "B L K d"],
    k: Float[Array, "B L K d"],
    v: Float[Array, "B L K d"],
    *,
    mask: Bool[Array, "B L"] | None = None,
    causal: bool = False,
    scale: float | None = None,
    cap: float | None = None,
) -> Float[Array, "B L K d"]:
    """Compute what `attend.attend` does for self-attention; `backends` knows how long a row may be.

    Under a mesh each device attends in its own rows and, along the axis `tensor`, in its own heads. On other devices
    than TPUs the kernel is interpreted, which is slow.

    Args:
      q: queries.
      k: keys, as many heads as queries.
      v: values.
      mask: True where a key is real; a query that sees none gets zeros, and so does its gradient.
      causal: the query of place i sees the keys of places 0 ... i.
      scale: factor on the scores; None = d ** -0.5.
      cap: c of the soft cap `c tanh(score / c)`; None = no cap.
    """
    size = q.shape[3]
    kind = _Kind(size, causal, size**-0.5 if scale is None else float(scale), cap, not on_tpu())
    flat = (x.reshape(*x.shape[:2], -1) for x in (q, k, v))  # [B,L,K*d]
    seen = None if mask is None else mask[:, None, :].astype(jnp.int32)
    y = _attend(*flat, seen, kind).reshape(q.shape)
    if mask is None:
        return y
    return jnp.where(sees_any(mask, causal=causal)[:, :, None, None], y, jnp.zeros((), y.dtype))


def _attend_forward(q: Array, k: Array, v: Array, seen: Array | None, kind: _Kind) -> tuple[Array, tuple[Any, ...]]:
    [y] = _on_mesh(_forward_kernel, (q, k, v), seen, results=1, kind=kind, phase="fwd")
    return y, (q, k, v, seen)


def _attend_backward(kind: _Kind, saved: tuple[Any, ...], dy: Array) -> tuple[Array | None, ...]:
    q, k, v, seen = saved
    return *_on_mesh(_backward_kernel, (q, k, v, dy), seen, results=3, kind=kind, phase="bwd"), None


_attend = jax.custom_vjp(lambda *args: _attend_forward(*args)[0], nondiff_argnums=(4,))
_attend.defvjp(_attend_forward, _attend_backward)


def _on_mesh(
    kernel: Any, arrays: tuple[Array, ...], seen: Array | None, *, results: int, kind: _Kind, phase: str
) -> tuple[Array, ...]:
    """Call the kernel on each device's rows and heads."""
    call = partial(_call, kernel, results=results, kind=kind, phase=phase)
    mesh = jax.sharding.get_abstract_mesh()
    given = arrays if seen is None else (*arrays, seen)
    if mesh.empty or not auto_axes(mesh):
        return call(*given)
    heads = arrays[0].shape[2] // kind.size
    split = HEADS_AXIS in auto_axes(mesh) and heads % mesh.shape[HEADS_AXIS] == 0
    rows = row_axes(mesh) or None
    spec = PartitionSpec(rows, None, HEADS_AXIS if split else None)
    specs = (*(spec for _ in arrays), *(() if seen is None else (PartitionSpec(rows),)))
    return jax.shard_map(
        call, in_specs=specs, out_specs=(spec,) * results, axis_names=set(auto_axes(mesh)), check_vma=False
    )(*given)


def _call(kernel: Any, *arrays: Array, results: int, kind: _Kind, phase: str) -> tuple[Array, ...]:
    first = arrays[0]
    rows, length, width = first.shape
    specs = [pl.BlockSpec((None, *x.shape[1:]), lambda row: (row, 0, 0)) for x in arrays]
    return pl.pallas_call(
        partial(kernel, kind=kind, masked=arrays[-1].shape[1] == 1 and arrays[-1].dtype == jnp.int32),
        grid=(rows,),
        in_specs=specs,
        out_specs=tuple(pl.BlockSpec((None, length, width), lambda row: (row, 0, 0)) for _ in range(results)),
        out_shape=tuple(jax.ShapeDtypeStruct(first.shape, first.dtype) for _ in range(results)),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
        interpret=kind.interpret,
        name=_NAME + phase,
    )(*arrays)


def _forward_kernel(*refs: Any, kind: _Kind, masked: bool) -> None:
    (q, k, v), y, visible = refs[:3], refs[-1], _visible(refs[3] if masked else None, like=refs[0], kind=kind)
    for at in _heads(q, kind=kind):
        weights, _ = _weights(q[:, at], k[:, at], visible=visible, kind=kind)
        y[:, at] = _product(weights.astype(q.dtype), v[:, at], (1, 0)).astype(y.dtype)


def _backward_kernel(*refs: Any, kind: _Kind, masked: bool) -> None:
    (q, k, v, dy), (dq, dk, dv) = refs[:4], refs[-3:]
    visible = _visible(refs[4] if masked else None, like=q, kind=kind)
    for at in _heads(q, kind=kind):
        weights, slope = _weights(q[:, at], k[:, at], visible=visible, kind=kind)
        dv[:, at] = _product(weights.astype(q.dtype), dy[:, at], (0, 0)).astype(dv.dtype)
        to_weights = _product(dy[:, at], v[:, at], (1, 1))
        to_scores = weights * (to_weights - jnp.sum(to_weights * weights, axis=1, keepdims=True))
        to_scores = to_scores if slope is None else to_scores * slope
        to_scores = (to_scores * jnp.float32(kind.scale)).astype(q.dtype)
        dq[:, at] = _product(to_scores, k[:, at], (1, 0)).astype(dq.dtype)
        dk[:, at] = _product(to_scores, q[:, at], (0, 0)).astype(dk.dtype)


def _heads(q: Any, *, kind: _Kind) -> list[slice]:
    return [slice(start, start + kind.size) for start in range(0, q.shape[1], kind.size)]


def _visible(seen: Any, *, like: Any, kind: _Kind) -> Array | None:
    """Return which keys each query sees, `[L|1,L]`; None = all."""
    visible = None if seen is None else seen[...] > 0  # [1,L]
    if kind.causal:
        shape = (like.shape[0], like.shape[0])
        before = jax.lax.broadcasted_iota(jnp.int32, shape, 1) <= jax.lax.broadcasted_iota(jnp.int32, shape, 0)
        visible = before if visible is None else before & visible
    return visible


def _weights(q: Array, k: Array, *, visible: Array | None, kind: _Kind) -> tuple[Array, Array | None]:
    """Return the weights of a head, float32 `[L,L]`, and the slope of the soft cap."""
    scores, slope = _product(q, k, (1, 1)) * jnp.float32(kind.scale), None
    if kind.cap is not None:
        bent = jnp.tanh(scores / jnp.float32(kind.cap))
        scores, slope = jnp.float32(kind.cap) * bent, jnp.float32(1) - bent * bent
    if visible is not None:
        scores = jnp.where(visible, scores, jnp.float32(_HIDDEN))
    weights = jnp.exp(scores - jnp.max(scores, axis=1, keepdims=True))
    return weights / jnp.sum(weights, axis=1, keepdims=True), slope


def _product(a: Array, b: Array, axes: tuple[int, int]) -> Array:
    contract = ((axes[0],), (axes[1],))
    return jax.lax.dot_general(a, b, (contract, ((), ())), preferred_element_type=jnp.float32)
