"""Fusion through an external memory: each modality is written into it, and a query reads it."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ...base.errors import UserError
from ..layers.dense import linear
from ..layers.draws import RowKeys
from .interface import Features, Fused, Fusion, Tokens, fused, mean_of_present

_TINY = 1e-6  # keeps the cosine of a zero vector finite


class MemoryFusion(Fusion):
    """External memory with read and write (neural Turing machine, Graves et al. 2014).

    The memory M `[S,D]` starts at learned values. Each modality that a row has writes once, in the order of
    `modalities`, with its projected vector q: w = softmax_i(softplus(b(q)) cos(k(q), M_i)), then M_i <- M_i * (1 - w_i
    sigmoid(e(q))) + w_i a(q), with linear k, b, e, a. Then `hops` reads (Sukhbaatar et al. 2015): u starts as the mean
    of the vectors q, and u <- u + sum_i w_i M_i, with weights as above from linear maps of u. z is the last u; the
    tokens are the slots of the memory.
    """

    def __init__(self, *, widths: Mapping[str, int], width: int, slots: int = 8, hops: int = 2, rngs: nnx.Rngs):
        """Build the layers.

        Args:
          widths: modality -> width D_m of its vector.
          width: the common width D.
          slots: rows S of the memory.
          hops: reads.
          rngs: source of the initial values.

        Raises:
          UserError: no slot or no read.
        """
        super().__init__(widths=widths, width=width, rngs=rngs)
        for field, value in (("slots", slots), ("hops", hops)):
            if value < 1:
                raise UserError(f"config.model.fusion.{field} must be at least 1, got {value}")
        self.hops = hops
        self.memory = nnx.Param(0.1 * jax.random.normal(rngs.params(), (slots, width), jnp.float32))
        self.write, self.read = (_addressing(width, rngs=rngs) for _ in range(2))
        self.erase, self.add = (linear(width, width, dtype=jnp.float32, rngs=rngs) for _ in range(2))

    def __call__(self, features: Mapping[str, Features], *, keys: RowKeys | None = None) -> Fused:
        """Fuse; nothing is random."""
        q, present = self.vectors(features)
        memory = jnp.broadcast_to(self.memory[...][None], (q.shape[0], *self.memory.shape))  # [B,S,D]
        for number in range(q.shape[1]):
            memory = self._written(memory, q[:, number], there=present[:, number])
        u = mean_of_present(q, present=present)
        for _ in range(self.hops):
            u = u + jnp.einsum("bs,bsd->bd", _weights(memory, u, layers=self.read), memory)
        mask = jnp.broadcast_to(jnp.any(present, axis=1)[:, None], memory.shape[:2])
        return fused(u, tokens=Tokens(memory, mask))

    def _written(self, memory: Array, q: Array, *, there: Bool[Array, "B"]) -> Array:
        """Write one vector into the memory of the rows that have it."""
        w = _weights(memory, q, layers=self.write)[:, :, None]  # [B,S,1]
        erase, add = jax.nn.sigmoid(self.erase(q))[:, None], self.add(q)[:, None]  # [B,1,D]
        return jnp.where(there[:, None, None], memory * (1 - w * erase) + w * add, memory)


def _addressing(width: int, *, rngs: nnx.Rngs) -> nnx.Dict:
    """Build the linear maps of addressing by content: the key, and the sharpness."""
    return nnx.Dict(
        key=linear(width, width, dtype=jnp.float32, rngs=rngs),
        sharpness=linear(width, 1, dtype=jnp.float32, rngs=rngs),
    )


def _weights(memory: Array, x: Array, *, layers: nnx.Dict) -> Float[Array, "B S"]:
    """Address the memory by content: softmax of sharpness times cosine (Graves et al. 2014, equations 5 and 6)."""
    key = layers["key"](x)
    lengths = jnp.sqrt(jnp.sum(jnp.square(memory), -1) * jnp.sum(jnp.square(key), -1)[:, None] + _TINY)
    cosine = jnp.einsum("bsd,bd->bs", memory, key) / lengths
    return jax.nn.softmax(jax.nn.softplus(layers["sharpness"](x)) * cosine, axis=-1)
