"""The file of MMEB-V2's leaderboard, beside what VLM2Vec's own code printed for the same scores."""

import json

import numpy as np
import pytest
from evaluate_golden import figures, retrieval_case

from twinreel.evaluate.evaluate import main
from twinreel.evaluate.reports.leaderboard import write_mmeb


def written(tmp_path, case, *flags):
    scores, owner = retrieval_case(case)
    np.savez(tmp_path / "scores.npz", scores=scores, video_of_text=owner)
    assert main(["--scores", str(tmp_path / "scores.npz"), "--out", str(tmp_path / "out"), *flags]) == 0
    return tmp_path / "out" / "video" / "retrieval_score.json"


def test_the_file_holds_the_figures_of_the_code(tmp_path):
    found = json.loads(written(tmp_path, "mcvar", "--as", "mmeb-v2").read_text())
    wanted = figures("retrieval")["mcvar"]["vlm2vec_mmeb_v2"]["t2v"]
    assert {key: found[key] for key in wanted} == pytest.approx(wanted, abs=1e-9)
    assert found["num_pred"] == found["num_data"] == 79


def test_a_tied_figure_is_its_lower_bound(tmp_path):
    found = json.loads(written(tmp_path, "sq40_ties", "--as", "mmeb-v2").read_text())
    bounds = figures("retrieval")["sq40_ties"]["definition"]["t2v"]
    assert 100 * found["hit@1"] == pytest.approx(bounds["pessimistic"]["R@1"])
    assert bounds["pessimistic"]["R@1"] < bounds["optimistic"]["R@1"]


def test_no_reading_no_file(tmp_path):
    assert not written(tmp_path, "mcvar").exists()


@pytest.mark.parametrize(
    ("protocol", "name"),
    [
        ({"benchmark_protocol": {"name": "msrvtt-1ka"}, "dataset": "x"}, "MSR-VTT"),
        ({"benchmark_protocol": None, "dataset": "mine"}, "mine"),
    ],
)
def test_it_is_named_after_the_data_set(protocol, name, tmp_path):
    results = {
        "protocol": protocol,
        "text_to_video": {"n": 2},
        "read_as": {"mmeb-v2": {"figures": {"t2v": {"hit@1": [0.25, 0.5]}}}},
    }
    path = write_mmeb(tmp_path, results=results)
    assert path == tmp_path / "video" / f"{name}_score.json"
    assert json.loads(path.read_text()) == {"hit@1": 0.25, "num_pred": 2, "num_data": 2}
