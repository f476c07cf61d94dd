"""The captioning term: the decoder writes each clip's text (CoCa, Yu et al. 2022)."""

import dataclasses
from typing import TYPE_CHECKING

import jax.numpy as jnp

from ...base.errors import UserError
from ...engine.sharding.mesh import BATCH_AXES
from ...engine.step.grad_cache import Rows
from ...losses.captioning import next_token_loss
from ...models.dual import DualTower
from ...models.heads.joint import Captions
from ...models.heads.language_model import LanguageModelDecoder
from ...models.heads.sides import Clips, Texts
from ...models.shapes import Scalar
from ...zoo.language_models import CAPTIONING, caption_tokenizer, is_language_model
from ...zoo.spec import ModelSpec
from .interface import Seen, TermOptions

if TYPE_CHECKING:
    from ...data.batches.targets import Targets
    from ...data.options import DataOptions

CAPTION = "caption_in"
"""Array of the batch: the caption of each row in the tokens of a language model that writes captions."""


_FURTHER = ("mask", "patches", "sound", "sound_mask")  # fields of `Clips` that may be None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptioningOptions(TermOptions):
    """`config.loss.terms.captioning`; CoCa's weight is 2.

    Attributes:
      label_smoothing: share of each target that is spread evenly over all tokens.
    """

    label_smoothing: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.label_smoothing < 1:
            raise UserError(
                "config.loss.terms.captioning.label_smoothing must be at least 0 and below 1, got "
                f"{self.label_smoothing}"
            )


def captioning(seen: Seen, options: CaptioningOptions) -> tuple[Scalar, dict[str, Scalar]]:
    """Return the mean negative log-likelihood of all tokens of the valid rows' texts, nats.

    The decoder reads the batch in the parts of `config.loss.microbatch`.
    """

    def compute(model: DualTower, rows: Rows) -> Rows:
        assert model.heads is not None
        head = model.heads["captioning"]
        assert isinstance(head, Captions)
        texts = Texts(rows["embedding"], mask=rows["text_mask"], ids=rows["ids"])
        clips = Clips(rows["tokens"], rows["frames"], **{key: rows.get(key) for key in _FURTHER})
        states, text, mask = head(texts, clips=clips, keys=rows.get("keys"))
        given = {"logits": head.decoder.logits, "smoothing": options.label_smoothing, "axes": BATCH_AXES}
        loss, count = next_token_loss(states, text=text, mask=mask, **given)
        return {"loss": loss, "count": count}

    texts, clips = seen.texts, seen.clips
    sides = {"embedding": texts.embedding, "ids": texts.ids, "text_mask": texts.mask}
    assert seen.model.heads is not None
    if isinstance(seen.model.heads["captioning"], LanguageModelDecoder):
        sides |= {"ids": seen.batch[CAPTION], "text_mask": seen.batch[f"{CAPTION}_mask"]}
    sides |= {"tokens": clips.tokens, "frames": clips.frames} | {key: getattr(clips, key) for key in _FURTHER}
    found = seen.by_rows(compute, **sides, keys=seen.keys)
    count = jnp.where(seen.valid, found["count"], 0).sum().astype(jnp.float32)
    loss = jnp.where(seen.valid, found["loss"], jnp.float32(0)).sum()
    return loss / jnp.maximum(count, jnp.float32(1)), {}


def caption_targets(data: "DataOptions", *, spec: ModelSpec) -> "Targets | None":
    """Return what batches bring besides for a language model that writes captions; None for other models.

    Args:
      data: `config.data`.
      spec: of the model.

    Raises:
      UserError: texts that are no captions.
    """
    head = spec.joint_heads.get(CAPTIONING)
    if head is None or not is_language_model(head):
        return None
    from ...data.batches.targets import Stream, Targets

    if data.feed.text_from != "captions":
        raise UserError(
            f"config.data.text_from={data.feed.text_from!r}: the language model of config.model.heads.{CAPTIONING} "
            "writes captions; set it to 'captions', or take the head of the kind 'decoder'"
        )
    length, tokenizer = data.input.context_length, caption_tokenizer(spec)
    return Targets(streams={CAPTION: Stream(source="caption", context_length=length, tokenizer=tokenizer)})
