"""Activation functions of MLPs, plain and gated.

Sources: GELU, Hendrycks & Gimpel 2016; quick_gelu, CLIP (Radford et al. 2021); SiLU, Elfwing et al. 2018; squared ReLU,
So et al. 2021; gated MLPs, Shazeer 2020. "gelu" is three functions in public models, up to 3e-2 apart in embeddings:
check which of them a checkpoint was trained with.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from ...base.errors import unknown

_Function = Callable[[jax.Array], jax.Array]


def _in_float32(function: _Function) -> _Function:
    """Compute a function in float32 for any input; the backward pass keeps the input only."""

    def computed(x: jax.Array) -> jax.Array:
        return function(x.astype(jnp.float32)).astype(x.dtype)

    return jax.checkpoint(computed, prevent_cse=False)


_SMOOTH: dict[str, _Function] = {
    "gelu": lambda x: nnx.gelu(x, approximate=True),
    "gelu_exact": lambda x: nnx.gelu(x, approximate=False),
    "quick_gelu": lambda x: x * nnx.sigmoid(1.702 * x),
    "silu": lambda x: x * nnx.sigmoid(x),
}

ACTIVATIONS: dict[str, _Function] = {name: _in_float32(function) for name, function in _SMOOTH.items()} | {
    "relu": nnx.relu,
    "squared_relu": lambda x: jnp.square(nnx.relu(x)),
}
"""Name -> function of any shape and float dtype.

  gelu          x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): the tanh form (big_vision, HF SigLIP)
  gelu_exact    x Phi(x), with the error function (PyTorch's default, BERT, LAION's CLIP)
  quick_gelu    x sigmoid(1.702 x) (OpenAI's CLIP)
  silu          x sigmoid(x), also called swish
  relu, squared_relu

The first four compute in float32: in bfloat16 each of their many operations would round, and on a CPU convert.
"""

GATED: dict[str, str] = {
    "swiglu": "silu",
    "geglu": "gelu",
    "geglu_exact": "gelu_exact",
    "reglu": "relu",
}
"""Name of a gated MLP -> the activation function of its gate; the MLP computes `down(f(gate(x)) * up(x))`."""


def check_activation(name: str) -> None:
    """Raise UserError unless `name` is in `ACTIVATIONS` or `GATED`; the message suggests the nearest name."""
    if name not in ACTIVATIONS and name not in GATED:
        raise unknown("activation", name, [*ACTIVATIONS, *GATED])


def activate(up: jax.Array, *, name: str, gate: jax.Array | None = None) -> jax.Array:
    """Return the hidden activations of an MLP.

    Args:
      up: `[..., hidden]`, the output of the first layer.
      name: a name of `ACTIVATIONS`, or of `GATED` if there is a gate.
      gate: `[..., hidden]`, the output of the gate's layer.
    """
    if gate is None:
        return ACTIVATIONS[name](up)
    return _GATES[name](gate, up)


def _gate(function: _Function) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Multiply by a gate in float32; the backward pass keeps the two inputs only."""

    def computed(gate: jax.Array, up: jax.Array) -> jax.Array:
        return (function(gate.astype(jnp.float32)) * up.astype(jnp.float32)).astype(up.dtype)

    return jax.checkpoint(computed, prevent_cse=False)


_GATES = {name: _gate((_SMOOTH | {"relu": nnx.relu})[inner]) for name, inner in GATED.items()}
