"""What a term of the pretraining loss is, and what it sees of a batch."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx
from jaxtyping import Array, Bool, Key, UInt

from ...base.errors import UserError
from ...engine.step.grad_cache import Rows, in_parts
from ...models.dual import DualTower
from ...models.heads.sides import Clips, Texts
from ...models.layers.draws import RowKeys, row_keys
from ...models.shapes import Scalar
from ...zoo.spec import ModelSpec
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
      batch: the arrays of the batch, for terms that encode it in their own way.
      special_ids: ids of the tokens that stand for no part of a text.
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
    batch: dict[str, Array]
    special_ids: tuple[int, ...] = ()

    def by_rows(self, compute: Callable[[DualTower, Rows], Rows], **rows: Array | None) -> Rows:
        """Return `compute(model, rows)` of the batch in `config.loss.microbatch` parts, one after another.

        Args:
          compute: what it gives for a row must depend on that row alone.
          **rows: arrays `[B,...]`; those that are None are left out.
        """
        graph, state = nnx.split(self.model)

        def part(rows: Rows) -> Rows:
            return compute(nnx.merge(graph, state), rows)

        given = {name: x for name, x in rows.items() if x is not None}
        return in_parts(part, rows=given, parts=self.loss.microbatch, again=self.loss.grad_cache)

    def draws(self) -> RowKeys:
        """Return keys for what a term draws even where nothing is random: then the same in every step."""
        return row_keys(jax.random.key(0), rows=self.valid.shape[0]) if self.keys is None else self.keys


class Term(NamedTuple):
    """A row of the table of terms.

    Attributes:
      options: class of its section in `config.loss.terms`.
      loss: (seen, options) -> the loss in nats over the valid rows, and metrics by their names.
      head: the head in `config.model.heads` that it trains.
      check: (options, spec) -> raises UserError for a model that the term does not go with.
      optional: whether the term does without the head.
    """

    options: type[TermOptions]
    loss: Callable[[Seen, Any], tuple[Scalar, dict[str, Scalar]]]
    head: str
    check: Callable[[Any, ModelSpec], None] = lambda options, spec: None
    optional: bool = False
