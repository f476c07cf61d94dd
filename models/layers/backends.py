"""Which code computes self-attention: plain XLA, cuDNN's flash kernel on GPUs, or one of two Pallas kernels on TPUs."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...base.errors import UserError, unknown
from .attend import sees_any
from .devices import has_flash_kernel, on_tpu, splits_rows

BACKENDS = ("auto", "xla", "cudnn", "splash", "short")
"""Values of `config.model.attention`, for attention of tokens to themselves; with a context or a cache it is "xla":

  auto    the kernel of the device where it can compute the case and saves time, else xla
  xla     batches of plain products; scores and weights are stored for the backward pass
  cudnn   cuDNN's flash kernel (Dao et al. 2022): NVIDIA GPUs from Ampere on, bfloat16 or float16
  splash  jax's Pallas kernel, block by block: TPUs, rows of any length
  short   our Pallas kernel, a whole row at a time: TPUs, rows that fit on the chip, as many keys' heads as queries'
"""

WORTH_A_KERNEL = {"short": 64, "splash": 128}
"""Tokens from which "auto" chooses a kernel for TPUs; splash pads to whole multiples of 128."""

_ON_CHIP = 12 * 2**20  # bytes: of the 16 MiB that the compiler gives a kernel on v5e

FIELD = "config.model.attention"


def check_backend(name: str) -> None:
    """Raise UserError unless `name` is in `BACKENDS`; the message suggests the nearest one."""
    if name not in BACKENDS:
        raise unknown(f"backend in {FIELD}", name, BACKENDS)


def choose_backend(
    name: str,
    *,
    tower: str,
    rows: int,
    length: int,
    heads: int,
    groups: int,
    head_size: int,
    dtype: Any,
    extra: str | None = None,
    cap: float | None = None,
) -> str:
    """Return the backend, of `BACKENDS` without "auto", for one self-attention of the program being traced.

    Args:
      name: of `BACKENDS`.
      tower: whose attention it is, for errors.
      rows: B.
      length: L.
      heads: K.
      groups: G, heads of keys and values.
      head_size: d.
      dtype: of queries, keys and values.
      extra: what else is given that no kernel computes ("a bias", "a mask of pairs"), or None.
      cap: of the scores' soft cap, or None.

    Raises:
      UserError: a backend was asked for by name that this device does not have or that cannot compute this case.
    """
    if name == "xla":
        return "xla"
    refused = {
        "cudnn": _not_by_cudnn(dtype, head_size=head_size, extra=extra, cap=cap),
        "splash": _not_by_pallas(rows=rows, extra=extra),
        "short": _not_by_pallas(rows=rows, extra=extra)
        or _not_short(length, heads=heads, groups=groups, head_size=head_size, dtype=dtype),
    }
    if name == "auto":
        worth = [one for one in ("cudnn", "short", "splash") if length >= WORTH_A_KERNEL.get(one, 0)]
        return next((one for one in worth if refused[one] is None), "xla")
    reason = refused[name]
    if reason is not None:
        raise UserError(
            f"{FIELD}={name!r} cannot compute the attention of tower {tower!r}: {reason}; set {FIELD} to 'auto' or "
            f"'xla', or only that of this tower: {FIELD}={{'{tower}': 'xla'}}"
        )
    return name


def _not_by_cudnn(dtype: Any, *, head_size: int, extra: str | None, cap: float | None) -> str | None:
    """Return why cuDNN cannot compute an attention; None if it can."""
    if not has_flash_kernel():
        return "it needs an NVIDIA GPU from Ampere on"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f"it computes in bfloat16 or float16, not in {jnp.dtype(dtype).name}"
    if head_size % 8 or head_size > 128:
        return f"heads of {head_size} channels, it takes multiples of 8 up to 128"
    if extra is not None:
        return f"the attention has {extra}"
    return None if cap is None else "the attention has a soft cap"


def _not_by_pallas(*, rows: int, extra: str | None) -> str | None:
    """Return why neither kernel for TPUs can compute an attention; None if it is not that."""
    if not on_tpu():
        return "it needs a TPU"
    if extra is not None:
        return f"the attention has {extra}"
    return None if splits_rows(rows) else f"{rows} rows do not divide by the devices of the batch"


def _not_short(length: int, *, heads: int, groups: int, head_size: int, dtype: Any) -> str | None:
    """Return why a row is no case for the kernel of short rows; None if it is."""
    if groups != heads:
        return f"it has {heads} heads of queries, but {groups} of keys"
    # Backward: seven blocks of a row, each twice (one is copied while the other is computed), and some scores.
    lanes = 128
    width = -(-heads * head_size // lanes) * lanes
    scores = 6 * 4 * length * (-(-length // lanes) * lanes)
    if 14 * length * width * jnp.dtype(dtype).itemsize + scores > _ON_CHIP:
        return f"a row of {length} tokens of {heads * head_size} channels does not fit on the chip, set it to 'splash'"
    return None


def kernel_attention(
    q: Float[Array, "B L K d"],
    k: Float[Array, "B L G d"],
    v: Float[Array, "B L G d"],
    *,
    backend: str,
    mask: Bool[Array, "B L"] | None,
    causal: bool,
    scale: float | None,
    cap: float | None,
) -> Float[Array, "B L K d"]:
    """Compute self-attention by a kernel that stores no scores.

    Args:
      q: queries, heads after tokens.
      k: keys.
      v: values.
      backend: "cudnn", "splash" or "short".
      mask: True where a key is real; a query that sees none gets zeros.
      causal: a query sees its own place and those before it.
      scale: factor on the scores; None = d ** -0.5.
      cap: of the scores' soft cap; None for cuDNN.
    """
    if backend == "short":
        from .short import short_attention  # Pallas takes a while to import

        return short_attention(q, k, v, mask=mask, causal=causal, scale=scale, cap=cap)
    if backend == "splash":
        from .splash import splash_attention

        q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
        return jnp.swapaxes(splash_attention(q, k, v, mask=mask, causal=causal, scale=scale, cap=cap), 1, 2)
    return _cudnn(q, k, v, mask=mask, causal=causal, scale=scale)


def _cudnn(q: Array, k: Array, v: Array, *, mask: Array | None, causal: bool, scale: float | None) -> Array:
    given = {"implementation": "cudnn", "scale": q.shape[-1] ** -0.5 if scale is None else scale, "is_causal": causal}
    if mask is None:
        return jax.nn.dot_product_attention(q, k, v, **given)
    # cuDNN takes a mask of keys as a bias [B,1,L,M], for all heads, and with a bias only even lengths.
    length = q.shape[1]
    odd = length % 2
    q, k, v = (jnp.pad(x, ((0, 0), (0, odd), (0, 0), (0, 0))) for x in (q, k, v))
    seen = jnp.pad(mask, ((0, 0), (0, odd)))
    pairs = jnp.broadcast_to(seen[:, None, None, :], (seen.shape[0], 1, length + odd, length + odd))
    y = jax.nn.dot_product_attention(q, k, v, mask=pairs, **given)[:, :length]
    return jnp.where(sees_any(mask, causal=causal)[:, :, None, None], y, jnp.zeros((), y.dtype))
