"""Films are cut into events where their moments change, within bounds of length and number."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.encode.embed.film import Film
from twinreel.encode.films import events
from twinreel.encode.films.events import EventOptions, event_spans
from twinreel.encode.films.shots import at_frames, change_points


def film(*lengths, moment_s=0.5, fps=8.0):
    """Scenes of so many moments, each with a vector of its own and a little noise."""
    rows = np.repeat(np.eye(len(lengths)), lengths, axis=0)
    rows += np.random.default_rng(0).normal(0, 0.02, rows.shape)
    edges = np.arange(len(rows) + 1) * moment_s
    stamps = np.arange(round(edges[-1] * fps)) / fps + 0.01
    given = {"scores": None, "contrast": np.ones(len(rows), np.float32), "stamps_s": stamps}
    return Film(path=Path("film.mp4"), edges_s=edges, vectors=rows.astype(np.float32), **given)


def test_events_follow_each_other_from_scene_to_scene_at_times_of_frames():
    spans = event_spans(film(6, 10, 4), options=EventOptions())
    assert spans.tolist() == [
        [0.0, pytest.approx(3.01)],
        [pytest.approx(3.01), pytest.approx(8.01)],
        [pytest.approx(8.01), 10.0],
    ]


def test_number_and_length_of_events_are_bounded():
    scenes = film(6, 10, 4, 8)
    for most in (1, 2, 3):
        assert len(event_spans(scenes, options=EventOptions(most=most))) == most
    lengths = np.diff(event_spans(scenes, options=EventOptions(shortest_s=1.0, longest_s=2.5))).ravel()
    assert lengths.max() <= 2.5 + 0.13 and lengths.min() >= 1.0 - 0.13 and lengths.sum() == pytest.approx(14.0)
    assert len(event_spans(film(2, 2, 2), options=EventOptions(shortest_s=9.0))) == 1
    with pytest.raises(UserError, match=r"film.mp4 lasts 14.0 s, more than 2 events \(most, --most\) of 3 s"):
        event_spans(scenes, options=EventOptions(most=2, longest_s=3.0))


def test_long_films_are_cut_by_means_of_neighbours(monkeypatch):
    monkeypatch.setattr(events, "MOST_MOMENTS", 8)
    spans = event_spans(film(9, 12, 9), options=EventOptions())  # 30 moments, means of 4
    borders = spans[1:, 0]
    assert len(spans) in (3, 4) and all(np.abs(borders - border).min() <= 1.0 for border in (4.5, 10.5))


def test_edges_move_to_the_nearest_frame_as_in_a_loop():
    rng = np.random.default_rng(1)
    stamps, edges = np.sort(rng.uniform(0, 9, 40)), np.array([0.0, 1.0, 2.2, 2.3, 6.0, 9.5])
    wanted = edges.copy()
    for i in range(1, 5):
        nearest = min(stamps, key=lambda time: abs(time - edges[i]))
        after = edges[i + 1] - edges[i] if i < 4 else np.inf
        if abs(nearest - edges[i]) < min(edges[i] - edges[i - 1], after) / 2:
            wanted[i] = nearest
    np.testing.assert_array_equal(at_frames(edges, stamps=stamps), wanted)
    assert at_frames(np.array([0.0, 1.0, 2.0]), stamps=np.array([0.0])).tolist() == [0.0, 1.0, 2.0]


def test_edges_of_long_films_move_in_little_memory():
    """An hour of frames and 1800 events; a table of both would take 400 MB."""
    stamps, edges = np.arange(28_800) / 8, np.linspace(0, 3600, 1801)
    tracemalloc.start()
    moved = at_frames(edges, stamps=stamps)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(moved, edges)
    assert peak < 4 * 2**20


def test_the_best_division_within_a_number_of_shots():
    rows = film(6, 10, 4, 8).vectors
    assert change_points(rows).tolist() == [6, 16, 20] and change_points(rows, most=4).tolist() == [6, 16, 20]
    assert change_points(rows, most=1).tolist() == []
    with pytest.raises(UserError, match="28 moments do not fit into 3 shots of at most 9"):
        change_points(rows, most=3, longest=9)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seconds": 0.0}, "seconds=0 of events; wanted seconds, above 0"),
        ({"shortest_s": float("inf")}, "shortest_s=inf"),
        ({"longest_s": 1.5}, "longest_s=1.5 of events with shortest_s=1; wanted at least twice as much"),
        ({"longest_s": 4.0, "seconds": 5.0}, "longest_s=4 of events is less than a moment, seconds=5"),
        ({"most": 0}, "most=0 events; wanted at least 1"),
        ({"penalty": float("nan")}, "penalty=nan"),
    ],
)
def test_options_out_of_range_are_named(given, message):
    with pytest.raises(UserError, match=message):
        EventOptions(**given)
