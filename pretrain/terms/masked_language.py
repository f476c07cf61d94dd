"""Masked language modelling with a clip: hidden tokens of a text are found from the others and from the clip."""

import dataclasses
from collections.abc import Collection
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from ...base.errors import UserError
from ...engine.sharding.mesh import BATCH_AXES
from ...engine.step.grad_cache import Rows
from ...losses.vocabulary import token_losses
from ...models.dual import DualTower
from ...models.heads.masked_language import MaskedLanguageHead
from ...models.heads.sides import Clips
from ...models.layers.draws import RowKeys, fold, folded, is_frozen
from ...models.shapes import Scalar, Text, TextMask
from ...models.towers.transformer import HiddenTokens, TextTower
from ...zoo.spec import ModelSpec
from .interface import Seen, TermOptions

_TOWER, _HEAD, _TOKENS, _CLIPS = range(4)  # numbers of the draws
_HIDDEN, _RANDOM = 0.8, 0.1  # of the chosen tokens (Devlin et al. 2019, section 3.1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedLanguageOptions(TermOptions):
    """`config.loss.terms.masked_language`.

    Attributes:
      rate: share of a text's tokens that are to be found, special tokens and padding apart; at least one.
      without_video: share of the rows whose text is read without its clip. They train the head for texts alone, so that
        the two accuracies that are logged differ by what the clip adds.
    """

    rate: float = 0.15
    without_video: float = 0.25

    def __post_init__(self):
        super().__post_init__()
        for name, value, most in (("rate", self.rate, self.rate > 0), ("without_video", self.without_video, True)):
            if not 0 <= value < 1 or not most:
                low = "above 0" if name == "rate" else "at least 0"
                raise UserError(f"config.loss.terms.masked_language.{name} must be {low} and below 1, got {value}")


class MaskedText(NamedTuple):
    """A text of which some tokens are to be found.

    Attributes:
      text: int32 `[B,L]`, with random tokens in place of some.
      hidden: bool `[B,L]`, tokens that the tower does not see at all.
      places: int32 `[B,K]`, of the tokens to be found.
      wanted: int32 `[B,K]`, these tokens.
      real: bool `[B,K]`; False fills up rows with fewer of them.
    """

    text: Int[Array, "B L"]
    hidden: Bool[Array, "B L"]
    places: Int[Array, "B K"]
    wanted: Int[Array, "B K"]
    real: Bool[Array, "B K"]


def check_masked_language(options: MaskedLanguageOptions, spec: ModelSpec) -> None:
    """Raise UserError for a text tower whose tokens do not see those after them, or that cannot hide any."""
    del options
    tower, field = spec.towers.get("text") or {}, "config.loss.terms.masked_language"
    if tower.get("family") != "transformer":
        raise UserError(
            f"{field} needs a text tower of the family 'transformer', got {tower.get('family')!r}; change "
            "config.model.text.family, or leave the term and its head out"
        )
    if tower.get("causal"):
        raise UserError(
            f"{field} needs a text tower whose tokens see those after them, but config.model.text.causal=True (as in "
            "CLIP): a hidden token would be found from the words before it alone, which is what the captioning term "
            "trains; use config.loss.terms.captioning, or set causal=False for a new tower"
        )


