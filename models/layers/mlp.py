"""The MLP of a transformer block, plain or gated."""

from flax import nnx
from jaxtyping import Array, Float

from .activations import activate
from .dense import linear
from .names import named
from .options import BlockOptions


class Mlp(nnx.Module):
    """Two dense layers with an activation function between them (Vaswani et al. 2017), or gated (Shazeer 2020)."""

    def __init__(self, options: BlockOptions, *, rngs: nnx.Rngs):
        """Build `up`, `down` and, where the options ask for them, `gate` and `mlp_norm`."""
        self.options = options
        given = {"bias": options.mlp_bias, "dtype": options.dtype, "rngs": rngs}
        self.up = linear(options.width, options.hidden, **given)
        self.down = linear(options.hidden, options.width, **given)
        self.gate = linear(options.width, options.hidden, **given) if options.gated else None
        self.mlp_norm = options.make_norm(width=options.hidden, rngs=rngs) if options.mlp_norm else None

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Apply the MLP to the last axis."""
        name = f"activation/{self.options.tower}/hidden"
        up = named(self.up(x), name)  # [*B,hidden]
        gate = None if self.gate is None else named(self.gate(x), name)
        hidden = activate(up, name=self.options.activation, gate=gate)
        return self.down(hidden if self.mlp_norm is None else self.mlp_norm(hidden))
