"""The text tower: a transformer over subword tokens, bidirectional or causal."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import UserError, unknown
from ..layers.blocks import Blocks
from ..layers.dense import compute_dtype
from ..layers.draws import RowKeys
from ..layers.names import named
from ..layers.options import block_options
from ..layers.pooling import AttentionPool, check_pool, eos_place, last_place, masked_mean, token_at
from ..layers.positions import sinusoids
from ..shapes import Text, TextMask

POSITIONS = ("learned", "sinusoids")
"""How a text tower knows the order of its tokens."""


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
        "eos", the first end-of-sentence token (CLIP); "attention", a learned query over the real ones.
      eos_id: id of the end-of-sentence token for "eos"; None = the largest id of each text (OpenAI's CLIP).
      padding_seen: padding is treated as text, as SigLIP was trained (Zhai et al. 2023): all tokens see it, and "last"
        and "mean" count it. Texts must then be padded to `context_length`.
      position: "learned", or "sinusoids": computed, not learned, with `endpoint` rates (Praxis, VideoPrism).
      scale_embedding: token embeddings and class token are multiplied by sqrt(D) (Vaswani et al. 2017, section 3.4).
      class_token: a learned token without a position follows the text, which "cls" pools instead of the first one
        (CoCa, Yu et al. 2022). It sees all real tokens, also with `causal`.
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
        block: Mapping[str, Any] | None = None,
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        check_pool(pool, field="config.model.text.pool")
        if position not in POSITIONS:
            raise unknown("config.model.text.position", position, POSITIONS)
        self.context_length, self.width, self.dtype = context_length, width, compute_dtype(dtype)
        self.pool, self.eos_id, self.padding_seen = pool, eos_id, padding_seen
        own = {"width": width, "heads": heads, "mlp_ratio": mlp_ratio, "activation": activation, "dropout": dropout}
        own |= {"causal": causal, "remat": remat, "unroll": unroll, "dtype": self.dtype}
        options = block_options(block, tower="text", cross_width=None, **own)
        self.factor = width**0.5 if scale_embedding else 1.0
        std = 1 / self.factor if scale_embedding else 0.02
        self.embedding = _normal(vocab_size, width, std=std, rngs=rngs)
        self.position = _normal(context_length, width, std=0.02, rngs=rngs) if position == "learned" else None
        self.class_token = _normal(1, width, std=std, rngs=rngs) if class_token else None
        self.blocks = Blocks(options, depth=depth, rngs=rngs)
        self.pooler = AttentionPool(options, rngs=rngs) if pool == "attention" else None

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        return ("embedding", "position", "class_token", "blocks/layers", "blocks/norm", "pooler")

    def tokens(self, text: Text, *, mask: TextMask, keys: RowKeys | None = None) -> Float[Array, "B L D"]:
        """Encode token ids `[B,L]`, L at most `context_length`, one vector per token; see `padding_seen`.

        Raises:
          UserError: a text that is too long.
        """
        return self._encode(text, mask=mask, keys=keys)[:, : text.shape[1]]

    def _encode(self, text: Text, *, mask: TextMask, keys: RowKeys | None) -> Float[Array, "B M D"]:
        """Encode token ids; the class token, if there is one, follows them: M is L + 1."""
        length = text.shape[1]
        if length > self.context_length:
            raise UserError(
                f"text of {length} tokens, the tower has positions for {self.context_length}; "
                "set config.data.context_length to that or less"
            )
        x = self.factor * jnp.take(self.embedding[...], text, axis=0) + self._positions(length)[None]  # [B,L,D]
        mask = jnp.ones_like(mask) if self.padding_seen else mask
        if self.class_token is not None:
            token = jnp.broadcast_to(self.factor * self.class_token[...], (x.shape[0], 1, self.width))
            x, mask = jnp.concatenate([x, token], axis=1), jnp.pad(mask, ((0, 0), (0, 1)), constant_values=True)
        x = named(x.astype(self.dtype), "activation/text/tokens")
        return self.blocks(x, mask=mask, keys=keys)

    def __call__(self, text: Text, *, mask: TextMask, keys: RowKeys | None = None) -> Float[Array, "B D"]:
        """Encode texts, float32; `keys` turns dropout on. Padding is neither seen nor pooled, unless `padding_seen`."""
        x = self._encode(text, mask=mask, keys=keys)
        if self.class_token is not None and self.pool == "cls":
            return x[:, -1].astype(jnp.float32)
        x = x[:, : text.shape[1]]
        mask = jnp.ones_like(mask) if self.padding_seen else mask
        if self.pooler is not None:
            return self.pooler(x, mask=mask)[:, 0].astype(jnp.float32)
        if self.pool == "mean":
            return masked_mean(x, mask=mask)
        if self.pool == "cls":
            return x[:, 0].astype(jnp.float32)
        place = last_place(mask) if self.pool == "last" else eos_place(text, eos_id=self.eos_id, mask=mask)
        return token_at(x, place=place).astype(jnp.float32)

    def _positions(self, length: int) -> Float[Array, "L D"]:
        if self.position is not None:
            return self.position[...][:length]
        return jnp.asarray(sinusoids(length, width=self.width, endpoint=True), jnp.float32)


def _normal(*shape: int, std: float, rngs: nnx.Rngs) -> nnx.Param:
    return nnx.Param(std * jax.random.normal(rngs.params(), shape, jnp.float32))
