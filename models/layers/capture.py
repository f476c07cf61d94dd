"""Opt-in ways into towers while they are traced: pixels as real numbers, and the attention weights of a stack.

Outside of these contexts the layers compute as always; what is compiled does not change.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_HIDDEN = -1e30  # score of a key that is not seen

_REAL: contextvars.ContextVar[bool] = contextvars.ContextVar("real_pixels", default=False)


@contextlib.contextmanager
def real_pixels() -> Iterator[None]:
    """Let towers take float32 pixels 0..255 inside this context, so that gradients by pixels exist.

    Elsewhere they refuse them: pixels that were normalised before would be normalised twice without a word.
    """
    token = _REAL.set(True)
    try:
        yield
    finally:
        _REAL.reset(token)


def are_pixels(dtype: Any) -> bool:
    """Tell whether a tower takes pixels of a dtype: uint8, or float32 inside `real_pixels`."""
    return dtype == jnp.uint8 or (_REAL.get() and dtype == jnp.float32)


class Capture:
    """The first stack of blocks of a tower, as it is traced.

    Attributes:
      tower: "video", "text" or "audio".
      attention: float32 `[B,K,L,M]` for each block, after the softmax.
      layers: what each block returns, `[B,L,D]`.
      output: what the stack returns, `[B,L,D]`; None before it was traced.
    """

    def __init__(self, tower: str, *, taps: list[Array] | None = None):
        """Begin with nothing captured.

        Args:
          tower: whose first stack.
          taps: zeros that are added to the attention weights of each block, and to the output, in this order: the
            gradients by them are those by the weights and by the output. None = nothing is added.
        """
        self.tower, self.attention = tower, list[Array]()
        self.layers = list[Array]()
        self.output: Array | None = None
        self.inside = False
        self._taps = None if taps is None else iter(taps)

    @property
    def values(self) -> list[Array]:
        """The attention weights and the output, in the order of the taps."""
        return [*self.attention, *([] if self.output is None else [self.output])]

    def run(self, layer: Callable[[Array, Any], tuple[Array, None]], x: Array, *, params: Any, depth: int) -> Array:
        """Apply the blocks of the stack one after another, without a loop that would hide their weights.

        Args:
          layer: (tokens, (parameters, number)) -> (tokens, None), one block.
          x: tokens `[B,L,D]`.
          params: of all blocks, with a leading axis of length `depth`.
          depth: how many blocks.
        """
        self.inside = True
        for number in range(depth):
            x, _ = layer(x, (jax.tree.map(lambda p, at=number: p[at], params), jnp.int32(number)))
            self.layers.append(x)
        self.inside = False
        return x

    def end(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """Take the output of the stack."""
        self.output = self._tapped(x)
        return self.output

    def attend(
        self,
        q: Float[Array, "B K L d"],
        k: Float[Array, "B G M d"],
        v: Float[Array, "B G M d"],
        *,
        seen: Bool[Array, "b k l M"] | None = None,
        bias: Float[Array, "b k l M"] | None = None,
        scale: float | None = None,
        cap: float | None = None,
    ) -> Float[Array, "B K L d"]:
        """Compute what `attend.attend` does, and take the weights."""
        k, v = (jnp.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
        scores = jnp.einsum("bkld,bkmd->bklm", q, k, preferred_element_type=jnp.float32)
        scores = scores * jnp.float32(q.shape[-1] ** -0.5 if scale is None else scale)
        if bias is not None:
            scores = scores + bias.astype(jnp.float32)
        if cap is not None:
            scores = jnp.float32(cap) * jnp.tanh(scores / jnp.float32(cap))
        if seen is not None:
            scores = jnp.where(seen, scores, jnp.float32(_HIDDEN))
        weights = jax.nn.softmax(scores, axis=-1)
        if seen is not None:
            weights = jnp.where(seen, weights, jnp.float32(0))  # differs only for queries that see no key
        weights = self._tapped(weights)
        self.attention.append(weights)
        y = jnp.einsum("bklm,bkmd->bkld", weights.astype(q.dtype), v, preferred_element_type=jnp.float32)
        return y.astype(q.dtype)

    def _tapped(self, x: Array) -> Array:
        return x if self._taps is None else x + next(self._taps).astype(x.dtype)


_CAPTURE: contextvars.ContextVar[Capture | None] = contextvars.ContextVar("capture", default=None)


@contextlib.contextmanager
def capturing(capture: Capture) -> Iterator[Capture]:
    """Fill `capture` from the first stack of its tower that is traced inside this context."""
    token = _CAPTURE.set(capture)
    try:
        yield capture
    finally:
        _CAPTURE.reset(token)


def capture_of(tower: str) -> Capture | None:
    """Return the capture that a stack of a tower is to fill; None if there is none, or it is filled already."""
    found = _CAPTURE.get()
    return found if found is not None and found.tower == tower and found.output is None else None


def capture_inside() -> Capture | None:
    """Return the capture whose blocks are being traced."""
    found = _CAPTURE.get()
    return found if found is not None and found.inside else None
