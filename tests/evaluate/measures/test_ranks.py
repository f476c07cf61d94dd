"""Metrics against float64 loops, scikit-learn, and the algorithms of other code bases on data without ties."""

import doctest
import importlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import top_k_accuracy_score

from twinreel.base.errors import UserError
from twinreel.evaluate.counting.count import CountOptions
from twinreel.evaluate.measures.ranks import Ranks, ranks, recall_at, summary
from twinreel.evaluate.measures.rows import paired_cosine
from twinreel.evaluate.protocols.directions import text_to_video, video_to_text

FIGURES = ("R@1", "R@5", "R@10", "MdR", "MnR")


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def several_captions(seed, *, videos=37, width=16):
    """Random embeddings where each video has 1 to 6 captions in shuffled order, near their video."""
    rng = np.random.default_rng(seed)
    video = rng.normal(size=(videos, width))
    video_of_text = rng.permutation(np.repeat(np.arange(videos), rng.integers(1, 7, videos)))
    text = video[video_of_text] + 2.0 * rng.normal(size=(len(video_of_text), width))
    return text.astype(np.float32), video.astype(np.float32), video_of_text


def test_the_doctests_of_directions_pass():
    assert doctest.testmod(importlib.import_module("twinreel.evaluate.protocols.directions")).failed == 0


def brute_force(similarity, positives):
    """Expected R@K and rank of every query by a loop over every place that the right one can take among the tied."""
    hits, places, lowest, highest = {k: [] for k in (1, 5, 10)}, [], [], []
    for row, positive in zip(similarity.tolist(), positives, strict=True):
        above = sum(score > row[positive] for score in row)
        tied = sum(score == row[positive] for score in row)
        possible = [above + place + 1 for place in range(tied)]
        for k in hits:
            hits[k].append(sum(rank <= k for rank in possible) / tied)
        places.append(sum(possible) / tied)
        lowest.append(min(possible))
        highest.append(max(possible))
    figures = {f"R@{k}": 100 * sum(values) / len(values) for k, values in hits.items()}
    figures |= {"MdR": float(np.median(places)), "MnR": sum(places) / len(places)}
    for name, rank in (("optimistic", lowest), ("pessimistic", highest)):
        figures[name] = {f"R@{k}": 100 * sum(r <= k for r in rank) / len(rank) for k in (1, 5, 10)}
        figures[name] |= {"MdR": float(np.median(rank)), "MnR": sum(rank) / len(rank)}
    return figures


@pytest.mark.parametrize("levels", [2, 5, 50, 10_000])
def test_summary_equals_a_loop_over_all_orders_of_the_tied(levels):
    rng = np.random.default_rng(levels)
    similarity = rng.integers(0, levels, size=(61, 43)) / levels
    positives = rng.integers(0, 43, size=61)
    got, want = summary(ranks(similarity, positives=positives)), brute_force(similarity, positives)
    for part in (None, "optimistic", "pessimistic"):
        a, b = (got, want) if part is None else (got[part], want[part])
        assert [a[key] for key in FIGURES] == pytest.approx([b[key] for key in FIGURES], rel=1e-12)
    assert got["n"] == 61


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 12))
def test_one_query_is_the_mean_over_its_places(above, equal, k):
    one = Ranks(above=np.array([above]), equal=np.array([equal]))
    places = above + np.arange(equal + 1) + 1
    assert recall_at(one, k=k) == pytest.approx(100 * (places <= k).mean())
    assert one.expected[0] == pytest.approx(places.mean())


@pytest.mark.parametrize("size", [2, 7, 500])
def test_a_matrix_of_equal_scores_is_at_chance(size):
    result = summary(ranks(np.full((size, size), 0.3), positives=np.arange(size)))
    assert result["R@1"] == pytest.approx(100 / size)
    assert result["R@5"] == pytest.approx(min(100, 500 / size))
    assert result["MdR"] == result["MnR"] == (size + 1) / 2
    assert (result["optimistic"]["R@1"], result["pessimistic"]["R@1"]) == (100, 0)


def test_collapsed_embeddings_are_at_chance_in_both_directions():
    text, video = np.full((63, 5), 0.1, np.float32), np.full((21, 5), 0.3, np.float32)
    index = np.arange(63) % 21
    for direction in (text_to_video, video_to_text):
        assert summary(direction(text, video=video, video_of_text=index))["R@1"] == pytest.approx(100 / 21)


def test_recalls_equal_scikit_learn_without_ties():
    rng = np.random.default_rng(3)
    similarity, positives = rng.normal(size=(80, 30)), rng.integers(0, 30, 80)
    result = summary(ranks(similarity, positives=positives))
    for k in (1, 5, 10):
        other = top_k_accuracy_score(positives, similarity, k=k, labels=np.arange(30))
        assert result[f"R@{k}"] == pytest.approx(100 * other)


