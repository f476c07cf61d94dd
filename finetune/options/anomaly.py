"""`config.task` for anomalies."""

import dataclasses

from ...base.errors import UserError, unknown
from ...losses.bags import KINDS
from ...models.heads.steps import HIDDEN
from ..examples.splits import LabelOptions
from ..kinds.task import TowerOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnomalyOptions(LabelOptions, TowerOptions):
    """`config.task` for anomalies; the fields of the bases belong to it.

    Attributes:
      name: of the task.
      normal: labels of films in which nothing is abnormal; all other labels are abnormal.
      loss: what is ranked, one of `losses.bags.KINDS`.
      top_k: time steps that speak for a film.
      margin: by which abnormal films are to exceed normal ones.
      ranking_weight: of the ranking loss beside the cross-entropy of films; with loss="ranking" there is no other.
      smoothness: weight of the squared differences of neighbouring scores in abnormal films.
      sparsity: weight of the sum of scores in abnormal films.
      width: D of the head, a multiple of 4.
      dilations: of the convolutions over time steps; () = none.
      smooth: scores and magnitudes are means over so many time steps before and after each.
      dropout: rate in the head.
      threshold: score of the spans that `predict` gives.
    """

    name: str = "anomaly"
    normal: tuple[str, ...] = ("normal",)
    loss: str = "magnitude"
    top_k: int = 5
    margin: float = 1.0
    ranking_weight: float = 1.0
    smoothness: float = 8e-4
    sparsity: float = 8e-3
    width: int = 128
    dilations: tuple[int, ...] = (1, 2, 4)
    smooth: int = 2
    dropout: float = 0.3
    threshold: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        if self.loss not in KINDS:
            raise unknown("config.task.loss:", self.loss, KINDS)
        for field in ("dropout", "threshold"):
            if not 0 <= getattr(self, field) < 1:
                raise UserError(f"config.task.{field} must be at least 0 and below 1, got {getattr(self, field)}")
        for field in ("margin", "ranking_weight", "smoothness", "sparsity", "smooth"):
            if getattr(self, field) < 0:
                raise UserError(f"config.task.{field} must be at least 0, got {getattr(self, field)}")
        if self.width < HIDDEN or self.width % HIDDEN or min(self.dilations, default=1) < 1:
            raise UserError(
                f"config.task.width={self.width} must be a multiple of {HIDDEN}, and all of "
                f"config.task.dilations={list(self.dilations)} at least 1"
            )
