"""What a term of the pretraining loss is, and what it sees of a batch."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Key, UInt

from ...base.errors import UserError
from ...models.dual import DualTower
from ...models.heads.sides import Clips, Texts
from ...models.shapes import Scalar
from ..loss_options import LossOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class TermOptions:
    """What every section of `config.loss.terms` has; a term adds its own fields.

    Attributes:
      weight: factor on the term in the loss; 0 turns it off.
    """

    weight: float = 1.0

    def __post_init__(self):
        if not 0 <= self.weight < float("inf"):
            raise UserError(f"a weight in config.loss.terms must be at least 0, got {self.weight}")


class Seen(NamedTuple):
    """What a term sees of a global batch; row i of the texts belongs to row i of the clips.

    Attributes:
      model: the towers, with the heads.
      texts: of all rows, with tokens.
      videos: float32 `[B,E]`, the embeddings of the clips.
      clips: of all rows.
      valid: rows that take part and have both a text and a clip.
      group: rows with equal numbers say the same, see `losses.infonce.text_group`; None = no two rows do.
      scale: the model's, read once for the whole loss.
      keys: one for each row, of this term; None = nothing is random.
      loss: `config.loss`.
    """

    model: DualTower
    texts: Texts
    videos: Array
    clips: Clips
    valid: Bool[Array, "B"]
    group: UInt[Array, "B G"] | None
    scale: Scalar
    keys: Key[Array, "B"] | None
    loss: LossOptions


class Term(NamedTuple):
    """A row of the table of terms.

    Attributes:
      options: class of its section in `config.loss.terms`.
      loss: (seen, options) -> the loss in nats over the valid rows, and metrics by their names.
      head: the head in `config.model.heads` that it trains.
    """

    options: type[TermOptions]
    loss: Callable[[Seen, Any], tuple[Scalar, dict[str, Scalar]]]
    head: str
