"""Several sources in one stream: which source a place of the run belongs to, by arithmetic."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ...base.errors import UserError

SLOTS = 2**16  # places of a period; a share of the mixture is a whole number of them


def shares(sizes: Mapping[str, int], *, weights: Mapping[str, float | None], temperature: float) -> dict[str, float]:
    """Return the share of each source, which sum to 1.

    With weights, shares are proportional to them. Without, to `size ** (1 / temperature)` (Conneau & Lample 2019,
    arXiv:1901.07291, section 3.1, with alpha = 1 / temperature): 1 = as large as the sources are, above 1 = closer to
    equal shares.

    >>> shares({"a": 900, "b": 100}, weights={"a": None, "b": None}, temperature=2.0)
    {'a': 0.75, 'b': 0.25}

    Args:
      sizes: number of clips of each source.
      weights: a weight for each source, or None for all of them.
      temperature: above 0; not used with weights.

    Raises:
      UserError: weights for some sources only, none above 0, or a temperature that is not above 0.
    """
    given = {name: weight for name, weight in weights.items() if weight is not None}
    if given and len(given) < len(weights):
        missing = next(name for name in weights if name not in given)
        raise UserError(
            f"config.data.mixture gives {next(iter(given))!r} a weight and {missing!r} none; "
            "give every source a weight, or none of them one (then config.data.temperature rules)"
        )
    for name, weight in given.items():
        if not (np.isfinite(weight) and weight > 0):
            raise UserError(f"config.data.mixture.{name}.weight={weight} must be above 0; leave the source out instead")
    if not (np.isfinite(temperature) and temperature > 0):
        raise UserError(f"temperature={temperature} must be above 0; set config.data.temperature to 1 or more")
    raw = {name: float(given[name] if given else size ** (1 / temperature)) for name, size in sizes.items()}
    total = sum(raw.values())
    return {name: value / total for name, value in raw.items()}


@dataclasses.dataclass(frozen=True)
class Mixture:
    """A periodic pattern of sources, spread as evenly as their shares allow.

    Place u of the run lies in period `u // SLOTS`; the slot `u % SLOTS` says which source it belongs to and how many
    earlier places of the period did. So the n-th place of a source is known without walking there.

    Attributes:
      source: int32 [SLOTS], the source of each slot.
      rank: int64 [SLOTS], how many earlier slots have the same source.
      counts: int64 [sources], slots of each source.
    """

    source: np.ndarray
    rank: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[float], *, names: Sequence[str]) -> "Mixture":
        """Build from the shares of the sources, which sum to 1; they are kept to 1 in 2 * SLOTS.

        Raises:
          UserError: a share too small to have a slot.
        """
        counts = _largest_remainders(np.asarray(parts, np.float64))
        for name, count in zip(names, counts, strict=True):
            if count == 0:
                raise UserError(
                    f"the share of source {name!r} in config.data.mixture is below 1 in {2 * SLOTS:,}; "
                    "give it more weight, or leave it out"
                )
        # The j-th of a source's c slots is wanted at (j + 1/2) / c of the period.
        source = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        rank = np.concatenate([np.arange(count) for count in counts])
        order = np.lexsort((source, (rank + 0.5) / counts[source]))
        return cls(source=source[order], rank=rank[order], counts=counts)

    def at(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the source, int32 [m], and the number of that source's earlier places, int64 [m]."""
        period, slot = np.divmod(place, SLOTS)
        source = self.source[slot]
        return source, period * self.counts[source] + self.rank[slot]

    def before(self, place: int) -> np.ndarray:
        """Return how many of the places 0 ... place - 1 each source has, int64 [sources]."""
        period, slot = divmod(place, SLOTS)
        return period * self.counts + np.bincount(self.source[:slot], minlength=len(self.counts))


def _largest_remainders(parts: np.ndarray) -> np.ndarray:
    """Round shares to slots so that they add up (method of largest remainders)."""
    exact = parts * SLOTS
    counts = np.floor(exact).astype(np.int64)
    most = np.argsort(counts - exact, kind="stable")[: SLOTS - int(counts.sum())]
    counts[most] += 1
    return counts
