"""Ranks against the figures of the definition, and the readings of video-to-text."""

import numpy as np
import pytest
from evaluate_golden import TIED, UNTIED, figures, retrieval_case

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.ranks import among_captions, among_videos, ranks, summary


@pytest.mark.parametrize("case", UNTIED + TIED)
def test_every_figure_of_the_definition_comes_out(case):
    scores, owner = retrieval_case(case)
    wanted = figures("retrieval")[case]["definition"]
    got = {
        "t2v": summary(ranks(scores, positives=owner)),
        "v2t_among_videos": summary(among_videos(scores, video_of_text=owner)),
        "v2t_among_captions": summary(among_captions(scores, video_of_text=owner)),
    }
    for direction, block in got.items():
        for part in ("expected", "optimistic", "pessimistic"):
            want = wanted[direction][part]
            have = block if part == "expected" else block[part]
            assert {key: have[key] for key in want} == pytest.approx(want, abs=1e-9), (direction, part)
        assert (block["tied_queries"], block["n"]) == (wanted[direction]["tied_queries"], wanted[direction]["n"])


@pytest.mark.parametrize("case", ["sq500", "mcvar"])
def test_the_geometric_mean_is_frozen_in_time_s(case):
    scores, owner = retrieval_case(case)
    want = figures("retrieval")[case]["frozen_in_time"]
    for direction, found in (
        ("t2v", ranks(scores, positives=owner)),
        ("v2t", among_captions(scores, video_of_text=owner)),
    ):
        assert summary(found)["geometric_mean"] == pytest.approx(want[direction]["geometric_mean_R1-R5-R10"], abs=1e-9)


def test_videos_without_captions_are_no_queries_of_video_to_text():
    scores, owner = retrieval_case("mcvar")
    more = np.concatenate([scores, np.full((len(scores), 3), 9, scores.dtype)], axis=1)
    for reading in (among_videos, among_captions):
        assert summary(reading(more, video_of_text=owner)) == summary(reading(scores, video_of_text=owner))


def test_a_score_that_is_not_finite_names_both_items():
    scores, owner = retrieval_case("nan12")
    row, column = np.argwhere(np.isnan(scores))[0]
    names = {"queries": [f"text{i}" for i in range(12)], "candidates": [f"video{i}" for i in range(12)]}
    with pytest.raises(UserError, match=f"row 'text{row}' and column 'video{column}' is nan"):
        ranks(scores, positives=owner, **names)
    for reading in (among_videos, among_captions):
        with pytest.raises(UserError, match=f"row {row} and column {column} is nan"):
            reading(scores, video_of_text=owner)


@pytest.mark.parametrize("scores", [np.zeros((0, 3)), np.zeros((3, 0)), np.zeros(3), np.array([["a"]])])
def test_what_is_no_matrix_of_scores_is_refused(scores):
    with pytest.raises(UserError, match="wanted numbers"):
        ranks(scores, positives=np.zeros(len(scores), int))
