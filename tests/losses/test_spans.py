"""Losses of localisation against loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.losses.spans import Found, Points, Wanted, assign_spans, diou_loss, focal_loss, localisation_loss

POINTS = Points(  # four steps, and two of twice the length
    centre=np.array([0.125, 0.375, 0.625, 0.875, 0.25, 0.75], np.float32),
    stride=np.array([0.25] * 4 + [0.5] * 2, np.float32),
    low=np.array([0.0] * 4 + [0.4] * 2, np.float32),
    high=np.array([0.4] * 4 + [np.inf] * 2, np.float32),
)


def assigned_by_loops(spans, mask, *, radius):
    """The span of each step, step by step."""
    fits = np.zeros((6, len(spans)), bool)
    for m, (start, end) in enumerate(spans):
        if not mask[m]:
            continue
        for p, (c, s, low, high) in enumerate(zip(*POINTS, strict=True)):
            near = abs(c - (start + end) / 2) <= radius * s
            fits[p, m] = start <= c <= end and near and low <= max(c - start, end - c) < high
        if not fits[:, m].any():
            own = [p for p in range(6) if POINTS.low[p] <= (end - start) / 2 < POINTS.high[p]]
            fits[min(own, key=lambda p: abs(POINTS.centre[p] - (start + end) / 2)), m] = True
    lengths = [end - start for start, end in spans]
    return [min(np.flatnonzero(row), key=lambda m: lengths[m]) if row.any() else -1 for row in fits]


@pytest.mark.parametrize("radius", [0.5, 1.5, 9.0])
def test_assignment_against_loops(radius):
    rng = np.random.default_rng(1)
    spans = np.sort(rng.uniform(0, 1, (40, 3, 2)), axis=2).astype(np.float32)
    mask = rng.random((40, 3)) < 0.7
    assign = jax.jit(lambda spans, mask: assign_spans(POINTS, spans=spans, mask=mask, radius=radius))
    got = assign(jnp.asarray(spans), jnp.asarray(mask))
    for row in range(40):
        wanted = assigned_by_loops(spans[row].astype(np.float64), mask[row], radius=radius)
        assert got[row].tolist() == wanted
        assert set(np.flatnonzero(mask[row])) >= set(wanted) - {-1}


def test_a_span_between_two_middles_still_has_a_step():
    spans, mask = jnp.array([[[0.45, 0.47]]]), jnp.ones((1, 1), bool)
    assert assign_spans(POINTS, spans=spans, mask=mask)[0].tolist() == [-1, 0, -1, -1, -1, -1]


def test_focal_and_diou_by_hand():
    logits, target = np.array([2.0, -1.0, 0.5]), np.array([1.0, 1.0, 0.0])
    p = 1 / (1 + np.exp(-logits))
    right = np.where(target == 1, p, 1 - p)
    wanted = np.where(target == 1, 0.25, 0.75) * (1 - right) ** 2 * -np.log(right)
    np.testing.assert_allclose(focal_loss(jnp.asarray(logits, jnp.float32), target=jnp.asarray(target)), wanted, 1e-5)
    plain = focal_loss(jnp.asarray(logits, jnp.float32), target=jnp.asarray(target), alpha=-1, gamma=0)
    np.testing.assert_allclose(plain, -np.log(right), rtol=1e-5)
    a, b = jnp.array([[0.0, 0.4], [0.0, 0.1]]), jnp.array([[0.2, 0.6], [0.5, 0.7]])
    np.testing.assert_allclose(
        diou_loss(a, truth=b), [1 - 0.2 / 0.6 + (0.2 / 0.6) ** 2, 1 + (0.55 / 0.7) ** 2], rtol=1e-5
    )
    assert float(diou_loss(b, truth=b).sum()) == 0
    assert np.isfinite(jax.grad(lambda x: diou_loss(x, truth=b).sum())(a)).all()


@pytest.mark.parametrize("regression", ["diou", "l1"])
def test_rows_and_spans_that_do_not_count_change_nothing(regression):
    rng = np.random.default_rng(2)
    spans = jnp.asarray(np.sort(rng.uniform(0, 1, (3, 2, 2)), axis=2), jnp.float32)
    wanted = Wanted(
        spans=spans,
        mask=jnp.array([[True, True], [True, False], [True, True]]),
        label=jnp.asarray(rng.integers(0, 2, (3, 2))),
        valid=jnp.array([True, True, False]),
    )
    found = Found(
        jnp.asarray(rng.normal(0, 1, (3, 6, 2)), jnp.float32), jnp.asarray(rng.uniform(0, 1, (3, 6, 2)), jnp.float32)
    )
    loss = jax.jit(lambda found, wanted: localisation_loss(found, wanted=wanted, points=POINTS, regression=regression))
    got = loss(found, wanted)
    assert all(np.isfinite(value) and value > 0 for value in got.values())
    other = wanted._replace(spans=spans.at[1, 1].set(0.5).at[2].set(0.1))
    changed = Found(found.scores.at[2].set(5.0), found.spans.at[2].set(0.0))
    again = loss(changed, other)
    assert {k: float(v) for k, v in got.items()} == {k: float(v) for k, v in again.items()}


def test_unknown_regression():
    with pytest.raises(UserError, match=r"config\.task\.regression: 'dio'.*did you mean 'diou'"):
        localisation_loss(None, wanted=None, points=POINTS, regression="dio")  # pyright: ignore[reportArgumentType]
