"""`config.task` for the verification of identity."""

import dataclasses

from ...base.errors import UserError, unknown
from ...losses.margins import MARGINS
from ...models.heads.embedding import POOLS
from ..examples.identities import IdentityOptions
from ..kinds.task import TowerOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdentifyOptions(IdentityOptions, TowerOptions):
    """`config.task` for the verification of identity; the fields of the bases belong to it.

    Attributes:
      name: "identify".
      pairs: JSON lines with the pairs that are reported on, `{"first", "second", "same"}` with two clip ids of the test
        split; "" = all pairs.
      most_pairs: of all pairs, at most so many are compared, a random choice of each kind.
      loss: where the margin is, one of `losses.margins.MARGINS`.
      margin: of the loss, in radians of "arcface".
      scale: factor on the cosines in the loss.
      embed_dim: E.
      pool: one of `models.heads.embedding.POOLS`.
      heads: attention heads of the pooling; divides the width of the video tower.
      positions: the pooling knows the place in time of each token.
      hidden: width of a layer before the embedding; 0 = none.
      dropout: rate on the pooled vector.
    """

    name: str = "identify"
    pairs: str = ""
    most_pairs: int = 1_000_000
    loss: str = "arcface"
    margin: float = 0.5
    scale: float = 30.0
    embed_dim: int = 128
    pool: str = "attentive"
    heads: int = 4
    positions: bool = False
    hidden: int = 0
    dropout: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        for field, known in (("loss", MARGINS), ("pool", POOLS)):
            if getattr(self, field) not in known:
                raise unknown(f"config.task.{field}:", getattr(self, field), known)
        if not 0 <= self.dropout < 1:
            raise UserError(f"config.task.dropout must be at least 0 and below 1, got {self.dropout}")
        for field, least in (("most_pairs", 2), ("embed_dim", 2), ("hidden", 0)):
            if getattr(self, field) < least:
                raise UserError(f"config.task.{field} must be at least {least}, got {getattr(self, field)}")
        if not 0 <= self.margin < 1.5 or self.scale <= 0:
            raise UserError(
                f"config.task.margin={self.margin:g} must be from 0 to 1.5 (0.5 is usual of arcface, 0.35 of cosface), "
                f"and config.task.scale={self.scale:g} above 0"
            )
