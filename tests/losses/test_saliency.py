"""Saliency losses against loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twinreel.losses.saliency import NEAR, saliency_loss


def reference(logits, target, valid, margin):
    cross, ranking = [], []
    for scores, wanted in zip(logits[valid].astype(np.float64), target[valid].astype(np.float64), strict=True):
        cross.append(np.mean([np.log1p(np.exp(s)) - s * y for s, y in zip(scores, wanted, strict=True)]))
        pairs = [(a, b) for a in range(len(scores)) for b in range(len(scores)) if wanted[a] > wanted[b] + NEAR]
        hinges = [max(0.0, margin - (scores[a] - scores[b])) for a, b in pairs]
        ranking.append(np.mean(hinges) if pairs else 0.0)
    return (np.mean(cross), np.mean(ranking)) if cross else (0.0, 0.0)


@pytest.mark.parametrize("valid", [[True] * 4, [True, False, True, True], [False] * 4])
def test_both_terms(valid):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4, 5)).astype(np.float32)
    target = rng.choice([0, 0.05, 0.5, 1], (4, 5)).astype(np.float32)
    target[2] = 1.0  # no pair
    loss = jax.jit(lambda x, y, v: saliency_loss(x, target=y, valid=v, margin=0.7))
    got = loss(jnp.asarray(logits), jnp.asarray(target), jnp.asarray(valid))
    cross, ranking = reference(logits, target, np.array(valid), 0.7)
    assert got["cross_entropy"] == pytest.approx(cross, rel=1e-5) and got["ranking"] == pytest.approx(ranking, rel=1e-5)
