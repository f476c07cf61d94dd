"""Change points against all divisions of small inputs, the knapsack against all choices, gains against loops."""

import itertools

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.encode.films.importance import moment_scores, shot_gains
from twinreel.encode.films.shots import change_points, divisions, knapsack, segment_scatter


def scatter(rows):
    """Squared distances from the mean, one by one."""
    mean = sum(rows) / len(rows)
    return sum(float((row - mean) @ (row - mean)) for row in rows)


def every_division(count, *, shortest, longest):
    """All lists of edges from 0 to `count`, by their number of shots."""
    for cuts in range(count):
        for inner in itertools.combinations(range(1, count), cuts):
            edges = (0, *inner, count)
            if all(shortest <= b - a <= longest for a, b in itertools.pairwise(edges)):
                yield cuts, edges


def noise_of(rows):
    steps = [float((b - a) @ (b - a)) for a, b in itertools.pairwise(rows)]
    return max(np.quantile(steps, 0.25) / 2, scatter(rows) / len(rows) / 10, np.mean([row @ row for row in rows]) / 100)


@pytest.mark.parametrize(("shortest", "longest"), [(1, 9), (2, 9), (2, 4), (3, 6)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_divisions_are_the_best_of_all(seed, shortest, longest):
    rows = np.random.default_rng(seed).normal(size=(9, 3)) + np.repeat([0.0, 4.0, 1.0], 3)[:, None] + 10
    totals, last = divisions(segment_scatter(rows, longest=longest), shortest=shortest, most=9 // shortest)
    best, price = {}, {}
    for cuts, edges in every_division(9, shortest=shortest, longest=longest):
        total = sum(scatter(rows[a:b]) for a, b in itertools.pairwise(edges))
        if total < best.get(cuts, (np.inf,))[0]:
            best[cuts] = (total, edges)
    for cuts, total in enumerate(totals):
        assert total == pytest.approx(best[cuts][0] if cuts in best else np.inf, abs=1e-9)
    assert last[0, 9] == 0 or longest < 9
    for cuts, (total, edges) in best.items():
        price[edges] = total + 2.0 * noise_of(rows) * (cuts * (np.log(9 / cuts) + 1) if cuts else 0)
    wanted = min(price, key=price.__getitem__)
    found = change_points(rows, shortest=shortest, longest=longest, penalty=2.0)
    assert found.tolist() == list(wanted[1:-1])


def test_scatter_of_every_stretch():
    rows = (
        np.random.default_rng(3).normal(size=(6, 2)) * 1e-3 + 1e3
    )  # large means: differences of squares would be lost
    got = segment_scatter(rows, longest=4)
    for length, end in itertools.product(range(1, 5), range(6)):
        wanted = scatter(rows[end + 1 - length : end + 1]) if end + 1 >= length else np.inf
        assert got[length - 1, end] == pytest.approx(wanted, abs=1e-9)


def test_still_and_slowly_moving_scenes_are_one_shot_each():
    rng, angle = np.random.default_rng(0), np.linspace(0, 0.3, 40)
    pan = np.column_stack([np.cos(angle), np.sin(angle), np.zeros(40)])
    still = np.tile([0.0, 0.0, 1.0], (20, 1))
    rows = np.concatenate([pan, still, -pan[:10]]) + rng.normal(0, 0.01, (70, 3))
    assert change_points(rows, shortest=2).tolist() == [40, 60]
    assert change_points(still + rng.normal(0, 0.03, (20, 3)), shortest=1).tolist() == []
    assert change_points(np.zeros((5, 3))).tolist() == []


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_film_shorter_than_two_shots_is_one(count):
    assert change_points(np.eye(3)[:count], shortest=2).tolist() == []


@pytest.mark.parametrize(
    ("vectors", "how", "wanted"),
    [
        (np.zeros((0, 3)), {}, r"vectors of shape \(0, 3\)"),
        (np.array([[1.0], [np.nan]]), {}, "wanted finite numbers"),
        (np.ones((4, 2)), {"shortest": 0}, "shots of 0 to"),
        (np.ones((4, 2)), {"shortest": 3, "longest": 2}, "shots of 3 to 2 moments"),
        (np.ones((4, 2)), {"penalty": float("nan")}, "a penalty of nan"),
    ],
)
def test_bad_vectors_and_options_are_refused(vectors, how, wanted):
    with pytest.raises(UserError, match=wanted):
        change_points(vectors, **how)


def test_the_knapsack_is_the_best_of_all_choices():
    rng = np.random.default_rng(0)
    for capacity in (0, 5, 12, 40):
        values, weights = rng.uniform(0.1, 1, 8), rng.integers(1, 9, 8)
        every = (list(c) for n in range(9) for c in itertools.combinations(range(8), n))
        best = max((c for c in every if weights[c].sum() <= capacity), key=lambda c: values[c].sum())
        assert knapsack(values, weights=weights, capacity=capacity) == best


def test_gains_are_those_of_a_greedy_choice():
    """By loops in float64: of each shot what it adds to the largest cosines, the best first."""
    rng = np.random.default_rng(1)
    rows, starts, plain = rng.normal(size=(12, 4)), np.array([0, 3, 4, 9]), {3}
    unit = [row / np.sqrt(row @ row) for row in rows]
    parts = np.split(np.stack(unit), starts[1:])
    centres = [part.mean(0) / np.linalg.norm(part.mean(0)) for part in parts]
    shown = [i for i in range(12) if i not in plain]
    best = dict.fromkeys(shown, np.mean([unit[i] @ unit[j] for i in shown for j in shown]))
    wanted, left = np.zeros(4), [0, 2, 3]  # shot 1 is the plain moment alone
    while left:
        gains = {s: np.mean([max(centres[s] @ unit[i] - best[i], 0) for i in shown]) for s in left}
        chosen = max(gains, key=gains.__getitem__)
        wanted[chosen] = gains[chosen]
        best = {i: max(best[i], centres[chosen] @ unit[i]) for i in shown}
        left.remove(chosen)
    got = shot_gains(rows, starts=starts, shown=np.isin(np.arange(12), shown))
    np.testing.assert_allclose(got, wanted / wanted.max(), atol=1e-12)
    contrast = np.where(np.isin(np.arange(12), shown), 30.0, 1.0)
    scores = moment_scores(rows, starts=starts, contrast=contrast)
    for i, shot in enumerate(np.repeat(range(4), [3, 1, 5, 3])):
        assert scores[i] == pytest.approx(got[shot] * max(0, unit[i] @ centres[shot]) * (i not in plain), abs=1e-12)


def test_what_comes_twice_counts_once_and_a_film_of_one_look_is_all_alike():
    a, b, c = np.eye(3)
    rows = np.stack([a] * 6 + [b] * 3 + [a] * 6 + [c])
    first, other, again, rare = shot_gains(rows, starts=np.array([0, 6, 9, 15]))
    assert first == 1 and again == 0 and other > rare > 0
    assert shot_gains(np.ones((4, 2)), starts=np.array([0, 2])).tolist() == [1, 1]
    assert moment_scores(np.ones((4, 2)), starts=np.array([0]), contrast=np.zeros(4)).tolist() == pytest.approx([1] * 4)
