"""The condition of a generator: a text read by an encoder of its own, or an embedding of a frozen dual tower."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ...base.errors import UserError, unknown
from ...base.section import section
from ...models.layers.draws import RowKeys
from ...models.shapes import Text, TextMask, Video
from ...models.towers.transformer import TextTower
from ...zoo.build import build
from ...zoo.spec import ModelSpec


class Cue(NamedTuple):
    """The condition of a clip.

    Attributes:
      tokens: `[B,M,E]`, for cross-attention.
      mask: bool `[B,M]`, True where a token is real.
      vector: `[B,E]`, for adaptive norms.
    """

    tokens: Float[Array, "B M E"]
    mask: Bool[Array, "B M"]
    vector: Float[Array, "B E"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextOptions:
    """`config.condition` of kind "text": a transformer over the words, trained together with the flow.

    Attributes:
      width: E.
      depth: blocks.
      heads: attention heads.
      dropout: rate on the residual branches.
      dtype: compute dtype, float32 or bfloat16.
    """

    width: int = 256
    depth: int = 4
    heads: int = 4
    dropout: float = 0.0
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerOptions:
    """`config.condition` of kind "tower": the embedding of a frozen dual tower, of a text or of a clip.

    Attributes:
      source: a bundle, a run or public weights, as `twinreel.load` takes them.
      clips: share of the training rows, 0..1, whose condition is the embedding of the clip itself, not of its caption.
    """

    source: str
    clips: float = 0.5

    def __post_init__(self):
        if not self.source:
            raise UserError("config.condition.source is empty; name a dual tower: a bundle, a run or public weights")
        if not 0 <= self.clips <= 1:
            raise UserError(f"config.condition.clips must be a share from 0 to 1, got {self.clips}")


KINDS: dict[str, type] = {"text": TextOptions, "tower": TowerOptions}
"""Kind of a condition -> its options."""


def condition_options(config: Mapping[str, Any]) -> TextOptions | TowerOptions:
    """Read `config.condition`.

    Raises:
      UserError: an unknown kind or field, or a value out of its range.
    """
    fields = dict(config)
    kind = fields.pop("kind", "")
    if kind not in KINDS:
        raise unknown("kind in config.condition.kind", str(kind), KINDS)
    return section(KINDS[kind], fields, name="condition")


class TextCondition(nnx.Module):
    """A text encoder whose words the flow attends to.

    Positions are sinusoids as large as the embeddings: the order of the words shows from the first step.

    Attributes:
      width: E.
    """

    def __init__(self, options: TextOptions, *, vocab_size: int, context_length: int, rngs: nnx.Rngs):
        """Build the encoder."""
        given: dict[str, Any] = dataclasses.asdict(options) | {
            "vocab_size": vocab_size,
            "context_length": context_length,
        }
        self.text = TextTower(**given, position="sinusoids", scale_embedding=True, rngs=rngs)
        self.nothing = nnx.Param(jnp.zeros((options.width,), jnp.float32))
        self.width = options.width

    def of_text(self, text: Text, *, mask: TextMask, keys: RowKeys | None = None) -> Cue:
        """Read token ids; `keys` turns dropout on."""
        vector, tokens = self.text.vector_and_tokens(text, mask=mask, keys=keys)
        return Cue(tokens, mask, vector)

    def of_video(self, video: Video) -> Cue:
        """Refuse: the encoder reads words only."""
        del video
        raise UserError(
            "this generator is conditioned on texts alone; train one with config.condition.kind='tower' to condition "
            "it on the embedding of a clip"
        )


class TowerCondition(nnx.Module):
    """Embeddings of a dual tower, which is frozen, as one token.

    A learned offset tells embeddings of texts from those of clips: the two lie apart in the joint space (Liang et al.
    2022, arXiv:2203.02053).

    Attributes:
      width: E.
    """

    def __init__(self, spec: ModelSpec, *, rngs: nnx.Rngs):
        """Build the tower, whose parameters are filled in later."""
        if spec.embed_dim is None:
            raise UserError(
                "config.condition.source is a model without a joint space; name a dual tower (`twinreel pretrain`)"
            )
        self.tower, self.width = build(spec, rngs=rngs), spec.embed_dim
        self.side = nnx.Param(jnp.zeros((2, self.width), jnp.float32))
        self.nothing = nnx.Param(jnp.zeros((self.width,), jnp.float32))

    def of_text(self, text: Text, *, mask: TextMask, keys: RowKeys | None = None) -> Cue:
        """Embed token ids; nothing is random in a frozen tower."""
        del keys
        return self._cue(self.tower.encode_text(text, mask=mask), side=0)

    def of_video(self, video: Video) -> Cue:
        """Embed clips."""
        return self._cue(self.tower.encode_video(video, drop_patches=False), side=1)

    def _cue(self, embedding: Float[Array, "B E"], *, side: int) -> Cue:
        vector = embedding * self.width**0.5 + self.side[side][None]
        return Cue(vector[:, None], jnp.ones((len(vector), 1), bool), vector)


def without(cue: Cue, *, nothing: Float[Array, "E"], rows: Bool[Array, "B"]) -> Cue:
    """Return the cue that is dropped in `rows`: a learned vector replaces every token."""
    return cue._replace(
        tokens=jnp.where(rows[:, None, None], nothing[None, None].astype(cue.tokens.dtype), cue.tokens),
        vector=jnp.where(rows[:, None], nothing[None], cue.vector),
    )


def either(rows: Bool[Array, "B"], *, cue: Cue, other: Cue) -> Cue:
    """Return `cue` where `rows` holds and `other` elsewhere; both have as many tokens."""
    return Cue(
        jnp.where(rows[:, None, None], cue.tokens, other.tokens),
        jnp.where(rows[:, None], cue.mask, other.mask),
        jnp.where(rows[:, None], cue.vector, other.vector),
    )
