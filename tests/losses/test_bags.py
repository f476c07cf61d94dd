"""Multiple-instance losses against loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twinreel.losses.bags import bag_loss


def mean(values):
    return float(np.mean(values)) if values else 0.0


def reference(logits, magnitudes, abnormal, valid, *, kind, top_k, margin):
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    by = scores if kind == "ranking" else magnitudes.astype(np.float64)
    best = [sorted(range(len(row)), key=lambda t, row=row: -row[t])[:top_k] for row in by]
    value = [np.mean([row[t] for t in own]) for row, own in zip(by, best, strict=True)]
    said = [np.mean([row[t] for t in own]) for row, own in zip(scores, best, strict=True)]
    bad = [i for i in range(len(by)) if valid[i] and abnormal[i]]
    good = [i for i in range(len(by)) if valid[i] and not abnormal[i]]
    return {
        "ranking": mean([max(0.0, margin - (value[i] - value[j])) for i in bad for j in good]),
        "cross_entropy": (mean([-np.log(said[i]) for i in bad]) + mean([-np.log(1 - said[j]) for j in good])) / 2,
        "smoothness": mean([sum((a - b) ** 2 for a, b in zip(scores[i][1:], scores[i], strict=False)) for i in bad]),
        "sparsity": mean([sum(scores[i]) for i in bad]),
    }


@pytest.mark.parametrize("kind", ["magnitude", "ranking"])
@pytest.mark.parametrize("valid", [[True] * 5, [True, False, True, True, False], [False, True, False, True, False]])
def test_all_terms(kind, valid):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (5, 7)).astype(np.float32)
    magnitudes = rng.gamma(2, 1, (5, 7)).astype(np.float32)
    abnormal = np.array([True, False, True, False, True])
    loss = jax.jit(lambda x, m, a, v: bag_loss(x, magnitudes=m, abnormal=a, valid=v, kind=kind, top_k=3, margin=0.8))
    got = loss(*(jnp.asarray(array) for array in (logits, magnitudes, abnormal, np.array(valid))))
    wanted = reference(logits, magnitudes, abnormal, valid, kind=kind, top_k=3, margin=0.8)
    assert got.keys() == wanted.keys() and wanted["cross_entropy"] > 0
    for name, value in wanted.items():
        assert float(got[name]) == pytest.approx(value, rel=1e-5), name
