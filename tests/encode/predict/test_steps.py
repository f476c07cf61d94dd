"""Scores of films as a stream: those of the whole film, in bounded memory, and the spans made of them."""

import itertools
import weakref

import numpy as np
import pytest
from flax import nnx
from small_encoder import small_encoder

from twinreel.encode.predict.steps import BLOCK, FilmScores, StepPredictor, WindowTokens, frame_changes, spans_above
from twinreel.zoo.build import build

HEAD = {"kind": "steps", "labels": ["normal", "odd"], "width": 8, "dilations": [1, 3], "smooth": 2, "dropout": 0.3}
DECODE = {"window_seconds": 2.0, "threshold": 0.5, "normal": ["normal"]}


@pytest.fixture(scope="module")
def predictor():
    spec = small_encoder().spec
    spec = spec.replace(towers={"video": spec.towers["video"]}, heads={"anomaly": HEAD | {"decode": DECODE}})
    return StepPredictor(spec=spec, model=build(spec, rngs=nnx.Rngs(0)))


class Tokens(np.ndarray):
    """An array that can be counted."""


def windows(film, *, count, live=None, steps=4):
    """Yield the windows of a film, the last of which reaches back by half its length."""
    rng = np.random.default_rng(film)
    for number in range(count):
        last = number == count - 1
        start = 2.0 * number - (1.0 if last and number else 0.0)
        tokens = rng.normal(size=(steps, 8)).astype(np.float32).view(Tokens)
        if live is not None:
            live.append(weakref.ref(tokens))
        yield WindowTokens(
            film=film,
            start_s=start,
            fresh_s=2.0 * number,
            end_s=start + 2.0,
            last=last,
            tokens=tokens,
            changes=np.arange(steps) + 10.0 * number,
        )


def whole(predictor, film, *, count):
    """Scores of all steps of a film at once, by the model itself."""
    parts = list(windows(film, count=count))
    tokens = np.concatenate([part.tokens[2:] if part.last and count > 1 else part.tokens for part in parts])
    model = nnx.merge(predictor._graph, predictor._state)
    logits = np.asarray(model.head(np.asarray(tokens)[None]).logits[0], np.float64)
    return 1 / (1 + np.exp(-logits))


def test_the_stream_gives_the_scores_of_the_whole_film(predictor):
    """Films of less than a block, of some blocks, and of whole blocks, of which two alternate."""
    counts = {7: 1, 8: 40, 9: 33}
    mixed = [window for film in (7, 8) for window in windows(film, count=counts[film])]
    mixed = [*itertools.chain(*zip(mixed[:41], windows(9, count=33), strict=False)), *mixed[33:]]
    found = {one.film: one for one in predictor.films(mixed)}
    assert found.keys() == counts.keys()
    for film, count in counts.items():
        got, wanted = found[film], whole(predictor, film, count=count)
        np.testing.assert_allclose(got.scores, wanted, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(got.edges, np.arange(len(wanted) + 1) * 0.5)
    assert found[8].changes[:5].tolist() == [0, 1, 2, 3, 10]


def test_no_film_is_lost_where_steps_do_not_look_around():
    """Films of a block, of a step more and of one less, by a head without convolutions and smoothing."""
    spec = small_encoder().spec
    head = HEAD | {"dilations": [], "smooth": 0, "decode": DECODE}
    spec = spec.replace(towers={"video": spec.towers["video"]}, heads={"anomaly": head})
    predictor = StepPredictor(spec=spec, model=build(spec, rngs=nnx.Rngs(0)))
    lengths = [BLOCK, BLOCK + 1, BLOCK - 1]
    given = [window for film, steps in enumerate(lengths) for window in windows(film, count=1, steps=steps)]
    assert {found.film: len(found.scores) for found in predictor.films(given)} == dict(enumerate(lengths))


def test_memory_does_not_grow_with_the_film(predictor):
    """Tokens at hand are counted as they live."""
    most = []
    for count in (300, 900):
        live, peak, steps = [], 0, 0
        for part, _ in predictor.scores(windows(1, count=count, live=live)):
            peak, steps = max(peak, sum(one() is not None for one in live)), steps + len(part.scores)
        assert steps == 4 * count - 2
        most.append(peak)
    assert most[0] == most[1] < 20


def test_spans_and_times():
    edges, scores = np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.array([0.9, 0.1, 0.6, 0.7])
    assert spans_above(edges, scores=scores, limit=0.6) == [(0.0, 1.0, 0.9), (2.0, 4.0, 0.7)]
    assert spans_above(edges, scores=scores, limit=0.95) == []
    found = FilmScores(film=0, edges=edges, scores=scores, changes=scores[::-1])
    assert found.at(np.array([-1.0, 0.0, 1.0, 2.5, 9.0])).tolist() == [0.9, 0.9, 0.1, 0.6, 0.7]
    assert found.at(np.array([0.5]), values=found.changes).tolist() == [0.7]


def test_changes_are_means_over_the_picture():
    video = np.zeros((3, 2, 2, 3), np.uint8)
    video[1, 0] = 255  # half of the picture
    np.testing.assert_allclose(frame_changes(video), [0.5, 0.5, 0.5])
    assert frame_changes(video[:1]).tolist() == [0.0]
