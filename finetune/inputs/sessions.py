"""The batches of sessions: histories as vectors of items, what comes next, and items drawn at random."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

Batch = dict[str, np.ndarray]


def session_batches(
    sessions: Sequence[np.ndarray],
    *,
    vectors: Callable[[], np.ndarray],
    batch_size: int,
    length: int,
    negatives: int,
    seed: int,
    start_step: int,
) -> Iterator[Batch]:
    """Yield this process's rows of the endless train batches from `start_step` on; all is a function of seed and step.

    An epoch has each session once, its order drawn anew. Of a session longer than `length` + 1 a part is drawn.

    Args:
      sessions: of each the numbers of its items, at least two.
      vectors: gives float32 [items,D], of the items; called with the first batch.
      batch_size: B, at most the number of sessions.
      length: L, items of a history at most.
      negatives: items drawn at random for the whole batch.
      seed: of the run.
      start_step: number of the first batch.

    Returns:
      An iterator of `item int32 [b,L+1]` (-1 where there is none) with `vectors float32 [b,L+1,D]`; `negative int32
      [b,n]` with `negative_vectors float32 [b,n,D]`; `log_frequency [b,L+1]` and `negative_log_frequency [b,n]`: the
      logarithm of how often each is expected among the candidates of a batch; `valid bool [b]`.
    """
    rows = vectors()
    frequency = _frequency(sessions, items=len(rows), batch_size=batch_size, length=length, negatives=negatives)
    share, extra = batch_size // jax.process_count(), -(-negatives // batch_size)
    mine = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
    per_epoch = len(sessions) // batch_size
    for step in itertools.count(start_step):
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng([seed, 0, epoch]).permutation(len(sessions))
        chosen = order[place * batch_size : (place + 1) * batch_size]
        rng = np.random.default_rng([seed, 1, step])
        item = np.full((batch_size, length + 1), -1, np.int32)
        for row, number in enumerate(chosen.tolist()):
            own = sessions[number]
            begin = int(rng.integers(max(1, len(own) - length)))
            part = own[begin : begin + length + 1]
            item[row, : len(part)] = part
        drawn = rng.integers(len(rows), size=(batch_size, extra)).astype(np.int32)
        item, drawn = item[mine], drawn[mine]
        there = item >= 0
        yield {
            "item": item,
            "vectors": np.where(there[..., None], rows[item], np.float32(0)),
            "negative": drawn,
            "negative_vectors": rows[drawn],
            "log_frequency": np.where(there, frequency[item], np.float32(0)),
            "negative_log_frequency": frequency[drawn],
            "valid": np.ones(len(item), bool),
        }


def _frequency(
    sessions: Sequence[np.ndarray], *, items: int, batch_size: int, length: int, negatives: int
) -> np.ndarray:
    """Return the logarithm of the expected number of times that each item is a candidate of a batch, float32."""
    count = np.bincount(np.concatenate([own[1:] for own in sessions]), minlength=items).astype(np.float64)
    of_batch = batch_size * np.mean([min(len(own) - 1, length) for own in sessions]) * count / count.sum()
    return np.log(np.maximum(of_batch + negatives / items, 1e-6)).astype(np.float32)
