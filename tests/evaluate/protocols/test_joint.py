"""Ranks after the first candidates were re-ordered, against sorting by hand; files that do not fit."""

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.evaluate.protocols.joint import Candidates, JointScores, first_candidates, joint_of, reordered
from twinreel.evaluate.protocols.scored import Scores, joint_asked, reranked

N, M = 9, 6


def case():
    """Plain and joint scores, with ties in both, and the video of each text."""
    rng = np.random.default_rng(5)
    plain, joint = rng.integers(0, 8, (N, M)) / 8, rng.integers(-9, 9, (N, M)).astype(np.float32)
    return plain, joint, np.array([0, 0, 1, 2, 2, 3, 4, 5, 5])


def by_hand(plain, joint, own, *, k, cosine):
    """The expected rank of one query: its first k candidates in the joint order, then the others in the plain one."""
    first = sorted(range(len(plain)), key=lambda j: (-plain[j], j))[:k]
    new = {j: joint[j] + cosine * plain[j] for j in first}
    if own in new:
        others = [score for j, score in new.items() if j != own]
        return 1 + sum(s > new[own] for s in others) + sum(s == new[own] for s in others) / 2
    rest = [plain[j] for j in range(len(plain)) if j not in new and j != own]
    return 1 + k + sum(s > plain[own] for s in rest) + sum(s == plain[own] for s in rest) / 2


@pytest.mark.parametrize(("k", "cosine"), [(1, 0.0), (3, 0.0), (3, 2.5), (M, 0.0)])
def test_ranks_are_those_of_the_new_order(k, cosine):
    plain, joint, owner = case()
    wanted = np.mean([by_hand(plain[i], joint[i], owner[i], k=k, cosine=cosine) for i in range(N)])
    given = {side: first_candidates(scores, k=k) for side, scores in (("videos", plain), ("texts", plain.T))}
    some = JointScores(
        candidates={
            "videos": Candidates(index=given["videos"], scores=np.take_along_axis(joint, given["videos"], 1)),
            "texts": Candidates(index=given["texts"], scores=np.take_along_axis(joint.T, given["texts"], 1)),
        }
    )
    blocks = []
    for one in (JointScores(pairs=joint), some, joint_of(some.to_arrays("x_pool"), texts=N, videos=M)["x_pool"]):
        found = Scores(scores=plain, video_of_text=owner, joint={"x_pool": one})
        blocks.append(reranked(found, methods=[f"x_pool:k={k},cosine={cosine}"]))
    assert list(blocks[0]) == [f"x_pool:k={k},cosine={cosine}"] and blocks[0] == blocks[1] == blocks[2]
    assert blocks[0][f"x_pool:k={k},cosine={cosine}"]["text_to_video"]["MnR"] == pytest.approx(wanted)


def test_a_video_finds_its_texts_in_the_new_order():
    """Each video alone: its texts first in the joint order are found first, whatever the cosine says."""
    plain, owner = np.array([[0.9, 0.8], [0.8, 0.7]]), np.array([0, 1])
    joint = np.array([[1.0, 5.0], [5.0, 1.0]], np.float32)
    found = Scores(scores=plain, video_of_text=owner, joint={"x_pool": JointScores(pairs=joint)})
    block = reranked(found, methods=["x_pool"])["x_pool:k=all"]
    assert block["text_to_video"]["MnR"] == block["video_to_text"]["MnR"] == 2
    np.testing.assert_array_equal(np.argsort(-reordered(plain, candidates=found.joint["x_pool"].first(
        "videos", plain=plain, k=0)), axis=1), [[1, 0], [0, 1]])  # fmt: skip


def test_what_is_scored_is_the_most_that_was_asked_for():
    assert joint_asked(["dsl", "cross_encoder", "cross_encoder:k=70", "cross_encoder:k=9"]) == {"cross_encoder": 70}
    assert joint_asked(["cross_encoder:k=all", "cross_encoder:k=9", "x_pool"]) == {"cross_encoder": 0, "x_pool": 0}


@pytest.mark.parametrize("given", ["cross_encoder:k=0", "cross_encoder:k=many", "x_pool:k=-1", "x_pool:cosine=high"])
def test_parameters_out_of_range_are_named(given):
    with pytest.raises(UserError, match="k must be a number of candidates or 'all'"):
        joint_asked([given])


def test_scores_that_are_not_there_are_asked_for():
    plain, _, owner = case()
    with pytest.raises(UserError, match=r"--rerank x_pool needs the scores of a head: MODEL with .*text_pooling"):
        reranked(Scores(scores=plain, video_of_text=owner), methods=["x_pool"])
    index = first_candidates(plain, k=2)
    one = Candidates(index=index, scores=np.zeros(index.shape, np.float32))
    found = Scores(scores=plain, video_of_text=owner, joint={"x_pool": JointScores(candidates={"videos": one})})
    with pytest.raises(UserError, match="k=3 asks for 3 videos of each query, and 2 were scored"):
        reranked(found, methods=["x_pool:k=3"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joint_x_pool_videos": np.zeros((N, 2), np.float32)}, r"'joint_x_pool_videos' is float32"),
        ({"joint_x_pool_videos": np.full((N, 2), M)}, "has the index 6; wanted 0 to 5"),
        ({"joint_x_pool_videos_scores": np.zeros((N, 3), np.float32)}, r"wanted float \[9, 2\]"),
        ({"joint_x_pool_videos_scores": np.full((N, 2), np.nan)}, "a score that is not finite"),
        ({"joint_x_pool_texts_scores": None}, "'joint_x_pool_texts_scores' is missing"),
        ({"joint_x_pool_pairs": np.zeros((M, N))}, r"'joint_x_pool_pairs' is float64 \[6, 9\]|wanted float \[9, 6\]"),
    ],
)
def test_files_that_do_not_fit_are_named(change, message):
    scores = {"index": np.zeros((N, 2), np.int32), "scores": np.zeros((N, 2), np.float32)}
    other = {"index": np.zeros((M, 2), np.int32), "scores": np.zeros((M, 2), np.float32)}
    made = JointScores(candidates={"videos": Candidates(**scores), "texts": Candidates(**other)}).to_arrays("x_pool")
    arrays = {key: value for key, value in (made | change).items() if value is not None}
    with pytest.raises(UserError, match=message):
        joint_of(arrays, texts=N, videos=M)
