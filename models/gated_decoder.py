"""A language model that sees: gated cross-attention to the tokens of a clip between the blocks of a text decoder."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from ..base.errors import UserError
from .decoder import DecoderState, TextDecoder
from .fusion.interface import Tokens
from .fusion.streams import CrossBlock
from .layers.blocks import Context, stacked
from .layers.draws import RowKeys, fold
from .layers.options import BlockOptions, block_options
from .layers.remat import rematerialised
from .shapes import Text, TextMask


class GatedDecoder(nnx.Module):
    """A language model with gated cross-attention before every n-th of its blocks (Flamingo, Alayrac et al. 2022).

    In front of such a block x <- x + tanh(g_a) A(x, c), x <- x + tanh(g_m) mlp(norm(x)), where c are the tokens of the
    clip. The gates start at 0, so at the start the logits are those of the language model alone. Its interface is that
    of `decoder.TextDecoder`, so `models.generate` writes with it.

    Attributes:
      language_model: whose parameters may be frozen; it has no cross-attention of its own.
      layers: the gated layers, stacked.
      vocab_size: V, of the language model.
    """

    def __init__(
        self,
        language_model: TextDecoder,
        *,
        context_width: int,
        every: int = 1,
        heads: int | None = None,
        dropout: float = 0.0,
        block: Mapping[str, Any] | None = None,
        tower: str = "decoder",
        rngs: nnx.Rngs,
    ):
        """Put layers between the blocks of a language model.

        Args:
          language_model: the decoder.
          context_width: width of the clip's tokens.
          every: blocks of the language model behind each gated layer, a divisor of their number.
          heads: attention heads of the gated layers; None = those of the language model.
          dropout: rate on the residual branches of the gated layers.
          block: further fields of `layers.options.BlockOptions` for the gated layers; their norms are of the language
            model's kind unless it says otherwise.
          tower: section of `config.model`, for messages.
          rngs: source of the initial values.

        Raises:
          UserError: sizes that do not divide, a value out of its range, or an unknown name.
        """
        own, depth = language_model.options, language_model.blocks.depth
        if every < 1 or depth % every:
            fits = ", ".join(str(n) for n in range(1, depth + 1) if depth % n == 0)
            raise UserError(
                f"config.model.{tower}.every={every} must divide the {depth} blocks of the language model: "
                f"set it to one of {fits}"
            )
        self.language_model, self.vocab_size = language_model, language_model.vocab_size
        self.every, self.depth = every, depth // every
        fields: dict[str, Any] = {"norm": own.norm, "norm_epsilon": own.norm_epsilon, **(block or {})}
        given = {"width": own.width, "heads": own.heads if heads is None else heads, "dropout": dropout}
        given |= {"causal": False, "rotary": "none", "cross_width": None, "norm_position": "pre", "final_norm": True}
        given |= {"layer_scale": None, "drop_path": 0.0, "remat": own.remat, "unroll": own.unroll, "dtype": own.dtype}
        self.options: BlockOptions = block_options(fields, tower=tower, **given)
        kind = {"gated": True, "context_width": context_width}
        self.layers = stacked(lambda r: CrossBlock(self.options, **kind, rngs=r), depth=self.depth, rngs=rngs)

    def __call__(
        self,
        text: Text,
        *,
        mask: TextMask | None = None,
        context: Context,
        keys: RowKeys | None = None,
    ) -> Float[Array, "B L V"]:
        """Return the logits of the token after each of the given ones, float32; see `decoder.TextDecoder.__call__`.

        A row none of whose context tokens is real gets those of the language model and the gated MLPs alone.
        """
        return self.logits(self.states(text, mask=mask, context=context, keys=keys))

    def states(
        self, text: Text, *, mask: TextMask | None = None, context: Context, keys: RowKeys | None = None
    ) -> Float[Array, "B L D"]:
        """Return what `logits` takes: the last state of each token; for the arguments see `__call__`."""
        x, inputs = self.language_model.embedded(text, mask=mask)
        tokens = _tokens(context)
        (gated, gates), (graph, blocks) = nnx.split(self.layers), nnx.split(self.language_model.blocks.layers)

        def layer(x: Array, at: tuple[Any, Array]) -> tuple[Array, None]:
            params, number = at
            return nnx.merge(graph, params)(x, inputs=inputs, keys=fold(keys, number)), None

        def group(x: Array, at: tuple[Any, Any, Array]) -> tuple[Array, None]:
            gate, params, number = at
            x = nnx.merge(gated, gate)(x, context=tokens, keys=fold(keys, number))
            first = jnp.int32(self.depth) + number * jnp.int32(self.every)
            x, _ = jax.lax.scan(layer, x, (params, first + jnp.arange(self.every, dtype=jnp.int32)))
            return x, None

        unroll = min(self.options.unroll or self.depth, self.depth)
        body = rematerialised(group, policy=self.options.remat, looped=unroll < self.depth)
        numbers = jnp.arange(self.depth, dtype=jnp.int32)
        x, _ = jax.lax.scan(body, x, (gates, self._grouped(blocks), numbers), unroll=unroll)
        return self._final(x)

    def logits(self, x: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
        """Return the logits of the token after each place from its state, float32."""
        return self.language_model.logits(x)

    def start(
        self, *, rows: int, places: int, context: Context | None = None, padding: Int[Array, "B"] | None = None
    ) -> DecoderState:
        """Return the state before the first token, with keys and values of the context; see `TextDecoder.start`."""
        assert context is not None
        state, tokens = self.language_model.start(rows=rows, places=places, padding=padding), _tokens(context)
        graph, gates = nnx.split(self.layers)
        _, made = jax.lax.scan(lambda _, p: (None, nnx.merge(graph, p).stored(tokens)), None, gates)
        return state._replace(cache=state.cache._replace(context=made, context_mask=tokens.mask))

    def decode(self, text: Text, *, state: DecoderState) -> tuple[Float[Array, "B L V"], DecoderState]:
        """Return the logits after each of the next tokens, float32, and the new state; see `TextDecoder.decode`."""
        cache = state.cache
        x, inputs = self.language_model.embedded_next(text, state=state)
        (gated, gates), (graph, blocks) = nnx.split(self.layers), nnx.split(self.language_model.blocks.layers)

        def layer(x: Array, at: tuple[Any, Array, Array]) -> tuple[Array, tuple[Array, Array]]:
            params, k, v = at
            own = cache._replace(keys=k, values=v, context=None, context_mask=None)
            return nnx.merge(graph, params).decode(x, cache=own, inputs=inputs)

        def group(x: Array, at: tuple[Any, Any, Any]) -> tuple[Array, tuple[Array, Array]]:
            gate, stored, own = at
            block: Any = nnx.merge(gated, gate)
            assert cache.context_mask is not None
            x = block.joined(x, attended=block.attended_to(x, stored=stored, mask=cache.context_mask))
            return jax.lax.scan(layer, x, own)

        own = self._grouped((blocks, cache.keys, cache.values))
        x, (k, v) = jax.lax.scan(group, x, (gates, cache.context, own))
        keys, values = (part.reshape(-1, *part.shape[2:]) for part in (k, v))
        cache = cache._replace(keys=keys, values=values, index=cache.index + jnp.int32(text.shape[1]))
        return self.logits(self._final(x)), DecoderState(cache, state.padding)

    def _grouped(self, parts: Any) -> Any:
        """Return arrays `[blocks,...]` as `[layers,every,...]`."""
        return jax.tree.map(lambda x: x.reshape(self.depth, self.every, *x.shape[1:]), parts)

    def _final(self, x: Array) -> Array:
        norm = self.language_model.blocks.norm
        assert norm is not None
        return norm(x)


def _tokens(context: Context) -> Tokens:
    mask = jnp.ones(context.tokens.shape[:2], bool) if context.mask is None else context.mask
    return Tokens(context.tokens, mask)
