"""Random numbers as functions of (seed, epoch, source, record): nothing is kept between calls."""

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniforms(*, seed: int, epoch: int, source: int, record: int, count: int) -> np.ndarray:
    """Return float32 [count] in [0, 1): the random numbers of a record in an epoch of a run.

    The generator is Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") with these four as key.

    Args:
      seed: of the run, 0 to 2**31 - 1.
      epoch: 0 to 2**32 - 1.
      source: place of the source in the mixture, 0 to 2**16 - 1.
      record: index in its split, 0 to 2**48 - 1.
      count: how many.
    """
    key = np.array([(seed << 32) | epoch, (source << 48) | record], np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(count, np.float32)


def numbers(*, seed: int, epoch: np.ndarray, source: np.ndarray, record: np.ndarray, what: int) -> np.ndarray:
    """Return uint64 [m], one hash per row: SplitMix64's finalizer (Steele et al. 2014) over the four and `what`.

    Args:
      seed: of the run.
      epoch: int64 [m].
      source: int [m].
      record: int64 [m].
      what: number of the choice, which distinguishes several choices for one row.
    """
    state = np.full(len(record), seed, np.uint64)
    with np.errstate(over="ignore"):
        for part in (epoch, source, record, np.full(len(record), what)):
            state = _mix(state * _GOLDEN + part.astype(np.uint64) + np.uint64(1))
    return state


def below(bound: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return int32 [m] in [0, bound) from hashes uint64 [m]; -1 where the bound is 0."""
    return np.where(bound > 0, np.minimum((share_of(number) * bound).astype(np.int32), bound - 1), -1).astype(np.int32)


def share_of(number: np.ndarray) -> np.ndarray:
    """Return float64 [m] in [0, 1) from hashes uint64 [m]."""
    return (number >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