def place_of_diagonal(similarity):
    """The usual evaluation of one caption per clip: sort each row, subtract the diagonal, look for zeros."""
    falling = -np.sort(-similarity, axis=1)
    return np.where(falling - np.diag(similarity)[:, None] == 0)[1]


def test_one_caption_per_clip_equals_the_usual_sort_without_ties():
    rng = np.random.default_rng(4)
    video = rng.normal(size=(90, 12))
    text = video + 1.5 * rng.normal(size=(90, 12))
    similarity, index = unit(text) @ unit(video).T, np.arange(90)
    for direction, matrix in ((text_to_video, similarity), (video_to_text, similarity.T)):
        place, result = place_of_diagonal(matrix), summary(direction(text, video=video, video_of_text=index))
        assert result["R@1"] == pytest.approx(100 * np.mean(place == 0))
        assert result["R@10"] == pytest.approx(100 * np.mean(place < 10))
        assert result["MdR"] == np.median(place) + 1
        assert result["MnR"] == pytest.approx(np.mean(place) + 1)


def test_several_captions_equal_the_padded_double_argsort_without_ties():
    """The MSVD way: captions by video padded with -inf to [videos, most captions, videos], ranks by argsort twice."""
    text, video, video_of_text = several_captions(5)
    similarity = unit(text.astype(np.float64)) @ unit(video.astype(np.float64)).T
    most = np.bincount(video_of_text).max()
    padded = np.full((len(video), most, len(video)), -np.inf)
    for clip in range(len(video)):
        own = np.flatnonzero(video_of_text == clip)
        padded[clip, : len(own)] = similarity[own]

    places = np.argsort(np.argsort(-padded, axis=-1), axis=-1)
    right = places[np.arange(len(video))[:, None], np.arange(most), np.arange(len(video))[:, None]]
    right = right[np.isfinite(padded[:, :, 0])]  # by video, captions in order
    got = text_to_video(text, video=video, video_of_text=video_of_text)
    assert (np.sort(got.expected) == np.sort(right + 1)).all()
    assert (got.expected[np.argsort(video_of_text, kind="stable")] == right + 1).all()

    best = padded.max(axis=1).T  # [video, other video's captions]
    got = video_to_text(text, video=video, video_of_text=video_of_text)
    assert (got.expected == np.diag(np.argsort(np.argsort(-best, axis=1), axis=1)) + 1).all()
    assert len(got.expected) == len(video)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("videos", "width"), [(33, 7), (129, 65), (257, 512)])
def test_equal_rows_tie_wherever_they_stand(videos, width, dtype):
    """Every clip is one of eight and every caption one of eight: ranks follow from counting alone."""
    rng = np.random.default_rng(width)
    kinds = rng.normal(size=(8, width)).astype(dtype)
    kind_of_video = rng.permutation(np.arange(videos) % 8)
    index = rng.permutation(np.arange(2 * videos) % videos)
    other = (rng.normal(size=(8, width)) + kinds).astype(dtype)
    text, video = other[kind_of_video[index]], kinds[kind_of_video]
    score = unit(other.astype(np.float64)) @ unit(kinds.astype(np.float64)).T
    copies = np.bincount(kind_of_video)

    got = text_to_video(text, video=video, video_of_text=index)
    kind = kind_of_video[index]
    assert (got.equal == copies[kind] - 1).all()
    assert (got.above == [copies[score[k] > score[k, k]].sum() for k in kind]).all()

    got = video_to_text(text, video=video, video_of_text=index)
    assert (got.equal == copies[kind_of_video] - 1).all()
    assert (got.above == [copies[score[:, k] > score[k, k]].sum() for k in kind_of_video]).all()


def test_zero_and_minus_zero_are_the_same_row():
    video = np.array([[1.0, 0.0], [1.0, -0.0], [0.0, 1.0]])
    got = text_to_video(np.array([[0.3, 0.9]]), video=video, video_of_text=np.array([0]))
    assert (got.above.tolist(), got.equal.tolist()) == ([1], [1])


def test_clips_that_tie_by_arithmetic_tie_in_every_order_of_summation():
    """All permutations of one vector score the same with a constant text; float sums of them differ in the last bit."""
    rng = np.random.default_rng(6)
    row = rng.normal(size=101)
    video = np.stack([rng.permutation(row) for _ in range(75)])
    naive = unit(video) @ np.ones(101)
    assert len(set(naive.tolist())) > 1
    got = text_to_video(np.ones((75, 101)), video=video, video_of_text=np.arange(75))
    assert (got.equal == 74).all()


