"""Blocks with divided space-time attention: of TimeSformer, and of Frozen in Time.

Tokens are `[B,T,1+N,D]`: every frame holds a copy of the clip's class token, the first of its tokens. `inputs.mask` is
bool `[B,T]`, True where a frame is real; the others are not seen, and have no part in the class token.
Sources: Bertasius et al. 2021 (TimeSformer, arXiv:2102.05095); Bain et al. 2021 (Frozen in Time, arXiv:2104.00650).
"""

import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import UserError
from ..layers.attend import attend
from ..layers.attention import EVERYTHING, Attention, AttentionInputs, Heads
from ..layers.blocks import Block, Context
from ..layers.dense import linear
from ..layers.draws import RowKeys
from ..layers.names import named
from ..layers.options import BlockOptions
from ..layers.pooling import masked_mean
from ..shapes import FrameMask

Tokens = Float[Array, "B T M D"]

_SPACE, _MLP, _TIME = 0, 1, 2  # numbers of the branches, for their draws


class DividedBlock(Block):
    """TimeSformer: attention over time at each place, then over space in each frame, then an MLP, all residual.

    The class token takes no part in the attention over time; of the attention over space its copies get the mean over
    frames.
    """

    def __init__(self, options: BlockOptions, *, rngs: nnx.Rngs):
        """Build one block; the attention over time adds nothing at first."""
        super().__init__(options, rngs=rngs)
        self.norm_time = options.make_norm(rngs=rngs)
        self.time = Attention(options, rngs=rngs)
        self.time_dense = linear(options.width, options.width, dtype=options.dtype, rngs=rngs)
        self.time_dense.kernel.set_value(jnp.zeros_like(self.time_dense.kernel[...]))

    def __call__(
        self,
        x: Tokens,
        *,
        inputs: AttentionInputs = EVERYTHING,
        context: Context | None = None,
        keys: RowKeys | None = None,
        path_rate: float | Float[Array, ""] = 0.0,
    ) -> Tokens:
        """Apply the block; without `keys` dropout and stochastic depth are off.

        Args:
          x: tokens.
          inputs: its mask is that of frames; nothing else may be set.
          context: must be None.
          keys: one key for each row.
          path_rate: rate at which a row skips a branch.
        """
        real = _frames_alone(inputs, context=context)
        join = self._joiner(keys=keys, path_rate=path_rate)
        x = join(x, lambda y: self._over_time(y, real=real), norm=self.norm_time, scale=None, number=_TIME)
        x = shared(join(x, self._over_space, norm=self.norm1, scale=self.scale1, number=_SPACE), real=real)
        x = shared(join(x, super(Block, self).__call__, norm=self.norm2, scale=self.scale2, number=_MLP), real=real)
        return named(x, f"activation/{self.options.tower}/tokens")

    def _over_time(self, x: Tokens, *, real: FrameMask | None) -> Tokens:
        places = x.shape[2] - 1
        mask = None if real is None else repeat(real, "b t -> (b n) t", n=places)
        y = self.time(rearrange(x[:, :, 1:], "b t n d -> (b n) t d"), inputs=AttentionInputs(mask=mask))
        y = rearrange(self.time_dense(y), "(b n) t d -> b t n d", n=places)
        return jnp.pad(y, [(0, 0), (0, 0), (1, 0), (0, 0)])

    def _over_space(self, x: Tokens) -> Tokens:
        y = self.attention(rearrange(x, "b t n d -> (b t) n d"))
        return rearrange(y, "(b t) n d -> b t n d", t=x.shape[1])


