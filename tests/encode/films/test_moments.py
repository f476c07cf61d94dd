"""Spans from scores of time steps, against the measures' own suppression and by hand."""

import numpy as np
import pytest

from twinreel.encode.films.moments import at_moments, best_spans, label_runs, suppressed
from twinreel.encode.predict.timeline import moments_in
from twinreel.evaluate.measures.spans import suppress


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_suppression_is_that_of_the_measures(threshold):
    spans = np.sort(np.random.default_rng(0).uniform(0, 10, (40, 2)), axis=1)
    assert suppressed(spans, threshold=threshold).tolist() == suppress(spans, threshold=threshold).tolist()
    assert suppressed(spans[:0], threshold=threshold).tolist() == []


def test_best_spans_are_cut_sorted_and_suppressed_within_their_class():
    spans = np.array([[-0.5, 0.5], [0.0, 0.45], [0.6, 1.2], [0.7, 0.7]])
    scores = np.array([[0.9, 0.2], [0.8, 0.6], [0.7, 0.1], [1.0, 1.0]])
    got = best_spans(scores, spans=spans, threshold=0.5, keep=9)
    wanted = [[0, 0.5, 0.9, 0], [0.6, 1, 0.7, 0], [0, 0.45, 0.6, 1], [0.6, 1, 0.1, 1]]
    np.testing.assert_allclose(got, wanted)
    np.testing.assert_allclose(best_spans(scores, spans=spans, threshold=0.5, keep=2), wanted[:2])


def test_runs_of_labels():
    path, sure = np.array([1, 1, 0, 3, 1]), np.array([0.5, 0.7, 0.9, 0.8, 0.4])
    got = label_runs(path, probability=sure)
    np.testing.assert_allclose(got, [[0.6, 0.8, 0.8, 2], [0, 0.4, 0.6, 0], [0.8, 1, 0.4, 0]])
    assert label_runs(np.zeros(3, int), probability=np.ones(3)).shape == (0, 4)


def test_scores_of_moments():
    np.testing.assert_allclose(at_moments(np.array([1.0, 3.0]), moments=2), [1, 3])
    np.testing.assert_allclose(at_moments(np.array([1.0, 3.0]), moments=8), [1, 1, 1.25, 1.75, 2.25, 2.75, 3, 3])
    assert [moments_in(s, seconds=2.0) for s in (150.0, 3.9, 0.5)] == [75, 1, 1]
    assert moments_in(3 * 0.1, seconds=0.1) == 3  # 0.30000000000000004 / 0.1 and 0.3 / 0.1 alike
