"""When a score becomes an alert: two thresholds, a least duration, and a pause after each alert."""

import dataclasses

from ...base.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlertOptions:
    """When an alert begins and ends.

    Attributes:
      on: score from which it may begin.
      off: score below which it ends; between the two nothing changes (hysteresis).
      min_s: seconds that the score must stay, from a window with `on` or more, without falling below `off`.
      cooldown_s: seconds after its end in which it does not begin again.
    """

    on: float
    off: float
    min_s: float = 0.0
    cooldown_s: float = 0.0

    def __post_init__(self):
        if not self.off <= self.on:
            raise UserError(f"--off is {self.off:g} and --on {self.on:g}; wanted an end at or below the beginning")
        if not (self.min_s >= 0 and self.cooldown_s >= 0):
            raise UserError(f"--min_s is {self.min_s:g} and --cooldown_s {self.cooldown_s:g}; wanted seconds from 0")


class Trigger:
    """The state of one alert.

    Attributes:
      active: whether it is on.
      began_s: time of the first window of the alert that is on, or may become so; None = there is none.
      peak: highest score since then.

    >>> trigger = Trigger(AlertOptions(on=0.6, off=0.4, min_s=1.0))
    >>> [trigger.update(score, time_s=i) for i, score in enumerate([0.7, 0.5, 0.5, 0.3])]
    ['', 'on', '', 'off']
    """

    def __init__(self, options: AlertOptions):
        self._options = options
        self._quiet_until = float("-inf")
        self.active = False
        self.began_s: float | None = None
        self.peak = float("-inf")

    def update(self, score: float, *, time_s: float) -> str:
        """Take the score of the next window; return "on" or "off" where the alert changes, else ""."""
        options = self._options
        if score < options.off:
            ended, self.active, self.began_s = self.active, False, None
            if ended:
                self._quiet_until = time_s + options.cooldown_s
            return "off" if ended else ""
        if self.began_s is None:
            if score < options.on or time_s < self._quiet_until:
                return ""
            self.began_s, self.peak = time_s, score
        self.peak = max(self.peak, score)
        if not self.active and time_s - self.began_s >= options.min_s:
            self.active = True
            return "on"
        return ""
