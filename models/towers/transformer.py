"""The text tower: a transformer over subword tokens, in the forms of CLIP, SigLIP, VideoPrism, BERT and T5."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ...base.errors import UserError, unknown
from ..layers.attention import EVERYTHING, AttentionInputs
from ..layers.blocks import Blocks
from ..layers.dense import compute_dtype
from ..layers.draws import RowKeys
from ..layers.names import named
from ..layers.options import BlockOptions, block_options
from ..layers.pooling import AttentionPool, FirstTokenPool, check_pool, eos_place, last_place, masked_mean, token_at
from ..layers.positions import RelativeBias, resize_positions, sinusoids
from ..shapes import Text, TextMask

POSITIONS = ("learned", "sinusoids", "relative", "none")
"""How a text tower knows the order of its tokens."""


class HiddenTokens(NamedTuple):
    """Tokens that a text tower does not see (masked language modelling, Devlin et al. 2019).

    Attributes:
      where: bool `[B,L]`.
      vector: float32 `[D]`, stands in place of their embeddings; positions are added to it.
    """

    where: Bool[Array, "B L"]
    vector: Float[Array, "D"]


class TextTower(nnx.Module):
    """Transformer text encoder; by default the sentence is the mean of its real tokens' outputs.

    Args:
      vocab_size: V.
      context_length: the most tokens L of a text; shorter ones are padded.
      width: D.
      depth: blocks.
      heads: attention heads K.
      mlp_ratio: hidden width of the MLPs / D.
      activation: a name of `layers.activations`.
      dropout: rate on the residual branches.
      causal: each token sees itself and those before it (CLIP, Radford et al. 2021) instead of all.
      pool: how the tokens become one: "mean" of the real ones; "cls", the first (BERT); "last", the last real one;
        "eos", the first end-of-sentence token (CLIP); "attention", a learned query over the real ones; "pooler", a
        dense layer with tanh on the first (BERT).
      eos_id: id of the end-of-sentence token for "eos"; None = the largest id of each text (OpenAI's CLIP).
      padding_seen: padding is treated as text, as SigLIP was trained (Zhai et al. 2023): all tokens see it, and "last"
        and "mean" count it. Texts must then be padded to `context_length`.
      position: "learned", a table that is added to the embeddings; "sinusoids": computed, not learned, with `endpoint`
        rates (Praxis, VideoPrism); "relative", a learned bias on the attention scores of all blocks for the distance
        of two tokens (T5, Raffel et al. 2020); "none".
      scale_embedding: token embeddings and class token are multiplied by sqrt(D) (Vaswani et al. 2017, section 3.4).
      class_token: a learned token without a position follows the text, which "cls" pools instead of the first one
        (CoCa, Yu et al. 2022). It sees all real tokens, also with `causal`.
      positions: rows of the learned table; None = `context_length`. Shorter texts use its first rows.
      stretch_positions: where `context_length` is above `positions`, interpolate the table linearly to it (a start for
        fine-tuning on longer texts, as in Long-CLIP, Zhang et al. 2024); otherwise that is an error.
      relative_buckets: distances that a relative bias tells apart, see `layers.positions.relative_buckets`.
      relative_distance: tokens, the distance from which all share one bucket.
      token_types: rows of BERT's table of token types, whose row 0 is added to every token; 0 = none.
      embedding_norm: a norm follows the sum of the embeddings (BERT).
      block: further fields of `layers.options.BlockOptions`, such as `{"norm_epsilon": 1e-6}`.
      remat: what the backward pass recomputes, a policy of `layers.remat`.
      unroll: layers in one iteration of the loop over them; 0 = all.
      dtype: compute dtype, float32 or bfloat16.
      rngs: source of the initial values.

    Raises:
      UserError: sizes that do not divide, a value out of its range, or an unknown name.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        context_length: int,
        width: int = 512,
        depth: int = 12,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        activation: str = "gelu",
        dropout: float = 0.0,
        causal: bool = False,
        pool: str = "mean",
        eos_id: int | None = None,
        padding_seen: bool = False,
        position: str = "learned",
        scale_embedding: bool = False,
        class_token: bool = False,
        positions: int | None = None,
        stretch_positions: bool = False,
        relative_buckets: int = 32,
        relative_distance: int = 128,
        token_types: int = 0,
        embedding_norm: bool = False,
        block: Mapping[str, Any] | None = None,
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        check_pool(pool, field="config.model.text.pool")
        self.context_length, self.width, self.dtype = context_length, width, compute_dtype(dtype)
        self.pool, self.eos_id, self.padding_seen = pool, eos_id, padding_seen
        rows = context_length if positions is None else positions
        _check_positions(position, rows=rows, context_length=context_length, stretch=stretch_positions)
        _check_distances(relative_buckets, farthest=relative_distance)
        if class_token and position == "relative":
            raise UserError("config.model.text.class_token has no place among relative positions; choose others")
        own = {"width": width, "heads": heads, "mlp_ratio": mlp_ratio, "activation": activation, "dropout": dropout}
        own |= {"causal": causal, "remat": remat, "unroll": unroll, "dtype": self.dtype}
        options = block_options(block, tower="text", cross_width=None, **own)
        self.factor = width**0.5 if scale_embedding else 1.0
        std = 1 / self.factor if scale_embedding else 0.02
        self.embedding = _normal(vocab_size, width, std=std, rngs=rngs)
        self.stretch = stretch_positions
        self.position = _normal(rows, width, std=0.02, rngs=rngs) if position == "learned" else None
        self.has_sinusoids = position == "sinusoids"
        self.class_token = _normal(1, width, std=std, rngs=rngs) if class_token else None
        self.token_type = _normal(token_types, width, std=0.02, rngs=rngs) if token_types else None
        self.embedding_norm = options.make_norm(rngs=rngs) if embedding_norm else None
        distances = {"buckets": relative_buckets, "max_distance": relative_distance, "bidirectional": not causal}
        self.relative_bias = RelativeBias(heads, **distances, rngs=rngs) if position == "relative" else None
        self.blocks = Blocks(options, depth=depth, rngs=rngs)
        self.pooler = _pooler(pool, options=options, rngs=rngs)

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        inputs = ("embedding", "position", "class_token", "token_type", "embedding_norm", "relative_bias")
        return (*inputs, "blocks/layers", "blocks/norm", "pooler")

    def position_resizers(self) -> dict[str, Callable[[Array], Array | None]]:
        """Return parameter -> function from positions of another length to those of this tower."""
        if self.position is None or not self.stretch:
            return {}
        rows = self.position.shape[0]
        return {"position": lambda table: resize_positions(table, old=(table.shape[0],), new=(rows,))}

    def tokens(
        self, text: Text, *, mask: TextMask, keys: RowKeys | None = None, hidden: HiddenTokens | None = None
    ) -> Float[Array, "B L D"]:
        """Encode token ids `[B,L]`, L at most `context_length`, one vector per token; see `padding_seen`.

        Args:
          text: token ids.
          mask: True where a token is real.
          keys: one for each row; turns dropout on.
          hidden: tokens that the tower does not see.

        Raises:
          UserError: a text that is too long.
        """
        return self._encode(text, mask=mask, keys=keys, hidden=hidden)[:, : text.shape[1]]

    def _encode(
        self, text: Text, *, mask: TextMask, keys: RowKeys | None, hidden: HiddenTokens | None = None
    ) -> Float[Array, "B M D"]:
        """Encode token ids; the class token, if there is one, follows them: M is L + 1."""
        length, inputs = text.shape[1], EVERYTHING
        x = self.factor * jnp.take(self.embedding[...], text, axis=0)  # [B,L,D]
        if hidden is not None:
            x = jnp.where(hidden.where[..., None], hidden.vector[None, None], x)
        if self.position is not None or self.has_sinusoids:
            x = x + self._positions(length)[None]
        if self.token_type is not None:
            x = x + self.token_type[...][None, :1]
        mask = jnp.ones_like(mask) if self.padding_seen else mask
        if self.class_token is not None:
            token = jnp.broadcast_to(self.factor * self.class_token[...], (x.shape[0], 1, self.width))
            x, mask = jnp.concatenate([x, token], axis=1), jnp.pad(mask, ((0, 0), (0, 1)), constant_values=True)
        x = named(x.astype(self.dtype), "activation/text/tokens")
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        if self.relative_bias is not None:
            inputs = AttentionInputs(bias=self.relative_bias(queries=length, keys=length))
        return self.blocks(x, mask=mask, inputs=inputs, keys=keys)

    def __call__(self, text: Text, *, mask: TextMask, keys: RowKeys | None = None) -> Float[Array, "B D"]:
        """Encode texts, float32; `keys` turns dropout on. Padding is neither seen nor pooled, unless `padding_seen`."""
        return self.vector_and_tokens(text, mask=mask, keys=keys)[0]

    def vector_and_tokens(
        self, text: Text, *, mask: TextMask, keys: RowKeys | None = None
    ) -> tuple[Float[Array, "B D"], Float[Array, "B L D"]]:
        """Encode texts once, and return what `__call__` and `tokens` return."""
        x = self._encode(text, mask=mask, keys=keys)
        tokens = x[:, : text.shape[1]]
        if self.class_token is not None and self.pool == "cls":
            return x[:, -1].astype(jnp.float32), tokens
        return self._pooled(text, tokens=tokens, mask=jnp.ones_like(mask) if self.padding_seen else mask), tokens

    def _pooled(self, text: Text, *, tokens: Float[Array, "B L D"], mask: TextMask) -> Float[Array, "B D"]:
        if self.pooler is not None:
            return self.pooler(tokens, mask=mask)[:, 0].astype(jnp.float32)
        if self.pool == "mean":
            return masked_mean(tokens, mask=mask)
        if self.pool == "cls":
            return tokens[:, 0].astype(jnp.float32)
        place = last_place(mask) if self.pool == "last" else eos_place(text, eos_id=self.eos_id, mask=mask)
        return token_at(tokens, place=place).astype(jnp.float32)

    def _positions(self, length: int) -> Float[Array, "L D"]:
        """Return the positions of the first `length` tokens."""
        if length > self.context_length:
            raise UserError(
                f"text of {length} tokens, the tower has positions for {self.context_length}; "
                "set config.data.context_length to that or less"
            )
        if self.position is None:
            return jnp.asarray(sinusoids(length, width=self.width, endpoint=True), jnp.float32)
        table, rows = self.position[...], self.position.shape[0]
        if rows < self.context_length:
            table = resize_positions(table, old=(rows,), new=(self.context_length,))
        return table[:length]


def _normal(*shape: int, std: float, rngs: nnx.Rngs) -> nnx.Param:
    return nnx.Param(std * jax.random.normal(rngs.params(), shape, jnp.float32))


def _pooler(pool: str, *, options: BlockOptions, rngs: nnx.Rngs) -> AttentionPool | FirstTokenPool | None:
    if pool == "attention":
        return AttentionPool(options, rngs=rngs)
    return FirstTokenPool(options, rngs=rngs) if pool == "pooler" else None


def _check_positions(position: str, *, rows: int, context_length: int, stretch: bool) -> None:
    if position not in POSITIONS:
        raise unknown("config.model.text.position", position, POSITIONS)
    if position == "learned" and rows < context_length and not stretch:
        raise UserError(
            f"texts of config.data.context_length={context_length} tokens, the tower has {rows} positions; set it to "
            "that or less, or set config.model.text.stretch_positions=True to interpolate them"
        )


def _check_distances(buckets: int, *, farthest: int) -> None:
    if buckets < 4 or buckets % 4 or farthest <= buckets // 2:
        raise UserError(
            f"config.model.text.relative_buckets={buckets} must be a multiple of 4, and relative_distance={farthest} "
            "above half of it; T5 has 32 and 128"
        )
