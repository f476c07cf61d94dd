"""The choice of clips: against loops in float64, brute force on small sets, and scikit-learn."""

import itertools

import numpy as np
import pytest
import scipy.stats
from scipy.spatial.distance import cdist

from twinreel.base.errors import UserError
from twinreel.evaluate.protocols.probe_data import ProbeSet
from twinreel.finetune.figures import selection
from twinreel.finetune.figures.selection import SelectOptions, entropy, k_centre, margin, select_clips
from twinreel.finetune.figures.selection_curve import CurveOptions, learning_curves


def points(n=60, d=5, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def greedy(features, *, budget, labelled, may):
    """Algorithm 1 of Sener & Savarese, a loop over the whole matrix of distances in float64."""
    apart = cdist(features.astype(np.float64), features.astype(np.float64))
    centres, chosen, distances = list(np.flatnonzero(labelled)), [], []
    for _ in range(budget):
        far = [(apart[i, centres].min() if may[i] and i not in chosen else -1.0) for i in range(len(features))]
        chosen.append(int(np.argmax(far)))
        distances.append(max(far))
        centres.append(chosen[-1])
    return chosen, distances, apart[:, centres].min(axis=1).max()


@pytest.mark.parametrize("blocks", [(8192, 512), (7, 3)])
def test_k_centre_is_the_greedy_algorithm(blocks, monkeypatch):
    monkeypatch.setattr(selection, "_ROWS", blocks[0])
    monkeypatch.setattr(selection, "_CENTRES", blocks[1])
    features, labelled = points(), np.arange(60) % 12 == 0
    told = []
    found = k_centre(features, budget=9, labelled=labelled, tick=told.append)
    chosen, distances, radius = greedy(features, budget=9, labelled=labelled, may=~labelled)
    assert found.index.tolist() == chosen and told == list(range(1, 10))
    np.testing.assert_allclose(found.distance, distances, rtol=1e-6)
    assert found.radius == pytest.approx(radius, rel=1e-6)
    for rank, (index, nearest) in enumerate(zip(found.index, found.nearest, strict=True)):
        own = [*np.flatnonzero(labelled), *found.index[:rank]]
        assert nearest == own[np.argmin(cdist(features[[index]], features[own])[0])]


@pytest.mark.parametrize("seed", range(4))
def test_its_radius_is_at_most_twice_the_best_one(seed):
    """Brute force over all sets of three centres."""
    features = points(14, 2, seed=seed)
    apart = cdist(features, features)
    best = min(apart[:, list(own)].min(axis=1).max() for own in itertools.combinations(range(14), 3))
    found = k_centre(features, budget=3, labelled=np.zeros(14, bool))
    assert best <= found.radius <= 2 * best + 1e-6
    assert found.radius == pytest.approx(apart[:, found.index].min(axis=1).max(), rel=1e-6)


def test_without_labelled_clips_the_first_is_nearest_to_the_mean_and_equals_are_not_taken_twice():
    features = np.array([[0, 0], [4, 0], [2, 0], [4, 0]], np.float32)
    found = k_centre(features, budget=9, labelled=np.zeros(4, bool))
    assert found.index.tolist() == [2, 0, 1, 3] and found.nearest.tolist() == [-1, 2, 2, 1]
    assert np.isinf(found.distance[0]) and found.distance[1:].tolist() == [2, 2, 0] and found.radius == 0


def test_entropy_and_margin_equal_other_codes():
    p = np.random.default_rng(0).dirichlet(np.ones(5), size=20)
    np.testing.assert_allclose(entropy(p), scipy.stats.entropy(p, axis=1))
    np.testing.assert_allclose(margin(p), [sorted(row)[-1] - sorted(row)[-2] for row in p.tolist()])
    q = np.random.default_rng(1).uniform(size=(20, 3))
    loops = [np.mean([scipy.stats.entropy([one, 1 - one]) for one in row]) for row in q]
    np.testing.assert_allclose(entropy(q, several=True), loops)
    np.testing.assert_allclose(margin(q, several=True), [2 * min(abs(one - 0.5) for one in row) for row in q])
    assert entropy(np.array([[1.0, 0.0]]))[0] == pytest.approx(0, abs=1e-9)


def test_each_way_takes_what_it_promises():
    features, labelled = points(), np.arange(60) < 10
    p = np.random.default_rng(2).dirichlet(np.ones(3), size=60)
    how = {"probability": p, "labelled": labelled}
    doubt = np.where(labelled, -1, entropy(p))
    certain = select_clips(features, options=SelectOptions(budget=5, by="uncertainty"), **how)
    assert certain.index.tolist() == np.argsort(-doubt, kind="stable")[:5].tolist()
    both = select_clips(features, options=SelectOptions(budget=5, by="both", candidates=3), **how)
    may = np.isin(np.arange(60), np.argsort(-doubt, kind="stable")[:15])
    assert both.index.tolist() == greedy(features, budget=5, labelled=labelled, may=may)[0]
    drawn = [select_clips(features, options=SelectOptions(budget=5, by="random", seed=s), **how) for s in (0, 0, 1)]
    assert drawn[0].index.tolist() == drawn[1].index.tolist() != drawn[2].index.tolist()
    assert not labelled[drawn[0].index].any()
    cover = select_clips(features, options=SelectOptions(budget=5, by="k_centre"), **how)
    assert cover.radius < both.radius


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "--budget must be at least 1"),
        ({"budget": 1, "by": "uncertanty"}, "did you mean 'uncertainty'"),
        ({"budget": 1, "candidates": 0}, "--candidates must be at least 1"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        SelectOptions(**options)


def test_uncertainty_without_predictions_is_refused():
    with pytest.raises(UserError, match="needs predictions"):
        select_clips(
            points(), probability=None, labelled=np.zeros(60, bool), options=SelectOptions(budget=1, by="both")
        )


CENTRES = ((4, 0), (0, 4), (-4, 0), (0, -9))


def blobs(*, n, seed, rare=4) -> ProbeSet:
    """Four classes around four points; the last one is rare, so that random draws seldom find it."""
    rng = np.random.default_rng(seed)
    label = np.where(rng.uniform(size=n) < 1 / rare / 4, 3, rng.integers(0, 3, n))
    return ProbeSet(
        features=(np.array(CENTRES)[label] + rng.normal(size=(n, 2))).astype(np.float32),
        targets=np.eye(4, dtype=bool)[label],
    )


def test_curves_begin_alike_and_cover_beats_random_where_a_class_is_rare():
    pool = blobs(n=300, seed=0)
    each = np.repeat(np.eye(4, dtype=bool), 10, axis=0)  # of the rare class as many as of the others
    test = ProbeSet(features=np.repeat(np.array(CENTRES, np.float32), 10, axis=0), targets=each)
    select = SelectOptions(budget=4)
    options = CurveOptions(start=4, rounds=2, draws=3, ways=("k_centre", "random"), select=select)
    ticks = []
    found = learning_curves(pool, test=test, several=False, options=options, tick=lambda: ticks.append(1))
    assert found["labelled"] == [4, 8, 12] and found["figure"] == "accuracy" and len(ticks) == 3 * 2 * 3
    assert found["values"]["k_centre"][0] == found["values"]["random"][0]
    gain = found["against_random"]["k_centre"]
    apart = np.array(found["values"]["k_centre"][1:]) - np.array(found["values"]["random"][1:])
    assert gain["mean"] == pytest.approx(apart.mean()) and gain["mean"] > 0
    assert gain["standard_error"] == pytest.approx(scipy.stats.sem(apart.mean(axis=0)))
    again = learning_curves(pool, test=test, several=False, options=options, tick=lambda: None)
    assert again == found


def test_more_clips_than_there_are_and_pools_of_one_class():
    pool = blobs(n=30, seed=0)
    options = CurveOptions(start=10, rounds=3, select=SelectOptions(budget=10))
    with pytest.raises(UserError, match="wants 40 labelled clips"):
        learning_curves(pool, test=pool, several=False, options=options, tick=lambda: None)
    one = ProbeSet(features=pool.features, targets=np.eye(2, dtype=bool)[np.zeros(30, int)])
    options = CurveOptions(start=5, rounds=1, select=SelectOptions(budget=5))
    with pytest.raises(UserError, match="always of one class"):
        learning_curves(one, test=one, several=False, options=options, tick=lambda: None)
    with pytest.raises(UserError, match="--draws must be at least 1"):
        CurveOptions(start=5, draws=0, select=SelectOptions(budget=5))
