"""What a stack of transformer blocks is made of: one frozen dataclass, checked once."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx

from ...base.errors import UserError, unknown
from ...base.section import section
from .activations import GATED, check_activation
from .backends import check_backend
from .norm import NORMS, LayerNorm, RMSNorm, make_norm
from .remat import check_remat

_CHOICES = {
    "norm": NORMS,
    "norm_position": ("pre", "post"),
    "qk_norm": ("none", "head", "width"),
    "rotary": ("none", "halves", "interleaved"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockOptions:
    """Options of `Attention`, `Block` and `Blocks`; the defaults are those of twinreel's own towers (pre-norm ViT).

    Attributes:
      width: D.
      heads: attention heads K.
      kv_heads: heads of keys and values, a divisor of `heads`: grouped-query attention (Ainslie et al. 2023), 1 =
        multi-query (Shazeer 2019); None = `heads`.
      head_width: channels of a head; None = D/K.
      mlp_ratio: hidden width of the MLP / D.
      mlp_hidden: hidden width of the MLP; None = `mlp_ratio` * D, rounded down.
      activation: a name of `activations.ACTIVATIONS`, or of `activations.GATED` for a gated MLP.
      norm: "layernorm" or "rmsnorm".
      norm_epsilon: added to the variance or mean square.
      norm_plus_one: norms multiply by `scale + 1`.
      norm_bias: LayerNorms have a bias.
      norm_position: "pre" normalises the input of each branch, "post" (BERT) each sum of residual and branch.
      final_norm: a norm follows the last block.
      fused_qkv: query, key and value of self-attention are one product, with its columns head by head.
      qkv_bias: queries, keys and values have a bias. A bias of keys alone changes nothing (softmax is invariant to it).
      out_bias: the output projection of attention has a bias.
      mlp_bias: the layers of the MLP have biases.
      qk_norm: norm on queries and keys: "head" normalises each head (Dehghani et al. 2023, ViT-22B), "width" all heads
        together, before they are split (InternVideo2).
      attention_norm: a norm on the heads' outputs, before the output projection (EVA-02, Wang et al. 2022, "sub-LN").
      mlp_norm: a norm on the hidden activations of the MLP (the same sources).
      attention_scale: factor on the scores; None = head width ** -0.5 (T5: 1).
      logit_cap: c of the soft cap `c tanh(score / c)` (Praxis: 50); None = no cap.
      causal: each token attends to itself and those before it.
      rotary: rotary positions: "halves" or "interleaved" name the pairs of channels, see `positions.rotate`.
      rotary_base: see `positions.rotary_angles`; used where the caller passes no angles of its own.
      cross_width: width of the tokens of a cross-attention between self-attention and MLP; None = there is none.
      layer_scale: initial value of a learned factor on each channel of each branch (LayerScale, Touvron et al. 2021);
        None = no such factor.
      dropout: rate on the residual branches.
      drop_path: rate in the last block at which a row skips a branch, growing linearly from 0 in the first (stochastic
        depth, Huang et al. 2016).
      tower: name of the tower in activations, `activation/<tower>/qkv`, and in error messages.
      remat: a policy of `models.layers.remat`.
      unroll: layers in one iteration of the loop over them; 0 = all, no loop. Changes speed, not parameters.
      attention: what computes self-attention, one of `models.layers.backends.BACKENDS`. Changes speed and memory, not
        parameters.
      dtype: compute dtype; parameters are float32.
    """

    width: int
    heads: int
    kv_heads: int | None = None
    head_width: int | None = None
    mlp_ratio: float = 4.0
    mlp_hidden: int | None = None
    activation: str = "gelu"
    norm: str = "layernorm"
    norm_epsilon: float = 1e-5
    norm_plus_one: bool = False
    norm_bias: bool = True
    norm_position: str = "pre"
    final_norm: bool = True
    fused_qkv: bool = True
    qkv_bias: bool = True
    out_bias: bool = True
    mlp_bias: bool = True
    qk_norm: str = "none"
    attention_norm: bool = False
    mlp_norm: bool = False
    attention_scale: float | None = None
    logit_cap: float | None = None
    causal: bool = False
    rotary: str = "none"
    rotary_base: float = 10_000.0
    cross_width: int | None = None
    layer_scale: float | None = None
    dropout: float = 0.0
    drop_path: float = 0.0
    tower: str
    remat: str = "none"
    unroll: int = 1
    attention: str = "auto"
    dtype: Any = jnp.float32

    def __post_init__(self):
        """Raise UserError for an unknown name, sizes that do not divide, or a value out of its range."""
        check_activation(self.activation)
        check_remat(self.remat)
        check_backend(self.attention)
        for field, known in _CHOICES.items():
            if getattr(self, field) not in known:
                raise unknown(f"{field} in config.model.{self.tower}.block", getattr(self, field), known)
        if self.unroll < 0:
            raise UserError(f"config.model.unroll must be a number of layers, or 0 for all of them, got {self.unroll}")
        for field, place in (("dropout", ""), ("drop_path", ".block")):
            if not 0 <= getattr(self, field) < 1:
                raise UserError(
                    f"config.model.{self.tower}{place}.{field} must be at least 0 and below 1, got "
                    f"{getattr(self, field)}"
                )
        if self.head_width is None and self.width % self.heads:
            raise UserError(
                f"width={self.width} must divide by heads={self.heads}; set config.model.{self.tower}.width to a "
                "multiple of it"
            )
        if self.heads % self.groups:
            raise UserError(
                f"config.model.{self.tower}.block.kv_heads={self.kv_heads} must be a divisor of heads={self.heads}"
            )
        for field in ("norm_epsilon", "logit_cap", "rotary_base", "head_width", "mlp_hidden"):
            value = getattr(self, field)
            if value is not None and not value > 0:
                raise UserError(f"config.model.{self.tower}.block.{field} must be above 0, got {value}")

    @property
    def groups(self) -> int:
        """Heads of keys and values."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def head_size(self) -> int:
        """Channels d of a head."""
        return self.width // self.heads if self.head_width is None else self.head_width

    @property
    def hidden(self) -> int:
        """Hidden width of the MLP."""
        return int(self.width * self.mlp_ratio) if self.mlp_hidden is None else self.mlp_hidden

    @property
    def gated(self) -> bool:
        """Whether the MLP has a gate."""
        return self.activation in GATED

    def with_heads(self, heads: int) -> "BlockOptions":
        """Return the options of an attention with another number of heads, each of the usual width D/K."""
        return dataclasses.replace(self, heads=heads, kv_heads=None, head_width=None)

    def make_norm(self, *, width: int | None = None, rngs: nnx.Rngs) -> LayerNorm | RMSNorm:
        """Build a norm of this kind over `width` channels (None = D)."""
        return make_norm(
            self.norm,
            width=self.width if width is None else width,
            dtype=self.dtype,
            rngs=rngs,
            epsilon=self.norm_epsilon,
            plus_one=self.norm_plus_one,
            bias=self.norm_bias,
        )


def block_options(block: Mapping[str, Any] | None, *, tower: str, **given: Any) -> BlockOptions:
    """Return the options of a tower's blocks.

    Args:
      block: `config.model.<tower>.block`: fields of `BlockOptions` that are not in `given`; None = the defaults.
      tower: name of the tower.
      **given: the fields that the tower sets itself.

    Raises:
      UserError: an unknown field, one that the tower sets itself, or a value out of its range.
    """
    return section(BlockOptions, block or {}, name=f"model.{tower}.block", tower=tower, **given)
