"""Transformer blocks: the code of one block, and a stack of blocks as one block with stacked parameters."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from .attention import EVERYTHING, Attention, AttentionInputs
from .bottleneck import Bottleneck
from .capture import capture_of
from .dense import along
from .draws import RowKeys, drawing, drop_path, dropout, fold
from .mlp import Mlp
from .names import named
from .options import BlockOptions
from .positions import rotary_angles
from .remat import rematerialised

_ATTENTION, _MLP, _CROSS = 0, 1, 2  # numbers of the branches, for their draws
_PATHS = 3  # added to them for stochastic depth


class Context(NamedTuple):
    """Tokens for cross-attention.

    Attributes:
      tokens: `[B,M,C]`.
      mask: bool `[B,M]`, True where a token is real; None = all are.
    """

    tokens: Float[Array, "B M C"]
    mask: Bool[Array, "B M"] | None = None


class Cache(NamedTuple):
    """Keys and values of a stack while it decodes; shapes are static, so one program serves all steps.

    Attributes:
      keys: `[depth,B,G,S,d]` in the compute dtype, of which the first `index` of S places are filled.
      values: `[depth,B,G,S,d]`.
      index: int32, how many tokens have been decoded.
      context: keys and values of the cross-attention, each `[depth,B,G,M,d]`, or None.
      context_mask: bool `[B,M]`, or None.
    """

    keys: Float[Array, "depth B G S d"]
    values: Float[Array, "depth B G S d"]
    index: Int[Array, ""]
    context: tuple[Float[Array, "depth B G M d"], Float[Array, "depth B G M d"]] | None = None
    context_mask: Bool[Array, "B M"] | None = None


class Adapters(nnx.Module):
    """The adapters of a block, behind its self-attention and its MLP (Houlsby et al. 2019, figure 2)."""

    def __init__(self, options: BlockOptions, *, inner: int, activation: str, rngs: nnx.Rngs):
        """Build both; for the arguments see `Bottleneck`."""
        given = {"width": options.width, "inner": inner, "activation": activation, "dtype": options.dtype}
        self.attention, self.mlp = Bottleneck(**given, rngs=rngs), Bottleneck(**given, rngs=rngs)

    def __call__(self, y: Float[Array, "*B D"], *, number: int) -> Float[Array, "*B D"]:
        """Apply the adapter of a branch, if it has one."""
        return self.attention(y) if number == _ATTENTION else self.mlp(y) if number == _MLP else y


class Block(Mlp):
    """A transformer block: self-attention, optionally cross-attention, and an MLP, each on a residual branch.

    It inherits the MLP instead of holding one, so that the MLP's parameters stand next to `attention`.

    Attributes:
      adapters: bottlenecks behind the self-attention and the MLP; `models.adapters` adds them.
      prompts: tokens `[P,D]` that take the place of the first P (deep prompts); `models.adapters` adds them.
    """

    adapters: Adapters | None = None
    prompts: nnx.Param | None = None

    def __init__(self, options: BlockOptions, *, rngs: nnx.Rngs):
        """Build one block."""
        self.norm1 = options.make_norm(rngs=rngs)
        self.attention = Attention(options, rngs=rngs)
        self.norm2 = options.make_norm(rngs=rngs)
        super().__init__(options, rngs=rngs)
        crosses = options.cross_width is not None
        self.norm_cross = options.make_norm(rngs=rngs) if crosses else None
        self.cross = Attention(options, context_width=options.cross_width, rngs=rngs) if crosses else None
        self.scale1, self.scale2 = _layer_scale(options), _layer_scale(options)
        self.scale_cross = _layer_scale(options) if crosses else None

    def __call__(
        self,
        x: Float[Array, "B L D"],
        *,
        inputs: AttentionInputs = EVERYTHING,
        context: Context | None = None,
        keys: RowKeys | None = None,
        path_rate: float | Float[Array, ""] = 0.0,
    ) -> Float[Array, "B L D"]:
        """Apply the block; without `keys` dropout and stochastic depth are off.

        Args:
          x: tokens.
          inputs: masks, bias and rotary positions of the self-attention.
          context: tokens of the cross-attention, if the block has one.
          keys: one key for each row.
          path_rate: rate at which a row skips a branch.
        """
        join = self._joiner(keys=keys, path_rate=path_rate)
        attention = partial(self.attention, inputs=inputs)
        x = join(x, attention, norm=self.norm1, scale=self.scale1, number=_ATTENTION)
        if self.cross is not None:
            assert context is not None
            k, v = self.cross.context(context.tokens)
            x = self._cross(x, keys=k, values=v, mask=context.mask, join=join)
        x = join(x, super().__call__, norm=self.norm2, scale=self.scale2, number=_MLP)
        return named(x, f"activation/{self.options.tower}/tokens")

    def decode(
        self,
        x: Float[Array, "B L D"],
        *,
        cache: Cache,
        inputs: AttentionInputs = EVERYTHING,
    ) -> tuple[Float[Array, "B L D"], tuple[Array, Array]]:
        """Apply the block to the next tokens; `cache` is that of this block, without the axis of depth.

        Returns:
          The tokens, and the block's new keys and values.
        """
        join, saved = self._joiner(keys=None, path_rate=0.0), []

        def attention(x: Array) -> Array:
            y, *new = self.attention.decode(x, keys=cache.keys, values=cache.values, index=cache.index, inputs=inputs)
            saved.extend(new)
            return y

        x = join(x, attention, norm=self.norm1, scale=self.scale1, number=_ATTENTION)
        if self.cross is not None:
            assert cache.context is not None
            k, v = cache.context
            x = self._cross(x, keys=k, values=v, mask=cache.context_mask, join=join)
        x = join(x, super().__call__, norm=self.norm2, scale=self.scale2, number=_MLP)
        return named(x, f"activation/{self.options.tower}/tokens"), (saved[0], saved[1])

    def _cross(
        self, x: Array, *, keys: Array, values: Array, mask: Array | None, join: Callable[..., Array]
    ) -> Float[Array, "B L D"]:
        assert self.cross is not None
        cross = partial(self.cross.cross, keys=keys, values=values, inputs=AttentionInputs(mask=mask))
        return join(x, cross, norm=self.norm_cross, scale=self.scale_cross, number=_CROSS)

    def _joiner(self, *, keys: RowKeys | None, path_rate: float | Array) -> Callable[..., Array]:
        """Return the function that adds a branch to its residual."""
        options = self.options

        def join(
            x: Array,
            branch: Callable[[Array], Array],
            *,
            norm: Callable[[Array], Array],
            scale: nnx.Param | None,
            number: int,
        ) -> Array:
            with drawing(fold(keys, number)):
                y = branch(norm(x) if options.norm_position == "pre" else x)
            if scale is not None:
                y = (y.astype(jnp.float32) * along(scale[...], y)).astype(y.dtype)
            if self.adapters is not None:
                y = self.adapters(y, number=number)
            y = dropout(y, rate=options.dropout, keys=fold(keys, number))
            if options.drop_path:
                y = drop_path(y, rate=path_rate, keys=fold(keys, _PATHS + number))
            return x + y if options.norm_position == "pre" else norm(x + y)

        return join


class Blocks(nnx.Module):
    """A stack of `depth` blocks and, unless the options say otherwise, a final norm.

    `layers` is one `Block` whose parameters have a leading axis of length `depth`. `lax.scan` runs over it, so a deep
    tower is traced and compiled as fast as a shallow one. With `depth=0` there are no layers.

    Prompts (Jia et al. 2022, arXiv:2203.12119, visual prompt tuning; Lester et al. 2021, soft prompts of texts) stand
    before the tokens, are seen by all of them, and are left out of the result. Those of a block replace the ones that
    the block before it made (deep prompts). They have no place among rotary positions, and no bias.

    Attributes:
      prompts: tokens `[P,D]` before the first block, or None; `models.adapters` adds them, or those of the blocks.
    """

    prompts: nnx.Param | None = None

    def __init__(self, options: BlockOptions, *, depth: int, block: type[Block] = Block, rngs: nnx.Rngs):
        """Build the stack.

        Args:
          options: of each block.
          depth: how many blocks.
          block: class of the blocks, built as `Block` is.
          rngs: source of the initial values.
        """
        self.options, self.depth = options, depth
        self.layers = stacked(lambda r: block(options, rngs=r), depth=depth, rngs=rngs)
        self.norm = options.make_norm(rngs=rngs) if options.final_norm else None

    def __call__(
        self,
        x: Float[Array, "B L D"],
        *,
        mask: Bool[Array, "B L"] | None = None,
        inputs: AttentionInputs = EVERYTHING,
        context: Context | None = None,
        keys: RowKeys | None = None,
    ) -> Float[Array, "B L D"]:
        """Apply all blocks and the final norm; without `keys` dropout and stochastic depth are off.

        Args:
          x: tokens.
          mask: True where a token is real, the same as `inputs.mask`.
          inputs: masks, bias and rotary positions of the self-attention in every block. With rotary options and no
            angles, tokens stand at the places 0 ... L - 1.
          context: tokens for the cross-attention, which the options must ask for.
          keys: one key for each row.
        """
        self._check(context is not None, inputs=inputs)
        if mask is not None:
            inputs = inputs._replace(mask=mask)
        if self.layers is None:
            return self._final(x)
        inputs = self._placed(inputs, places=jnp.arange(x.shape[1], dtype=jnp.int32))
        x, inputs, prompts = self._prompted(x, inputs=inputs)
        graph, params = nnx.split(self.layers)

        def layer(x: Array, at: tuple[Any, Array]) -> tuple[Array, None]:
            params, number = at
            own, rate, block = fold(keys, number), self._path_rate(number), nnx.merge(graph, params)
            x = x if block.prompts is None else with_first(x, block.prompts[...])
            return block(x, inputs=inputs, context=context, keys=own, path_rate=rate), None

        if (capture := capture_of(self.options.tower)) is not None:
            x = capture.run(layer, x, params=params, depth=self.depth)
            return capture.end(self._final(x[:, prompts:] if prompts else x))
        unroll = min(self.options.unroll or self.depth, self.depth)
        body = rematerialised(layer, policy=self.options.remat, looped=unroll < self.depth)
        x, _ = jax.lax.scan(body, x, (params, jnp.arange(self.depth)), unroll=unroll)
        return self._final(x[:, prompts:] if prompts else x)

    def start(self, *, rows: int, places: int, context: Context | None = None) -> Cache:
        """Return an empty cache for `decode`.

        Args:
          rows: B.
          places: S, the most tokens of a row, the prompt included.
          context: tokens for the cross-attention, which the options must ask for; their keys and values are computed
            here, once.
        """
        self._check(context is not None, inputs=EVERYTHING)
        shape = (self.depth, rows, self.options.groups, places, self.options.head_size)
        empty = jnp.zeros(shape, self.options.dtype)
        index = jnp.zeros((), jnp.int32)
        if context is None or self.layers is None:
            return Cache(keys=empty, values=empty, index=index)
        graph, params = nnx.split(self.layers)
        _, made = jax.lax.scan(lambda _, p: (None, nnx.merge(graph, p).cross.context(context.tokens)), None, params)
        return Cache(keys=empty, values=empty, index=index, context=made, context_mask=context.mask)

    def decode(
        self, x: Float[Array, "B L D"], *, cache: Cache, inputs: AttentionInputs = EVERYTHING
    ) -> tuple[Float[Array, "B L D"], Cache]:
        """Apply the stack to the next tokens of each row: a whole prompt, or one token at a time.

        Step by step it computes what `__call__` with `causal=True` computes for all tokens at once.

        Args:
          x: the L tokens after those in the cache.
          cache: from `start` or from the call before. Tokens beyond its S places give NaN.
          inputs: as for `__call__`, over the S places: a mask `[B,S]` hides padding of the prompts, bias and pairs
            belong to the L queries. With rotary options and no angles, tokens stand at `index` ... `index + L - 1`.

        Returns:
          The outputs `[B,L,D]` and the new cache.

        Raises:
          ValueError: more tokens than the cache has places, or a stack that is not causal.
        """
        if not self.options.causal:
            raise ValueError("only a causal stack decodes: set BlockOptions.causal")
        if self.prompts is not None or (self.layers is not None and self.layers.prompts is not None):
            raise ValueError("a stack with prompts does not decode")
        places = cache.keys.shape[3]
        if x.shape[1] > places:
            raise ValueError(f"{x.shape[1]} tokens do not fit into a cache of {places} places")
        length = jnp.int32(x.shape[1])
        inputs = self._placed(inputs, places=cache.index + jnp.arange(x.shape[1], dtype=jnp.int32))
        if self.layers is None:
            return self._final(x), cache._replace(index=cache.index + length)
        graph, params = nnx.split(self.layers)

        def layer(x: Array, at: tuple[Any, Any]) -> tuple[Array, Any]:
            params, (k, v, context) = at
            own = cache._replace(keys=k, values=v, context=context)
            return nnx.merge(graph, params).decode(x, cache=own, inputs=inputs)

        unroll = min(self.options.unroll or self.depth, self.depth)
        x, (k, v) = jax.lax.scan(layer, x, (params, (cache.keys, cache.values, cache.context)), unroll=unroll)
        return self._final(x), cache._replace(keys=k, values=v, index=cache.index + length)

    def _prompted(self, x: Array, *, inputs: AttentionInputs) -> tuple[Array, AttentionInputs, int]:
        """Put the prompts before the tokens; returns tokens, what the attention takes of them, and how many."""
        if self.prompts is not None:
            count, first = self.prompts.shape[0], self.prompts[...]
        elif self.layers.prompts is not None:
            count = self.layers.prompts.shape[1]
            first = jnp.zeros((count, x.shape[2]), x.dtype)  # each block has its own
        else:
            return x, inputs, 0
        x = jnp.pad(x, ((0, 0), (count, 0), (0, 0)))
        return with_first(x, first), inputs.after(count), count

    def _final(self, x: Array) -> Array:
        return x if self.norm is None else self.norm(x)

    def _path_rate(self, number: Array) -> float | Array:
        """Return the rate of stochastic depth in the block of that number."""
        if self.options.drop_path == 0:
            return 0.0
        return number.astype(jnp.float32) * jnp.float32(self.options.drop_path / max(self.depth - 1, 1))

    def _placed(self, inputs: AttentionInputs, *, places: Int[Array, "L"]) -> AttentionInputs:
        """Add the angles of rotary positions, unless the caller passed some."""
        if self.options.rotary == "none" or inputs.angles is not None:
            return inputs
        angles = rotary_angles(places, width=self.options.head_size, base=self.options.rotary_base)
        return inputs._replace(angles=angles)

    def _check(self, has_context: bool, *, inputs: AttentionInputs) -> None:
        if has_context != (self.options.cross_width is not None):
            raise ValueError("a context and BlockOptions.cross_width go together: set both or neither")
        if inputs.angles is not None and self.options.rotary == "none":
            raise ValueError("angles need BlockOptions.rotary: it names the pairs of channels that they turn")


def with_first(x: Float[Array, "B L D"], tokens: Float[Array, "P D"]) -> Float[Array, "B L D"]:
    """Put `tokens` in the place of the first P of each row."""
    first = jnp.broadcast_to(tokens.astype(x.dtype)[None], (x.shape[0], *tokens.shape))
    return jnp.concatenate([first, x[:, tokens.shape[0] :]], axis=1)


def stacked(make: Callable[[nnx.Rngs], nnx.Module], *, depth: int, rngs: nnx.Rngs) -> Any:
    """Build `depth` modules as one, each parameter with a leading axis of that length; None if `depth` is 0.

    Args:
      make: builds one module; each call gets random streams of its own.
      depth: how many.
      rngs: source of the initial values.
    """
    if depth == 0:
        return None
    graphs = []

    def state_of(key: jax.Array) -> nnx.State:
        graph, state = nnx.split(make(nnx.Rngs(key)))
        graphs.append(graph)
        return state

    state = jax.vmap(state_of)(jax.random.split(rngs.params(), depth))
    return nnx.merge(graphs[0], state)


def _layer_scale(options: BlockOptions) -> nnx.Param | None:
    if options.layer_scale is None:
        return None
    return nnx.Param(jnp.full((options.width,), options.layer_scale, jnp.float32))
