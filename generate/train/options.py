"""What the losses of both stages take: `config.loss`."""

import dataclasses

from ...base.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossOptions:
    """`config.loss`.

    Attributes:
      kl: weight of the divergence of the latents from a normal distribution, in the loss of the autoencoder.
      adversarial: weight of a critic's judgement of its frames (`models.critic`); 0 = there is no critic.
      drop_condition: share of the rows, at least 0 and below 1, that are trained without a condition; guidance needs
        some.
      time_mean: mean of the normal numbers whose logistic function is the time of a row; below 0 more rows have
        much noise.
      time_spread: their deviation; 1 = as Esser et al.
    """

    kl: float = 1e-3
    adversarial: float = 0.0
    drop_condition: float = 0.1
    time_mean: float = 0.0
    time_spread: float = 1.0

    def __post_init__(self):
        for field in ("kl", "adversarial"):
            if not 0 <= getattr(self, field) < float("inf"):
                raise UserError(f"config.loss.{field} must be a weight of at least 0, got {getattr(self, field)}")
        if not 0 <= self.drop_condition < 1:
            raise UserError(f"config.loss.drop_condition must be at least 0 and below 1, got {self.drop_condition}")
        if not 0 < self.time_spread < float("inf"):
            raise UserError(f"config.loss.time_spread must be above 0, got {self.time_spread}")
        if not abs(self.time_mean) < 10:
            raise UserError(f"config.loss.time_mean must be between -10 and 10, got {self.time_mean}")
