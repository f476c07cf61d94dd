"""The captioning term: the decoder writes each clip's text (CoCa, Yu et al. 2022)."""

import dataclasses

import jax.numpy as jnp

from ...base.errors import UserError
from ...losses.captioning import next_token_loss
from ...models.heads.captioning import CaptionDecoder
from ...models.shapes import Scalar
from .interface import Seen, TermOptions


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
    """Return the mean negative log-likelihood of all tokens of the valid rows' texts, nats."""
    assert seen.model.heads is not None
    head = seen.model.heads["captioning"]
    assert isinstance(head, CaptionDecoder)
    logits, text, mask = head(seen.texts, clips=seen.clips, keys=seen.keys)
    loss, count = next_token_loss(logits, text=text, mask=mask, smoothing=options.label_smoothing)
    count = jnp.where(seen.valid, count, 0).sum().astype(jnp.float32)
    return jnp.where(seen.valid, loss, jnp.float32(0)).sum() / jnp.maximum(count, jnp.float32(1)), {}
