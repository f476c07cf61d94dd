"""A causal text decoder: a language model that may attend to the tokens of a clip.

With other options it has the forms of public language models: GPT-2 (Radford et al. 2019), Llama (Touvron et al. 2023)
and Gemma (Gemma Team 2024). `models.generate` writes texts with it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from ..base.errors import UserError, unknown
from .layers.attention import AttentionInputs
from .layers.blocks import Blocks, Cache, Context
from .layers.dense import compute_dtype, linear
from .layers.draws import RowKeys
from .layers.options import BlockOptions, block_options
from .layers.positions import rotary_angles
from .shapes import Text, TextMask

POSITIONS = ("learned", "none")
"""How a decoder knows the order of its tokens, besides rotary positions in its blocks and the causal mask."""


class DecoderState(NamedTuple):
    """What `TextDecoder.decode` keeps from one call to the next.

    Attributes:
      cache: keys and values of the tokens so far.
      padding: int32 `[B]`, how many of a row's first tokens are padding: prompts are padded on the left.
    """

    cache: Cache
    padding: Int[Array, "B"]


class TextDecoder(nnx.Module):
    """Token ids to the logits of the next token.

    Args:
      vocab_size: V.
      context_length: the most tokens of a text, its prompt included.
      width: D.
      depth: blocks.
      heads: attention heads K.
      mlp_ratio: hidden width of the MLPs / D.
      activation: a name of `layers.activations`.
      dropout: rate on the residual branches.
      cross_width: width of the clip's tokens, to which each block attends between its self-attention and its MLP;
        None = a language model alone.
      position: "learned", a table that is added to the embeddings (GPT-2), or "none", for rotary positions
        (`block={"rotary": "halves"}`).
      scale_embedding: token embeddings are multiplied by sqrt(D) (Gemma).
      start_token: there is one more token, of id V, which may begin a text and is never predicted.
      tied: the embeddings also give the logits (Press and Wolf 2017); otherwise a dense layer without a bias does.
      block: further fields of `layers.options.BlockOptions`.
      remat: what the backward pass recomputes, a policy of `layers.remat`.
      unroll: layers in one iteration of the loop over them; 0 = all.
      dtype: compute dtype, float32 or bfloat16; logits are float32.
      rngs: source of the initial values.

    Raises:
      UserError: sizes that do not divide, a value out of its range, or an unknown name.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        context_length: int,
        width: int = 256,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        activation: str = "gelu",
        dropout: float = 0.0,
        cross_width: int | None = None,
        position: str = "learned",
        scale_embedding: bool = False,
        start_token: bool = False,
        tied: bool = True,
        block: Mapping[str, Any] | None = None,
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        if position not in POSITIONS:
            raise unknown("position of a text decoder", position, POSITIONS)
        for field, value in (("vocab_size", vocab_size), ("context_length", context_length)):
            if value < 2:
                raise UserError(f"{field} of a text decoder must be at least 2, got {value}")
        self.vocab_size, self.context_length, self.dtype = vocab_size, context_length, compute_dtype(dtype)
        own = {"width": width, "heads": heads, "mlp_ratio": mlp_ratio, "activation": activation, "dropout": dropout}
        own |= {"causal": True, "cross_width": cross_width, "remat": remat, "unroll": unroll, "dtype": self.dtype}
        self.options: BlockOptions = block_options(block, tower="decoder", **own)
        self.factor = width**0.5 if scale_embedding else 1.0
        self.embedding = _normal(vocab_size + start_token, width, rngs=rngs)
        self.position = _normal(context_length, width, rngs=rngs) if position == "learned" else None
        self.blocks = Blocks(self.options, depth=depth, rngs=rngs)
        self.head = None if tied else linear(width, vocab_size, dtype=self.dtype, rngs=rngs, bias=False)

    def layer_order(self) -> tuple[str, ...]:
        """Return the decoder's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        return ("embedding", "position", "blocks/layers", "blocks/norm", "head")

    def __call__(
        self,
        text: Text,
        *,
        mask: TextMask | None = None,
        context: Context | None = None,
        keys: RowKeys | None = None,
    ) -> Float[Array, "B L V"]:
        """Return the logits of the token after each of the given ones, float32.

        Args:
          text: token ids, padded on the right.
          mask: True where a token is real; None = all are.
          context: tokens of the clip, if there is a `cross_width`.
          keys: one for each row; turns dropout on.

        Raises:
          UserError: more tokens than `context_length`.
        """
        return self.logits(self.states(text, mask=mask, context=context, keys=keys))

    def states(
        self,
        text: Text,
        *,
        mask: TextMask | None = None,
        context: Context | None = None,
        keys: RowKeys | None = None,
    ) -> Float[Array, "B L D"]:
        """Return what `logits` takes: the last state of each token; for the arguments see `__call__`."""
        x, inputs = self.embedded(text, mask=mask)
        return self.blocks(x, inputs=inputs, context=context, keys=keys)

    def embedded(self, text: Text, *, mask: TextMask | None = None) -> tuple[Float[Array, "B L D"], AttentionInputs]:
        """Return what the blocks take of whole texts; for the arguments see `__call__`."""
        self._check_length(text.shape[1])
        places = jnp.arange(text.shape[1], dtype=jnp.int32)[None]
        return self._embed(text, places=places), AttentionInputs(mask=mask, angles=self._angles(places))

    def start(
        self, *, rows: int, places: int, context: Context | None = None, padding: Int[Array, "B"] | None = None
    ) -> DecoderState:
        """Return the state before the first token, for `decode`.

        Args:
          rows: B.
          places: the most tokens of a row, its prompt and padding included.
          context: tokens of the clip, if there is a `cross_width`; their keys and values are computed once, here.
          padding: how many tokens on the left of each prompt are padding; None = none.

        Raises:
          UserError: more places than `context_length`.
        """
        self._check_length(places)
        padding = jnp.zeros(rows, jnp.int32) if padding is None else padding
        return DecoderState(self.blocks.start(rows=rows, places=places, context=context), padding)

    def decode(self, text: Text, *, state: DecoderState) -> tuple[Float[Array, "B L V"], DecoderState]:
        """Return the logits after each of the next tokens, float32, and the new state.

        Args:
          text: the tokens that follow: a whole prompt, or one token of each row.
          state: from `start`, or from the call before.
        """
        x, inputs = self.embedded_next(text, state=state)
        x, cache = self.blocks.decode(x, cache=state.cache, inputs=inputs)
        return self.logits(x), DecoderState(cache, state.padding)

    def embedded_next(self, text: Text, *, state: DecoderState) -> tuple[Float[Array, "B L D"], AttentionInputs]:
        """Return what the blocks take of the next tokens; for the arguments see `decode`."""
        cache, padding = state
        slots = jnp.arange(cache.keys.shape[3], dtype=jnp.int32)[None]
        at = cache.index + jnp.arange(text.shape[1], dtype=jnp.int32)[None]
        places = jnp.maximum(at - padding[:, None], 0)  # [B,L]
        inputs = AttentionInputs(mask=slots >= padding[:, None], angles=self._angles(places))
        return self._embed(text, places=places), inputs

    def _embed(self, text: Text, *, places: Int[Array, "b L"]) -> Float[Array, "B L D"]:
        x = self.factor * jnp.take(self.embedding[...], text, axis=0)  # [B,L,D]
        if self.position is not None:
            x = x + jnp.take(self.position[...], places, axis=0)
        return x.astype(self.dtype)

    def _angles(self, places: Int[Array, "b L"]) -> Float[Array, "b L half"] | None:
        if self.options.rotary == "none":
            return None
        return rotary_angles(places, width=self.options.head_size, base=self.options.rotary_base)

    def logits(self, x: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
        """Return the logits of the token after each place from its state, float32."""
        if self.head is not None:
            return self.head(x).astype(jnp.float32)
        table = self.embedding[: self.vocab_size].astype(x.dtype)
        return jnp.einsum("bld,vd->blv", x, table, preferred_element_type=jnp.float32)

    def _check_length(self, length: int) -> None:
        if length > self.context_length:
            raise UserError(
                f"{length} tokens, prompt included, do not fit into the decoder's context of {self.context_length}; "
                "shorten the prompt or generate fewer tokens"
            )


def _normal(*shape: int, rngs: nnx.Rngs) -> nnx.Param:
    return nnx.Param(0.02 * jax.random.normal(rngs.params(), shape, jnp.float32))
