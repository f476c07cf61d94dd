"""Wrong captions of a record (`meta.foils` of the manifest) as negatives in training. No tensorflow."""

from collections.abc import Mapping, Sequence

import numpy as np

from ...base.errors import UserError
from .draws import share_of
from .table import Table


def draw_foils(foils: Mapping[str, str], *, count: int, weights: Mapping[str, float], numbers: np.ndarray) -> list[str]:
    """Draw different foils of a record, each with a chance that grows with its weight.

    Args:
      foils: what is changed -> the caption with that change.
      count: how many are wanted.
      weights: what is changed -> its weight, 0 where it is not named; {} = 1 for all.
      numbers: uint64 random numbers, at least one for each foil.

    Returns:
      `count` captions, "" where there are no more.
    """
    levels = np.log(share_of(numbers) + 2.0**-54).tolist()
    # The highest u ** (1 / weight) win: weighted sampling without replacement (Efraimidis & Spirakis 2006).
    keys = [
        (level / weight, text)
        for level, (name, text) in zip(levels, sorted(foils.items()), strict=False)
        if (weight := weights.get(name, 0.0) if weights else 1.0) > 0
    ]
    drawn = [text for _, text in sorted(keys, reverse=True)[:count]]
    return drawn + [""] * (count - len(drawn))


def check_foils(sources: Sequence[Table], *, weights: Mapping[str, float]) -> None:
    """Raise UserError unless a record has a foil that can be drawn.

    Args:
      sources: the rows of each source.
      weights: see `draw_foils`.
    """
    found = {name for rows in sources for name in rows.summary.foils}
    if not found:
        raise UserError(
            "config.data.foils_per_clip is above 0, but the records have no foils; give the manifest's clips wrong "
            'captions, as in `"meta": {"foils": {"colour": "a red disc falls"}}`, and run `twinreel prepare` again, or '
            "set config.data.foils_per_clip=0"
        )
    if weights and not any(weights.get(name, 0) > 0 for name in found):
        names = ", ".join(sorted(found))
        raise UserError(f"config.data.foil_weights={dict(weights)} names none of the foils of the records: {names}")