@pytest.mark.parametrize("chunk_bytes", [1, 999, 5_000, 1 << 30])
def test_chunks_do_not_change_the_ranks(chunk_bytes):
    text, video, index = several_captions(7)
    for direction in (text_to_video, video_to_text):
        whole = direction(text, video=video, video_of_text=index)
        parts = direction(text, video=video, video_of_text=index, options=CountOptions(host_bytes=chunk_bytes))
        assert (whole.above == parts.above).all()
        assert (whole.equal == parts.equal).all()


def test_the_whole_matrix_is_never_in_memory():
    rng = np.random.default_rng(8)
    text, video = rng.normal(size=(20_000, 8)).astype(np.float32), rng.normal(size=(2_000, 8)).astype(np.float32)
    index = rng.permutation(np.arange(20_000) % 2_000)
    for direction in (text_to_video, video_to_text):
        tracemalloc.start()
        direction(text, video=video, video_of_text=index, options=CountOptions(host_pairs=1 << 30, host_bytes=4 << 20))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 60 << 20  # the matrix of float64 would take 320 MB


def test_a_common_factor_of_the_rows_changes_nothing():
    text, video, index = several_captions(9)
    for direction in (text_to_video, video_to_text):
        once = direction(text, video=video, video_of_text=index)
        again = direction(4 * text, video=video / 8, video_of_text=index)
        assert (once.expected == again.expected).all()
        extreme = direction(
            text.astype(np.float64) * 2.0**-700, video=video.astype(np.float64) * 2.0**700, video_of_text=index
        )
        assert (once.expected == extreme.expected).all()


def test_videos_without_captions_are_candidates_of_text_to_video_only():
    text, video, index = several_captions(10)
    more = np.concatenate([video, np.eye(5, video.shape[1], dtype=np.float32)])
    assert (
        text_to_video(text, video=more, video_of_text=index).above
        >= text_to_video(text, video=video, video_of_text=index).above
    ).all()
    apart = video_to_text(text, video=more, video_of_text=index)
    assert (apart.above == video_to_text(text, video=video, video_of_text=index).above).all()


def test_paired_cosine_is_the_diagonal():
    text, video, index = several_captions(11)
    pairs = paired_cosine(unit(text.astype(np.float64)), second=unit(video.astype(np.float64))[index])
    full = unit(text.astype(np.float64)) @ unit(video.astype(np.float64)).T
    np.testing.assert_allclose(pairs, full[np.arange(len(text)), index], atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, v, i: (t.at(3, np.nan), v, i), "row 3 of 'text' is not finite"),
        (lambda t, v, i: (t, v.at(2, np.inf), i), "row 2 of 'video' is not finite"),
        (lambda t, v, i: (t, v.at(1, 0.0), i), "row 1 of 'video' is all zero"),
        (lambda t, v, i: (t[:, :3], v, i), "'text' has width 3 and 'video' has width 4"),
        (lambda t, v, i: (t[0], v, i), "'text' is float64 of shape"),
        (lambda t, v, i: (t[:0], v, i[:0]), "'text' is float64 of shape"),
        (lambda t, v, i: (t, v, i + 1), "'video_of_text'[5] is 6; wanted an index from 0 to 5"),
        (lambda t, v, i: (t, v, i - 1), "'video_of_text'[0] is -1"),
        (lambda t, v, i: (t, v, i[:-1]), "wanted integers of shape (6,)"),
        (lambda t, v, i: (t, v, i * 1.0), "'video_of_text' is float64"),
        (lambda t, v, i: (t, v > 0, i), "'video' is bool"),
    ],
)
def test_bad_arrays_are_refused_with_their_place(change, message):
    class Rows(np.ndarray):
        def at(self, row, value):
            changed = self.copy()
            changed[row] = value
            return changed

    rng = np.random.default_rng(12)
    text, video = (rng.normal(size=(6, 4)).view(Rows) for _ in range(2))
    text, video, index = change(text, video, np.arange(6))
    for direction in (text_to_video, video_to_text):
        with pytest.raises(UserError) as caught:
            direction(text, video=video, video_of_text=index)
        assert message in str(caught.value)


def test_a_score_that_is_not_finite_names_its_query():
    similarity = np.zeros((4, 5))
    similarity[2, 3] = np.nan
    with pytest.raises(UserError, match="row 2 and column 3 is nan"):
        ranks(similarity, positives=np.zeros(4, int))


def test_no_query_is_an_error():
    with pytest.raises(UserError, match="no query"):
        summary(Ranks(above=np.zeros(0, int), equal=np.zeros(0, int)))
