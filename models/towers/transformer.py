"""The text tower: a transformer over subword tokens, bidirectional or causal."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import UserError
from ..layers.blocks import Blocks
from ..layers.dense import compute_dtype
from ..layers.draws import RowKeys
from ..layers.names import named
from ..layers.options import block_options
from ..layers.pooling import AttentionPool, check_pool, eos_place, last_place, masked_mean, token_at
from ..shapes import Text, TextMask


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
        block: Mapping[str, Any] | None = None,
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        check_pool(pool, field="config.model.text.pool")
        self.context_length, self.width, self.dtype = context_length, width, compute_dtype(dtype)
        self.pool, self.eos_id, self.padding_seen = pool, eos_id, padding_seen
        own = {"width": width, "heads": heads, "mlp_ratio": mlp_ratio, "activation": activation, "dropout": dropout}
        own |= {"causal": causal, "remat": remat, "unroll": unroll, "dtype": self.dtype}
        options = block_options(block, tower="text", cross_width=None, **own)
        self.embedding = nnx.Param(0.02 * jax.random.normal(rngs.params(), (vocab_size, width), jnp.float32))
        self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), (context_length, width), jnp.float32))
        self.blocks = Blocks(options, depth=depth, rngs=rngs)
        self.pooler = AttentionPool(options, rngs=rngs) if pool == "attention" else None

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        return ("embedding", "position", "blocks/layers", "blocks/norm", "pooler")

    def tokens(self, text: Text, *, mask: TextMask, keys: RowKeys | None = None) -> Float[Array, "B L D"]:
        """Encode token ids `[B,L]`, L at most `context_length`, one vector per token; see `padding_seen`.

        Raises:
          UserError: a text that is too long.
        """
        length = text.shape[1]
        if length > self.context_length:
            raise UserError(
                f"text of {length} tokens, the tower has positions for {self.context_length}; "
                "set config.data.context_length to that or less"
            )
        x = jnp.take(self.embedding[...], text, axis=0) + self.position[...][None, :length]  # [B,L,D]
        x = named(x.astype(self.dtype), "activation/text/tokens")
        mask = jnp.ones_like(mask) if self.padding_seen else mask
        return self.blocks(x, mask=mask, keys=keys)

    def __call__(self, text: Text, *, mask: TextMask, keys: RowKeys | None = None) -> Float[Array, "B D"]:
        """Encode texts, float32; `keys` turns dropout on. Padding is neither seen nor pooled, unless `padding_seen`."""
        x = self.tokens(text, mask=mask, keys=keys)
        mask = jnp.ones_like(mask) if self.padding_seen else mask
        if self.pooler is not None:
            return self.pooler(x, mask=mask)[:, 0].astype(jnp.float32)
        if self.pool == "mean":
            return masked_mean(x, mask=mask)
        if self.pool == "cls":
            return x[:, 0].astype(jnp.float32)
        place = last_place(mask) if self.pool == "last" else eos_place(text, eos_id=self.eos_id, mask=mask)
        return token_at(x, place=place).astype(jnp.float32)