def mask_tokens(
    text: Text, *, mask: TextMask, keys: RowKeys, rate: float, vocab_size: int, special: Collection[int] = ()
) -> MaskedText:
    """Choose the tokens of each text that are to be found, and hide them as BERT does.

    Devlin et al. 2019, section 3.1: `rate` of the tokens of a row are chosen, at least one; each of them is hidden with
    probability 0.8, replaced by a random token with 0.1, and left as it is otherwise.

    Args:
      text: token ids.
      mask: True where a token is real.
      keys: one for each row.
      rate: 0 < rate < 1.
      vocab_size: V.
      special: ids that are never chosen, and never put in place of others.
    """
    most = max(1, round(rate * text.shape[1]))
    allowed = np.setdiff1d(np.arange(vocab_size), np.asarray(sorted(special), np.int64)).astype(np.int32)
    ordinary = mask & jnp.isin(text, jnp.asarray(allowed))

    def draw(key: Array, text: Array, ordinary: Array) -> MaskedText:
        order, kind, other = jax.random.split(key, 3)
        score = jnp.where(ordinary, jax.random.uniform(order, text.shape), jnp.float32(-1))
        places = jnp.argsort(-score).astype(jnp.int32)  # ordinary tokens first, in random order
        count = jnp.sum(ordinary, dtype=jnp.int32)
        take = jnp.round(jnp.float32(rate) * count.astype(jnp.float32)).astype(jnp.int32)
        take = jnp.minimum(jnp.clip(take, 1, most), count)
        chosen = jnp.argsort(places) < take
        how = jax.random.uniform(kind, text.shape)
        replaced = chosen & (how >= jnp.float32(_HIDDEN)) & (how < jnp.float32(_HIDDEN + _RANDOM))
        random = jnp.take(jnp.asarray(allowed), jax.random.randint(other, text.shape, 0, len(allowed)))
        hidden, places = chosen & (how < jnp.float32(_HIDDEN)), places[:most]
        changed = jnp.where(replaced, random, text)
        return MaskedText(changed, hidden, places, jnp.take(text, places), jnp.arange(most) < take)

    return jax.vmap(draw)(keys, text.astype(jnp.int32), ordinary)


def masked_language(seen: Seen, options: MaskedLanguageOptions) -> tuple[Scalar, dict[str, Scalar]]:
    """Return the mean negative log-likelihood of the hidden tokens of the valid rows, nats, and two accuracies.

    Devlin et al. 2019 (BERT); Li et al. 2021 (ALBEF, section 3.2); Fu et al. 2021 (VIOLET). The text tower reads the
    changed texts in a second pass, in the parts of `config.loss.microbatch`. `with_video` is the accuracy over rows
    whose clip the head sees, `without_video` over the others; 0 where the batch has none.
    """
    table = seen.model.text.embedding.shape[0]
    text, mask, draws = seen.batch["text"], seen.batch["text_mask"], seen.draws()
    rules = {"rate": options.rate, "vocab_size": table, "special": seen.special_ids}
    masked = mask_tokens(text, mask=mask, keys=folded(draws, _TOKENS), **rules)
    number = jax.vmap(jax.random.uniform)(folded(draws, _CLIPS))
    shown = number >= jnp.float32(options.without_video)

    def compute(model: DualTower, rows: Rows) -> Rows:
        assert model.heads is not None
        tower, head, keys = model.text, model.heads["masked_language"], rows.get("keys")
        assert isinstance(head, MaskedLanguageHead) and isinstance(tower, TextTower)
        hidden = HiddenTokens(rows["hidden"], head.token[0])
        own = None if is_frozen(tower) else fold(keys, _TOWER)
        words = tower.tokens(rows["text"], mask=rows["mask"], keys=own, hidden=hidden)
        clips = Clips(rows["tokens"], rows["frames"], rows.get("times"))
        how = {"clips": clips, "seen": rows["shown"], "keys": fold(keys, _HEAD)}
        states = head(words, mask=rows["mask"], places=rows["places"], **how)
        table = tower.embedding[...]
        scores = {"logits": lambda x: head.logits(x, table=table), "axes": BATCH_AXES}
        loss, right = token_losses(states, wanted=rows["wanted"], **scores)
        return {"loss": loss, "right": right}

    clips = {"tokens": seen.clips.tokens, "frames": seen.clips.frames, "times": seen.clips.mask}
    found = seen.by_rows(compute, **masked._asdict(), **clips, mask=mask, shown=shown, keys=seen.keys)
    real = masked.real & seen.valid[:, None]
    loss = _mean(found["loss"], over=real)
    right = found["right"].astype(jnp.float32)
    hits = {"with_video": _mean(right, over=real & shown[:, None])}
    return loss, hits | {"without_video": _mean(right, over=real & ~shown[:, None])}


def _mean(x: Array, *, over: Bool[Array, "B K"]) -> Scalar:
    count = jnp.maximum(jnp.sum(over, dtype=jnp.float32), jnp.float32(1))
    return jnp.sum(jnp.where(over, x, jnp.float32(0))) / count
