"""`config.task` for recommendation."""

import dataclasses

from ...base.errors import UserError, unknown
from ...models.heads.sequence import SESSIONS
from ..kinds.task import TowerOptions

TOKENS = ("mean", "joined")
"""How time tokens become a vector."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecommendOptions(TowerOptions):
    """`config.task` for recommendation; the fields of the base belong to it. The tower stays frozen.

    Attributes:
      name: "recommend".
      sessions: file of JSON lines or Parquet file, see `examples.sessions.read_sessions`.
      item_splits: splits of the data set whose clips can be recommended; () = all.
      val_share: share of the sessions to validate on where the file names no splits.
      test_share: likewise, to report on.
      tokens: how the time tokens of a clip become its vector: "mean", or "joined", side by side, which tells what
        belongs together in time.
      session: how a history becomes a vector, one of `models.heads.sequence.SESSIONS`.
      embed_dim: E.
      depth: layers of the session model.
      heads: attention heads; divides `embed_dim`.
      max_length: the latest items of a history that count.
      dropout: rate in the head.
      negatives: items drawn at random for each batch, besides those of the batch.
      correct_frequency: lower scores in the loss by how often an item stands in batches; the scores then learn how
        popular items are, as far as their content tells.
      k: places of the figures.
      exclude_seen: do not recommend what stands in the history.
    """

    name: str = "recommend"
    sessions: str = ""
    item_splits: tuple[str, ...] = ()
    val_share: float = 0.1
    test_share: float = 0.2
    tokens: str = "mean"
    session: str = "attention"
    embed_dim: int = 128
    depth: int = 2
    heads: int = 4
    max_length: int = 50
    dropout: float = 0.1
    negatives: int = 512
    correct_frequency: bool = True
    k: int = 10
    exclude_seen: bool = True

    def __post_init__(self):
        if self.session not in SESSIONS:
            raise unknown("config.task.session:", self.session, SESSIONS)
        if self.tokens not in TOKENS:
            raise unknown("config.task.tokens:", self.tokens, TOKENS)
        for field in ("val_share", "test_share", "dropout"):
            if not 0 <= getattr(self, field) < 1:
                raise UserError(f"config.task.{field} must be at least 0 and below 1, got {getattr(self, field)}")
        for field, least in (("embed_dim", 2), ("depth", 1), ("max_length", 1), ("negatives", 0), ("k", 1)):
            if getattr(self, field) < least:
                raise UserError(f"config.task.{field} must be at least {least}, got {getattr(self, field)}")
        if self.train_towers or self.trainable or not self.cache_features:
            raise UserError(
                "config.task.name='recommend' learns from the features of a frozen tower; set train_towers=False, "
                "trainable=() and cache_features=True, and tune the tower before (--init) if need be"
            )
