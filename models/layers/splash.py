"""Self-attention by jax's splash kernel for TPUs: scores stay on the chip, forward and backward.

Sources: flash attention, Dao et al. 2022; the kernel is `jax.experimental.pallas.ops.tpu.splash_attention`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from .attend import sees_any
from .devices import HEADS_AXIS, auto_axes, on_tpu, row_axes

LANES = 128
"""Tokens come in multiples of this."""

_BLOCKS = (512, 384, 256, 128)  # of longer sequences; larger ones exceed the on-chip memory in the backward pass
_FUSED_BLOCKS = 4  # up to so many blocks of keys, one kernel computes all gradients: it writes dq once for each


def splash_attention(
    q: Float[Array, "B K L d"],
    k: Float[Array, "B G L d"],
    v: Float[Array, "B G L d"],
    *,
    mask: Bool[Array, "B L"] | None = None,
    causal: bool = False,
    scale: float | None = None,
    cap: float | None = None,
) -> Float[Array, "B K L d"]:
    """Compute what `attend.attend` does for self-attention, without scores in memory.

    The tokens are padded to whole blocks, which no query sees. Under a mesh each device attends in its own rows
    and, along the axis `tensor`, in its own heads. On other devices than TPUs the kernel is interpreted, which is slow.

    Args:
      q: queries.
      k: keys; head h of the queries uses head `h // (K/G)`.
      v: values.
      mask: True where a key is real; a query that sees none gets zeros, and so does its gradient.
      causal: the query of place i sees the keys of places 0 ... i.
      scale: factor on the scores; None = d ** -0.5.
      cap: c of the soft cap `c tanh(score / c)`; None = no cap.
    """
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    q = (q.astype(jnp.float32) * jnp.float32(factor)).astype(q.dtype)
    attend = partial(_on_one_device, causal=causal, cap=cap, interpret=not on_tpu())
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not auto_axes(mesh):
        return attend(q, k, v, mask)
    rows, heads = row_axes(mesh), (HEADS_AXIS,) if _splits_heads(mesh, heads=k.shape[1]) else ()
    spec = PartitionSpec(rows or None, heads or None)
    given = (spec, spec, spec, PartitionSpec(rows or None))
    if mask is None:
        return jax.shard_map(
            lambda q, k, v: attend(q, k, v, None),
            in_specs=given[:3],
            out_specs=spec,
            axis_names=set(auto_axes(mesh)),
            check_vma=False,
        )(q, k, v)
    return jax.shard_map(attend, in_specs=given, out_specs=spec, axis_names=set(auto_axes(mesh)), check_vma=False)(
        q, k, v, mask
    )


def block_of(length: int) -> tuple[int, int]:
    """Return (tokens with padding, tokens of a block): one block up to 512 tokens, else the least padding.

    >>> [block_of(length) for length in (64, 196, 257, 512, 1568)]
    [(128, 128), (256, 256), (384, 384), (512, 512), (1792, 256)]
    """
    whole = -(-length // LANES) * LANES
    if whole <= _BLOCKS[0]:
        return whole, whole
    return min(((-(-length // block) * block, block) for block in _BLOCKS[:-1]), key=lambda one: (one[0], -one[1]))


def _splits_heads(mesh: jax.sharding.AbstractMesh, *, heads: int) -> bool:
    return HEADS_AXIS in auto_axes(mesh) and heads % mesh.shape[HEADS_AXIS] == 0


def _on_one_device(
    q: Array, k: Array, v: Array, mask: Array | None, *, causal: bool, cap: float | None, interpret: bool
) -> Array:
    length, (whole, block) = q.shape[2], block_of(q.shape[2])
    q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, whole - length), (0, 0))) for x in (q, k, v))
    real = jnp.ones((length,), bool) if mask is None else mask  # [L] or [B,L]
    ids = jnp.pad(real.astype(jnp.int32), [(0, 0)] * (real.ndim - 1) + [(0, whole - length)])
    hides = mask is not None or (whole > length and not causal)  # causal queries do not see padding, which comes last
    kernel = _kernel(q.shape[1], length=whole, block=block, causal=causal, cap=cap, interpret=interpret)

    def row(q: Array, k: Array, v: Array, ids: Array) -> Any:
        return kernel(q, k, v, kernels.SegmentIds(q=jnp.ones(whole, jnp.int32), kv=ids) if hides else None)

    with jax.named_scope(f"attention_{length}_of_{whole}"):  # cost.kernels reads it
        y = jax.vmap(row, in_axes=(0, 0, 0, None if mask is None else 0))(q, k, v, ids)[:, :, :length]
    if mask is None:
        return y
    return jnp.where(sees_any(mask, causal=causal)[:, None, :, None], y, jnp.zeros((), y.dtype))


def _kernel(
    heads: int, *, length: int, block: int, causal: bool, cap: float | None, interpret: bool
) -> kernels.SplashAttentionKernel:
    own = masks.CausalMask((length, length)) if causal else masks.FullMask((length, length))
    fused = length // block <= _FUSED_BLOCKS
    sizes = kernels.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=None if fused else block,
        block_kv_dq=None if fused else block,
        use_fused_bwd_kernel=fused,
    )
    return kernels.make_splash_mha(
        masks.MultiHeadMask([own] * heads),
        block_sizes=sizes,
        attn_logits_soft_cap=cap,
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
