"""Sampled softmax against a loop in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twinreel.losses.sampled import sampled_softmax


def reference(queries, candidates, item, candidate_item, valid, *, scale, log_frequency):
    losses = []
    for n in np.flatnonzero(valid):
        scores = []
        for m in range(len(candidates)):
            counts = m >= len(queries) or valid[m]
            if m == n or (counts and candidate_item[m] >= 0 and candidate_item[m] != item[n]):
                scores.append(scale * queries[n] @ candidates[m] - log_frequency[m])
            if m == n:
                own = scores[-1]
        losses.append(np.log(np.sum(np.exp(scores))) - own)
    return np.mean(losses)


@pytest.mark.parametrize("corrected", [False, True])
def test_the_loss(corrected):
    rng = np.random.default_rng(0)
    queries, candidates = rng.normal(size=(6, 4)), rng.normal(size=(9, 4))
    candidate_item = np.array([3, 1, 3, 2, -1, 5, 1, 7, -1], np.int32)
    valid = np.array([True, True, True, False, False, True])
    log_frequency = rng.normal(size=9) if corrected else np.zeros(9)
    arrays = [jnp.asarray(x, jnp.float32) for x in (queries, candidates, log_frequency)]
    loss, metrics = jax.jit(sampled_softmax)(
        arrays[0],
        candidates=arrays[1],
        item=jnp.asarray(candidate_item[:6]),
        candidate_item=jnp.asarray(candidate_item),
        valid=jnp.asarray(valid),
        scale=jnp.float32(2.0),
        log_frequency=arrays[2] if corrected else None,
    )
    wanted = reference(queries, candidates, candidate_item[:6], candidate_item, valid, scale=2.0,
                       log_frequency=log_frequency)  # fmt: skip
    assert float(loss) == pytest.approx(wanted, rel=1e-5) and 0 <= float(metrics["accuracy"]) <= 1