class FrozenBlock(Block):
    """Frozen in Time: the residual of the attention over space skips the attention over time.

    `y = x + space(norm(x + time(norm(x))))`, then the MLP. In both attentions the class token sees all tokens of the
    clip, and the patches see it beside those of their place or of their frame.
    """

    def __init__(self, options: BlockOptions, *, rngs: nnx.Rngs):
        """Build one block; values of the attention over time are 0 at first, and its output sums them (`time_init`)."""
        super().__init__(options, rngs=rngs)
        if options.attention not in ("auto", "xla"):
            raise UserError(
                f"config.model.attention={options.attention!r} has no form for the tower 'frozen', whose class token "
                "sees more than the others; set it to 'auto' or 'xla' for this tower"
            )
        self.attention = GroupedAttention(options, rngs=rngs)
        self.norm_time = options.make_norm(rngs=rngs)
        self.time = GroupedAttention(options, rngs=rngs)
        self.time.qkv.kernel.set_value(jnp.zeros_like(self.time.qkv.kernel[...]))
        self.time.out.kernel.set_value(jnp.ones_like(self.time.out.kernel[...]))

    def __call__(
        self,
        x: Tokens,
        *,
        inputs: AttentionInputs = EVERYTHING,
        context: Context | None = None,
        keys: RowKeys | None = None,
        path_rate: float | Float[Array, ""] = 0.0,
    ) -> Tokens:
        """Apply the block; the arguments are those of `DividedBlock`."""
        real = _frames_alone(inputs, context=context)
        join = self._joiner(keys=keys, path_rate=path_rate)

        def over_both(x: Tokens) -> Tokens:
            timed = x + self.time.grouped(self.norm_time(x), over="time", real=real)
            return self.attention.grouped(self.norm1(timed), over="space", real=real)

        x = shared(join(x, over_both, norm=lambda y: y, scale=self.scale1, number=_SPACE), real=real)
        x = shared(join(x, super(Block, self).__call__, norm=self.norm2, scale=self.scale2, number=_MLP), real=real)
        return named(x, f"activation/{self.options.tower}/tokens")


class GroupedAttention(Attention):
    """Attention within groups of patches, which all see one class token; that sees all of them."""

    def grouped(self, x: Tokens, *, over: str, real: FrameMask | None = None) -> Tokens:
        """Attend.

        Args:
          x: tokens, of which the copies of the class token are equal.
          over: "time": a group is a place in all frames; "space": a frame.
          real: which frames are real; None = all are.
        """
        rows, times, places = x.shape[0], x.shape[1], x.shape[2] - 1
        tokens = jnp.concatenate([x[:, 0, :1], rearrange(x[:, :, 1:], "b t n d -> b (t n) d")], axis=1)
        q, k, v = self._self_heads(tokens, angles=None, order="b k l d")
        seen = (
            None
            if real is None
            else jnp.pad(repeat(real, "b t -> b (t n)", n=places), ((0, 0), (1, 0)), constant_values=True)
        )
        first = attend(q[:, :, :1], k, v, seen=None if seen is None else seen[:, None, None])  # [B,K,1,d]
        to = "(b n) k t d" if over == "time" else "(b t) k n d"

        def groups(y: Heads) -> Heads:
            return rearrange(y[:, :, 1:], f"b k (t n) d -> {to}", t=times)

        def with_class(y: Heads) -> Heads:
            count = places if over == "time" else times
            return jnp.concatenate([jnp.repeat(y[:, :, :1], count, axis=0), groups(y)], axis=2)

        seen = None
        if real is not None and over == "time":
            seen = jnp.pad(repeat(real, "b t -> (b n) t", n=places), ((0, 0), (1, 0)), constant_values=True)[
                :, None, None
            ]
        y = attend(groups(q), with_class(k), with_class(v), seen=seen)
        y = rearrange(y, f"{to} -> b k (t n) d", b=rows, t=times)
        y = self._output(jnp.concatenate([first, y], axis=2))  # [B,1+T*N,D]
        copies = jnp.broadcast_to(y[:, None, :1], (rows, times, 1, y.shape[2]))
        return jnp.concatenate([copies, rearrange(y[:, 1:], "b (t n) d -> b t n d", t=times)], axis=2)


def shared(x: Tokens, *, real: FrameMask | None = None) -> Tokens:
    """Give all copies of the class token their mean over the real frames."""
    token = masked_mean(x[:, :, 0], mask=real).astype(x.dtype)[:, None, None]  # [B,1,1,D]
    return jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], x.shape[1], 1, x.shape[3])), x[:, :, 1:]], axis=2)


def _frames_alone(inputs: AttentionInputs, *, context: Context | None) -> FrameMask | None:
    """Return the mask of frames; nothing else may be set."""
    assert inputs._replace(mask=None) == EVERYTHING and context is None
    return inputs.mask
