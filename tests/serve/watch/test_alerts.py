"""Alerts against a plain loop over the whole series of scores."""

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.serve.watch.alerts import AlertOptions, Trigger


def by_loop(scores, *, on, off, least, pause):
    """For each start, look ahead: the definition, without a state machine."""
    found, place, quiet = [], 0, -np.inf
    while place < len(scores):
        if scores[place] < on or place < quiet:
            place += 1
            continue
        end = next((i for i in range(place, len(scores)) if scores[i] < off), len(scores))
        if end - place > least:
            found.append((place + least, "on"))
            if end < len(scores):
                found.append((end, "off"))
                quiet = end + pause
        place = end + 1
    return found


@pytest.mark.parametrize(("least", "pause"), [(0, 0), (2, 0), (0, 5), (3, 4)])
def test_alerts_are_those_of_the_definition(least, pause):
    rng = np.random.default_rng(least + 10 * pause)
    for _ in range(50):
        scores = np.clip(0.5 + np.cumsum(rng.normal(0, 0.15, 60)), 0, 1)
        trigger = Trigger(AlertOptions(on=0.6, off=0.4, min_s=least, cooldown_s=pause))
        found = [(i, changed) for i, one in enumerate(scores) if (changed := trigger.update(one, time_s=float(i)))]
        assert found == by_loop(scores, on=0.6, off=0.4, least=least, pause=pause)


def test_bad_thresholds():
    with pytest.raises(UserError, match=r"--off is 0\.6 and --on 0\.5"):
        AlertOptions(on=0.5, off=0.6)
    with pytest.raises(UserError, match="--min_s is -1"):
        AlertOptions(on=0.5, off=0.4, min_s=-1)
