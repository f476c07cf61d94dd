"""Multi-head self-attention, and how its products are put to a device."""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float

from ...base.errors import UserError
from .basics import linear
from .devices import has_flash_kernel
from .names import named


class Attention(nnx.Module):
    """Multi-head self-attention (Vaswani et al. 2017).

    The columns of `qkv` lie head by head (each head's query, key and value beside each other), so that devices which
    share out the columns hold whole heads (Shoeybi et al. 2019, Megatron-LM, section 3).
    """

    def __init__(self, width: int, *, heads: int, tower: str, dtype: jnp.dtype, rngs: nnx.Rngs):
        if width % heads:
            raise UserError(f"width={width} must divide by heads={heads}; set the tower's width to a multiple of it")
        self.heads, self.tower = heads, tower
        self.qkv = linear(width, 3 * width, dtype=dtype, rngs=rngs)
        self.out = linear(width, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B L D"], *, mask: Bool[Array, "B L"] | None = None) -> Float[Array, "B L D"]:
        """Attend over axis L; keys where `mask` is False are not seen."""
        qkv = named(self.qkv(x), f"activation/{self.tower}/qkv")  # [B,L,3D]
        flash = mask is None and flash_takes(qkv.dtype, width=x.shape[-1] // self.heads)
        order = "b l k d" if flash else "b k l d"
        q, k, v = jnp.split(rearrange(qkv, f"b l (k d) -> {order}", k=self.heads), 3, axis=3)
        y = jax.nn.dot_product_attention(q, k, v, implementation="cudnn") if flash else attend(q, k, v, mask)
        y = rearrange(y, f"{order} -> b l (k d)")
        return self.out(named(y, f"activation/{self.tower}/attention"))


def flash_takes(dtype: jnp.dtype, *, width: int) -> bool:
    """Say whether attention without a mask goes to cuDNN's flash kernel (Dao et al. 2022).

    The kernel holds neither scores nor weights in memory. With a mask it wants a whole bias, and an even length.

    Args:
      dtype: of query, key and value; the kernel is not for float32.
      width: of a head, D/K.
    """
    return dtype == jnp.bfloat16 and width % 8 == 0 and width <= 128 and has_flash_kernel()


@jax.custom_vjp
def attend(
    q: Float[Array, "B K L d"], k: Float[Array, "B K L d"], v: Float[Array, "B K L d"], mask: Bool[Array, "B L"] | None
) -> Float[Array, "B K L d"]:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1); scores and softmax in float32.

    Heads come before positions and all operands of products, gradients included, are of the compute dtype: so each
    product is a batch of plain ones. It equals `jax.nn.dot_product_attention`, and on a CPU makes a whole step in
    bfloat16 a tenth faster. Keys where `mask` is False are not seen.
    """
    return _attend(q, k, v, mask)[0]


def _attend(q: Array, k: Array, v: Array, mask: Array | None) -> tuple[Array, tuple[Array, ...]]:
    scores = _products("bkld,bkmd->bklm", q, k) * jnp.float32(q.shape[-1] ** -0.5)
    if mask is not None:
        scores = jnp.where(mask[:, None, None, :], scores, jnp.float32(-1e30))
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
    return _products("bklm,bkmd->bkld", weights, v).astype(q.dtype), (q, k, v, weights)


def _attend_backward(saved: tuple[Array, ...], dy: Array) -> tuple[Array, Array, Array, None]:
    q, k, v, weights = saved
    to_weights, w = _products("bkld,bkmd->bklm", dy, v), weights.astype(jnp.float32)
    to_scores = w * (to_weights - jnp.sum(to_weights * w, axis=-1, keepdims=True))
    to_scores = (to_scores * jnp.float32(q.shape[-1] ** -0.5)).astype(q.dtype)
    to_q, to_k = _products("bklm,bkmd->bkld", to_scores, k), _products("bklm,bkld->bkmd", to_scores, q)
    return to_q.astype(q.dtype), to_k.astype(q.dtype), _products("bklm,bkld->bkmd", weights, dy).astype(q.dtype), None


attend.defvjp(_attend, _attend_backward)


def _products(equation: str, a: Array, b: Array) -> Array:
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)
