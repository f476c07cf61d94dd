"""Multi-head attention: self- and cross-attention, grouped-query heads, masks, decoding, and its products on a device.

Sources: Vaswani et al. 2017; grouped-query heads, Ainslie et al. 2023; flash attention, Dao et al. 2022; columns of the
projections head by head, Shoeybi et al. 2019 (Megatron-LM, section 3).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from .attend import attend
from .backends import choose_backend, kernel_attention
from .capture import capture_inside
from .dense import linear
from .names import named
from .options import BlockOptions
from .positions import rotate

Heads = Float[Array, "B K L d"]
"""Queries, keys or values of each head."""


class AttentionInputs(NamedTuple):
    """Masks, bias and rotary positions of an attention; all are optional, and masks combine.

    Attributes:
      mask: bool `[B,M]`, True where a key is real; the others are not seen.
      pairs: bool `[L,M]`, `[B,L,M]` or `[B|1,K|1,L,M]`, True where a query may see a key.
      bias: float `[B|1,K|1,L|1,M]`, added to the scores; finite.
      angles: float32 `[L,half]` or `[B,L,half]` of rotary positions, for queries and keys of self-attention.
    """

    mask: Bool[Array, "B M"] | None = None
    pairs: Bool[Array, "*B L M"] | None = None
    bias: Float[Array, "b k l M"] | None = None
    angles: Float[Array, "*B L half"] | None = None

    def after(self, count: int) -> "AttentionInputs":
        """Return those of self-attention with `count` tokens before the others: seen by all, and not turned."""

        def padded(x: Array | None, *, axes: tuple[int, ...], value: float | bool) -> Array | None:
            if x is None:
                return None
            wide = [axis % x.ndim for axis in axes if axis == -1 or x.shape[axis] > 1]
            return jnp.pad(x, [(count if i in wide else 0, 0) for i in range(x.ndim)], constant_values=value)

        return AttentionInputs(
            mask=padded(self.mask, axes=(-1,), value=True),
            pairs=padded(self.pairs, axes=(-1, -2), value=True),
            bias=padded(self.bias, axes=(-1, -2), value=0.0),
            angles=padded(self.angles, axes=(-2,), value=0.0),
        )


EVERYTHING = AttentionInputs()
"""Every query sees every key; nothing is added or turned."""


class Attention(nnx.Module):
    """Multi-head attention (Vaswani et al. 2017), to the tokens themselves or to a context.

    The columns of `qkv` lie head by head, each head's query, key and value next to each other, so that devices that
    share the columns hold whole heads. With grouped-query heads they lie group by group: the group's queries, its key,
    its value. A query that sees no key gets zeros, and so does its gradient.
    """

    def __init__(self, options: BlockOptions, *, context_width: int | None = None, rngs: nnx.Rngs):
        """Build the layer.

        Args:
          options: sizes and kinds; for cross-attention `causal`, `rotary` and `fused_qkv` have no effect.
          context_width: width of the tokens that are attended to; None = self-attention.
          rngs: source of the initial values.
        """
        self.options, self.crosses = options, context_width is not None
        size, groups, heads = options.head_size, options.groups, options.heads
        given = {"dtype": options.dtype, "rngs": rngs}
        self.fused = options.fused_qkv and not self.crosses
        if self.fused:
            self.qkv = linear(options.width, (heads + 2 * groups) * size, bias=options.qkv_bias, **given)
        else:
            seen = options.width if context_width is None else context_width
            self.query = linear(options.width, heads * size, bias=options.qkv_bias, **given)
            self.key = linear(seen, groups * size, bias=options.qkv_bias, **given)
            self.value = linear(seen, groups * size, bias=options.qkv_bias, **given)
        self.out = linear(heads * size, options.width, bias=options.out_bias, **given)
        if options.qk_norm != "none":
            whole = options.qk_norm == "width"
            self.query_norm = options.make_norm(width=heads * size if whole else size, rngs=rngs)
            self.key_norm = options.make_norm(width=groups * size if whole else size, rngs=rngs)
        self.norm = options.make_norm(width=heads * size, rngs=rngs) if options.attention_norm else None

    def __call__(self, x: Float[Array, "B L D"], *, inputs: AttentionInputs = EVERYTHING) -> Float[Array, "B L D"]:
        """Attend to the tokens themselves, by the backend that `options.attention` chooses.

        Raises:
          UserError: a backend was asked for by name that cannot compute this case.
        """
        options, length = self.options, x.shape[1]
        backend = self._backend(x, inputs=inputs)
        order = "b k l d" if backend == "xla" else "b l k d"
        q, k, v = self._self_heads(x, angles=inputs.angles, order=order)
        if backend == "xla":
            seen = visible(inputs, causal=options.causal, queries=length, keys=length)
            return self._output(self._attend(q, k, v, seen=seen, bias=inputs.bias))
        kind = {"causal": options.causal, "scale": options.attention_scale, "cap": options.logit_cap}
        return self._output(kernel_attention(q, k, v, backend=backend, mask=inputs.mask, **kind), order=order)

    def _backend(self, x: Array, *, inputs: AttentionInputs) -> str:
        options = self.options
        if capture_inside() is not None:
            return "xla"  # its weights are wanted
        extra = "a bias" if inputs.bias is not None else None if inputs.pairs is None else "a mask of pairs of tokens"
        return choose_backend(
            options.attention,
            tower=options.tower,
            rows=x.shape[0],
            length=x.shape[1],
            heads=options.heads,
            groups=options.groups,
            head_size=options.head_size,
            dtype=options.dtype,
            extra=extra,
            cap=options.logit_cap,
        )

    def decode(
        self,
        x: Float[Array, "B L D"],
        *,
        keys: Float[Array, "B G S d"],
        values: Float[Array, "B G S d"],
        index: Int[Array, ""],
        inputs: AttentionInputs = EVERYTHING,
    ) -> tuple[Float[Array, "B L D"], Float[Array, "B G S d"], Float[Array, "B G S d"]]:
        """Attend to cached tokens and to the given ones, which are appended to the cache; causal.

        Args:
          x: the next L tokens.
          keys: cached keys, of which the first `index` places are filled; S places in all.
          values: cached values.
          index: int32, how many tokens came before.
          inputs: as for `__call__`, with masks, pairs and bias over the S places.

        Returns:
          The outputs of the given tokens, and the new keys and values. Tokens beyond place S give NaN.
        """
        length, places = x.shape[1], keys.shape[2]
        q, k, v = self._self_heads(x, angles=inputs.angles, order="b k l d")
        keys = jax.lax.dynamic_update_slice_in_dim(keys, k, index, axis=2)
        values = jax.lax.dynamic_update_slice_in_dim(values, v, index, axis=2)
        seen = visible(inputs, causal=True, queries=length, keys=places, start=index)
        y = self._output(self._attend(q, keys, values, seen=seen, bias=inputs.bias))
        return jnp.where(index + length <= places, y, jnp.asarray(jnp.nan, y.dtype)), keys, values

    def context(self, tokens: Float[Array, "B M C"]) -> tuple[Float[Array, "B G M d"], Float[Array, "B G M d"]]:
        """Return keys and values of context tokens, for `cross`."""
        name = f"activation/{self.options.tower}/qkv"
        k, v = named(self.key(tokens), name), named(self.value(tokens), name)  # [B,M,G*d]
        k = self._normed(self._split(k, groups=True), keys=True)
        return k, self._split(v, groups=True)

    def cross(
        self,
        x: Float[Array, "b L D"],
        *,
        keys: Float[Array, "B G M d"],
        values: Float[Array, "B G M d"],
        inputs: AttentionInputs = EVERYTHING,
    ) -> Float[Array, "B L D"]:
        """Attend to a context; `x` may have one row for all (learned queries).

        Args:
          x: tokens that ask.
          keys: from `context`.
          values: from `context`.
          inputs: masks, pairs and bias over the M context tokens.
        """
        q = self._normed(self._split(self.query(x), groups=False), keys=False)
        q = jnp.broadcast_to(q, (keys.shape[0], *q.shape[1:]))
        seen = visible(inputs, causal=False, queries=x.shape[1], keys=keys.shape[2])
        return self._output(self._attend(q, keys, values, seen=seen, bias=inputs.bias))

    def _attend(self, q: Heads, k: Heads, v: Heads, *, seen: Array | None, bias: Array | None) -> Heads:
        options, capture = self.options, capture_inside()
        function = attend if capture is None else capture.attend
        return function(q, k, v, seen=seen, bias=bias, scale=options.attention_scale, cap=options.logit_cap)

    def _output(self, y: Array, *, order: str = "b k l d") -> Float[Array, "B L D"]:
        y = rearrange(y, f"{order} -> b l (k d)")
        y = named(y, f"activation/{self.options.tower}/attention")
        return self.out(y if self.norm is None else self.norm(y))

    def _self_heads(self, x: Array, *, angles: Array | None, order: str) -> tuple[Array, Array, Array]:
        """Return queries, keys and values of self-attention with their axes in `order`, normalised and turned."""
        name, size, groups = f"activation/{self.options.tower}/qkv", self.options.head_size, self.options.groups
        if self.fused:
            qkv = named(self.qkv(x), name)  # [B,L,(K+2G)*d]
            share = self.options.heads // groups
            parts = rearrange(qkv, f"b l (k d) -> {order}", k=groups)
            q, k, v = jnp.split(parts, [share * size, (share + 1) * size], axis=3)
            if share > 1:
                q = rearrange(q, f"{order.replace('d', '(r d)')} -> {order.replace('k', '(k r)')}", r=share)
        else:
            q = self._split(named(self.query(x), name), groups=False, order=order)
            k = self._split(named(self.key(x), name), groups=True, order=order)
            v = self._split(named(self.value(x), name), groups=True, order=order)
        q, k = self._normed(q, keys=False, order=order), self._normed(k, keys=True, order=order)
        if angles is not None:
            turns = angles if angles.ndim == 3 else angles[None]  # [B|1,L,half]
            turns = turns[:, :, None] if order == "b l k d" else turns[:, None]
            paired = self.options.rotary == "interleaved"
            q, k = (rotate(side, angles=turns, interleaved=paired) for side in (q, k))
        return q, k, v

    def _split(self, x: Array, *, groups: bool, order: str = "b k l d") -> Array:
        return rearrange(x, f"b l (k d) -> {order}", k=self.options.groups if groups else self.options.heads)

    def _normed(self, x: Array, *, keys: bool, order: str = "b k l d") -> Array:
        """Normalise queries or keys, each head by itself or all together."""
        if self.options.qk_norm == "none":
            return x
        norm = self.key_norm if keys else self.query_norm
        if self.options.qk_norm == "head":
            return norm(x)
        return self._split(norm(rearrange(x, f"{order} -> b l (k d)")), groups=keys, order=order)


def visible(
    inputs: AttentionInputs, *, causal: bool, queries: int, keys: int, start: int | Int[Array, ""] = 0
) -> Bool[Array, "b k l M"] | None:
    """Combine masks: a query sees a key if all of them allow it.

    Args:
      inputs: masks of keys and of pairs.
      causal: the query of place `start + i` sees the keys of places 0 ... start + i.
      queries: L.
      keys: M.
      start: place of the first query.

    Returns:
      bool `[B|1,K|1,L|1,M]`, or None if every query sees every key.
    """
    masks = []
    if inputs.mask is not None:
        masks.append(inputs.mask[:, None, None, :])
    if inputs.pairs is not None:
        pairs = inputs.pairs
        masks.append(pairs if pairs.ndim == 4 else pairs[:, None] if pairs.ndim == 3 else pairs[None, None])
    if causal:
        places = jnp.arange(queries, dtype=jnp.int32) + jnp.asarray(start, jnp.int32)
        masks.append((jnp.arange(keys, dtype=jnp.int32)[None, :] <= places[:, None])[None, None])
    if not masks:
        return None
    seen = masks[0]
    for mask in masks[1:]:
        seen = seen & mask
    return seen
