"""`config.task` for the verification of identity."""

import dataclasses

from ...base.errors import UserError, unknown
from ...losses.margins import MARGINS
from ...models.heads.embedding import POOLS
from ..examples.targets import check_target
from ..kinds.task import TowerOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdentifyOptions(TowerOptions):
    """`config.task` for the verification of identity; the fields of the base belong to it.

    Attributes:
      name: "identify".
      identity: where it stands: "labels" for a clip's first label, or "meta.NAME" for a field of its meta.
      min_count: clips that an identity of training needs.
      val_split: split to validate on during training; "" = none.
      holdout: share of the identities of the train split to validate on where there is no validation split; 0 = do not
        validate.
      test_split: split that is reported on; "" for the validation clips.
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
    identity: str = "labels"
    min_count: int = 2
    val_split: str = "val"
    holdout: float = 0.1
    test_split: str = "test"
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
        for field, known in (("loss", MARGINS), ("pool", POOLS)):
            if getattr(self, field) not in known:
                raise unknown(f"config.task.{field}:", getattr(self, field), known)
        try:
            check_target(self.identity)
        except UserError as error:
            raise UserError(str(error).replace("config.task.target", "config.task.identity")) from error
        for field in ("holdout", "dropout"):
            if not 0 <= getattr(self, field) < 1:
                raise UserError(f"config.task.{field} must be at least 0 and below 1, got {getattr(self, field)}")
        for field, least in (("min_count", 1), ("most_pairs", 2), ("embed_dim", 2), ("hidden", 0)):
            if getattr(self, field) < least:
                raise UserError(f"config.task.{field} must be at least {least}, got {getattr(self, field)}")
        if not 0 <= self.margin < 1.5 or self.scale <= 0:
            raise UserError(
                f"config.task.margin={self.margin:g} must be from 0 to 1.5 (0.5 is usual of arcface, 0.35 of cosface), "
                f"and config.task.scale={self.scale:g} above 0"
            )
