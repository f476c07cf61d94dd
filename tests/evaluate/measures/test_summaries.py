"""Summaries against pytorch-vsumm-reinforce and CA-SUM (tests/golden/evaluate/summaries.json)."""

import numpy as np
import pytest
from evaluate_golden import arrays, figures

from twinreel.base.errors import UserError
from twinreel.encode.films.shots import knapsack
from twinreel.evaluate.measures.summaries import correlations, summarise, summary_f

GOLDEN = figures("summaries")
CASES = ("plain", "ties", "long", "uncovered")
NAMES = ("F", "precision", "recall")


def inputs(case):
    one = GOLDEN[case]
    assert [last - first + 1 for first, last in one["change_points"]] == one["n_frame_per_seg"]
    return np.array(one["scores"]), {
        "picks": np.array(one["picks"]),
        "change_points": np.array(one["change_points"]),
        "n_frames": one["n_frames"],
    }


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", ["knapsack", "rank"])
def test_vsumm(case, method):
    scores, about = inputs(case)
    want, users = GOLDEN[case]["result"], arrays("summaries")[f"{case}/user_summary"]
    summary, chosen = summarise(scores, **about, method=method)
    assert chosen == want[f"vsumm {method} segments"]
    assert summary.sum() == want[f"vsumm {method} frames"]
    found = summary_f(summary, users=users)
    for ours, theirs in (("mean", "avg"), ("best", "max")):
        got = [found[ours][name] / 100 for name in NAMES]
        assert got == pytest.approx(want[f"vsumm {method} {theirs} F,P,R (0..1)"], abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_ca_sum(case):
    scores, about = inputs(case)
    want, found = GOLDEN[case]["result"], arrays("summaries")
    summary, chosen = summarise(scores, **about, rule="ca-sum")
    assert chosen == want["ca-sum segments"]
    assert (summary.sum(), len(summary)) == (want["ca-sum frames"], want["ca-sum length"])
    f = summary_f(summary, users=found[f"{case}/user_summary"])
    assert f["mean"]["F"] == pytest.approx(want["ca-sum avg F (percent)"], abs=1e-6)
    assert f["best"]["F"] == pytest.approx(want["ca-sum max F (percent)"], abs=1e-6)
    both = correlations(scores, users=found[f"{case}/user_scores"][:, ::15])
    assert [both["spearman"], both["kendall"]] == pytest.approx(want["ca-sum spearman, kendall"])


def test_where_no_segment_fits_the_summary_is_empty():
    scores, about = inputs("nothing_fits")
    want = GOLDEN["nothing_fits"]["result"]
    for rule in ("vsumm", "ca-sum"):
        summary, chosen = summarise(scores, **about, rule=rule)
        found = summary_f(summary, users=arrays("summaries")["nothing_fits/user_summary"])
        assert (chosen, found["empty"], found["mean"]["F"]) == ([], True, want["vsumm avg F"])
        assert summary.sum() == want[f"{rule} frames"]
    assert want["ca-sum avg F"] == "nan"  # where `empty` says that the summary has no frame


@pytest.mark.parametrize("case", sorted(GOLDEN["knapsack"]))
def test_the_knapsack_picks_what_theirs_pick(case):
    one = GOLDEN["knapsack"][case]
    got = knapsack(np.array(one["values"]), weights=np.array(one["weights"]), capacity=one["capacity"])
    assert got == one["vsumm picks"] == one["ca-sum picks"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"change_points": [[0, 5], [5, 9]]}, "are no segments of 1500 frames"),
        ({"change_points": [[0, 1500]]}, "are no segments"),
        ({"picks": np.arange(3)}, "'picks' is int64 of shape (3,)"),
        ({"picks": np.arange(100)[::-1]}, "'picks' do not rise"),
        ({"rule": "tvsum"}, "'tvsum'"),
        ({"method": "greedy"}, "'greedy'"),
    ],
)
def test_bad_input_is_refused(change, message):
    scores, about = inputs("plain")
    with pytest.raises(UserError) as caught:
        summarise(scores, **(about | change))
    assert message in str(caught.value)


def test_annotators_without_spread_are_counted():
    users = np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]])
    assert correlations(np.array([1.0, 3.0, 2.0]), users=users)["constant"] == 1
    with pytest.raises(UserError, match="no correlation is defined"):
        correlations(np.ones(3), users=users)
    with pytest.raises(UserError, match="'users' has 3 frames and 'scores' 2"):
        correlations(np.arange(2.0), users=users)
