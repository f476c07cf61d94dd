"""Learning curves of ways to choose clips, simulated on clips whose labels are known."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from ...evaluate.measures.multilabel import mean_average_precision
from ...evaluate.protocols.probe_data import ProbeSet
from ...evaluate.protocols.probe_linear import SOURCE, WITHOUT_VALIDATION, linear_probe
from .selection import WAYS, SelectOptions, scaled, select_clips


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurveOptions:
    """How a learning curve is simulated.

    Attributes:
      start: clips that are labelled at random at the beginning.
      rounds: how often clips are chosen and labelled then.
      draws: times that all of this is done, with other clips at the beginning.
      ways: what is compared.
      select: how many clips are chosen in a round, and with which candidates; its `by` is not used.
    """

    start: int
    rounds: int = 6
    draws: int = 5
    ways: tuple[str, ...] = WAYS
    select: SelectOptions

    def __post_init__(self):
        for name, least in (("start", 2), ("rounds", 1), ("draws", 1)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} must be at least {least}, got {getattr(self, name)}")


def learning_curves(
    pool: ProbeSet, *, test: ProbeSet, several: bool, options: CurveOptions, tick: Callable[[], None]
) -> dict[str, Any]:
    """Label clips of a pool round by round, and measure a linear probe on the test clips after each.

    In each draw all ways begin with the same clips. Predictions come from the probe itself, trained on the clips that
    are labelled by then, with a fixed regularisation (there are no validation clips) on features that are `scaled`.

    Args:
      pool: clips with known labels, to be chosen from.
      test: is measured.
      several: clips may have several classes; the figure is mAP, else accuracy.
      options: how.
      tick: called after each probe; there are `draws * ways * (rounds + 1)`.

    Returns:
      JSON values: `figure` ("accuracy" or "mAP", percent), `labelled` (clips, of each round), `values` by way: for each
      round those of all draws; `against_random`, by way, the mean over draws of the difference from random choice, over
      all rounds after the first, and its standard error; `probe`.

    Raises:
      UserError: more clips are asked for than there are.
    """
    budget = options.select.budget
    wanted = options.start + options.rounds * budget
    if wanted > len(pool):
        raise UserError(
            f"the curve wants {wanted:,} labelled clips (--start {options.start} and --rounds {options.rounds} of "
            f"--budget {budget}), and there are {len(pool):,}; lower one of them"
        )
    both = scaled(np.concatenate([pool.features, test.features]))
    pool, test = (
        dataclasses.replace(one, features=own)
        for one, own in zip((pool, test), np.split(both, [len(pool)]), strict=True)
    )
    values: dict[str, list[list[float]]] = {way: [[] for _ in range(options.rounds + 1)] for way in options.ways}
    for draw in range(options.draws):
        first = _first(pool, start=options.start, seed=options.select.seed, draw=draw)
        for way in options.ways:
            found = _one(pool, test=test, several=several, options=options, way=way, first=first, draw=draw, tick=tick)
            for number, value in enumerate(found):
                values[way][number].append(value)
    return {
        "figure": "mAP" if several else "accuracy",
        "labelled": [options.start + number * budget for number in range(options.rounds + 1)],
        "values": values,
        "against_random": {way: _gain(values, way=way) for way in options.ways if way != "random"}
        if "random" in options.ways
        else {},
        "draws": options.draws,
        "pool": len(pool),
        "test_clips": len(test),
        "probe": f"logistic regression, C {10.0**WITHOUT_VALIDATION:.3g}; {SOURCE}",
    }


def _first(pool: ProbeSet, *, start: int, seed: int, draw: int) -> np.ndarray:
    """Draw clips at random, anew until there are two classes or more: a probe could not be trained on one."""
    generator = np.random.Generator(np.random.Philox(key=np.array((seed, draw), np.uint64)))
    for _ in range(1000):
        labelled = np.zeros(len(pool), bool)
        labelled[generator.permutation(len(pool))[:start]] = True
        targets = pool.targets[labelled]
        if (targets.any(axis=0) & ~targets.all(axis=0)).any():
            return labelled
    raise UserError(f"--start {start} clips of the pool are always of one class; raise it")


def _one(
    pool: ProbeSet,
    *,
    test: ProbeSet,
    several: bool,
    options: CurveOptions,
    way: str,
    first: np.ndarray,
    draw: int,
    tick: Callable[[], None],
) -> Sequence[float]:
    labelled, found = first, []
    for number in range(options.rounds + 1):
        scores = _scores(pool, test=test, several=several, labelled=labelled)
        found.append(_figure(scores[: len(test)], targets=test.targets, several=several))
        tick()
        if number == options.rounds:
            break
        seed = options.select.seed + 1000 * draw + number
        how = dataclasses.replace(options.select, by=way, seed=seed)
        chosen = select_clips(
            pool.features, probability=scores[len(test) :], labelled=labelled, options=how, several=several
        )
        labelled = labelled.copy()
        labelled[chosen.index] = True
    return found


def _scores(pool: ProbeSet, *, test: ProbeSet, several: bool, labelled: np.ndarray) -> np.ndarray:
    """Train on the labelled clips; returns the probabilities of the test clips, then those of the pool."""
    both = test.with_others(pool)
    probe = linear_probe(
        pool.take(np.flatnonzero(labelled)), validation=None, test=both, several=several, join=False, say=lambda _: None
    )
    return probe.scores


def _figure(scores: np.ndarray, *, targets: np.ndarray, several: bool) -> float:
    if several:
        return float(mean_average_precision(scores, targets=targets)["mAP"])
    return 100 * float(targets[np.arange(len(scores)), scores.argmax(axis=1)].mean())


def _gain(values: dict[str, list[list[float]]], *, way: str) -> dict[str, float]:
    """Return mean and standard error over draws of the difference from random choice, averaged over rounds."""
    apart = np.array(values[way][1:]) - np.array(values["random"][1:])  # [rounds, draws]
    each = apart.mean(axis=0)
    error = float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else float("nan")
    return {"mean": float(each.mean()), "standard_error": error if np.isfinite(error) else 0.0}
