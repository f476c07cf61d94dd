"""Moments and highlights against moment_detr's evaluation (tests/golden/evaluate/moments.json), two decimals."""

import copy
import gzip
import json

import pytest
from evaluate_golden import figures

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.moments import highlight_detection, moment_retrieval

CASES = ("small12", "random60")


def brief(moments, highlights):
    """The figures of both as the last lines of moment_detr's result files name them."""
    full = moments["full"]
    made = {f"MR-full-R1@{t}": full["MR-R1"][t] for t in ("0.5", "0.7")}
    made |= {"MR-full-mAP": full["MR-mAP"]["average"]}
    made |= {f"MR-full-mAP@{t}": full["MR-mAP"][t] for t in ("0.5", "0.75")}
    made |= {f"MR-{length}-mAP": moments[length]["MR-mAP"]["average"] for length in ("short", "middle", "long")}
    return made | {f"HL-min-{level}-{key[3:]}": v for level, block in highlights.items() for key, v in block.items()}


def lines(case):
    found = figures("moments")[case]
    return found["predictions"], found["ground_truth"]


@pytest.mark.parametrize("case", CASES)
def test_moments_are_moment_detr_s(case):
    predictions, truth = lines(case)
    found, want = moment_retrieval(predictions, truth=truth), figures("moments")[case]["result"]
    for length in ("full", "short", "middle", "long"):
        for name, block in found[length].items():
            assert block == pytest.approx(want[length][name], abs=5.1e-3), (length, name)


@pytest.mark.parametrize("case", CASES)
def test_highlights_are_moment_detr_s(case):
    predictions, truth = lines(case)
    found, want = highlight_detection(predictions, truth=truth), figures("moments")[case]["result"]
    for level, block in found.items():
        assert block == pytest.approx(want[f"HL-min-{level}"], abs=5.1e-3), level
    assert brief(moment_retrieval(predictions, truth=truth), found) == pytest.approx(want["brief"], abs=5.1e-3)


@pytest.mark.real
def test_the_sample_of_1550_queries(real_dir):
    """moment_detr's own sample against the validation set of QVHighlights (CC BY-NC-SA, so neither is copied here)."""
    sample = real_dir.parent / "oracles" / "evaluate" / "qvhighlights_sample_val_preds.jsonl.gz"
    annotations = real_dir / "annotations" / "qvhighlights" / "highlight_val_release.jsonl"
    if not (sample.is_file() and annotations.is_file()):
        pytest.skip(f"no {sample.name} or {annotations.name} next to the real clips")
    predictions = [json.loads(line) for line in gzip.decompress(sample.read_bytes()).splitlines()]
    truth = [json.loads(line) for line in annotations.read_text().splitlines()]
    want = figures("moments")["sample_val_preds"]["result"]
    found = moment_retrieval(predictions, truth=truth)
    for length in ("full", "short", "middle", "long"):
        for name, block in found[length].items():
            assert block == pytest.approx(want[length][name], abs=5.1e-3), (length, name)
    for level, block in highlight_detection(predictions, truth=truth).items():
        assert block == pytest.approx(want[f"HL-min-{level}"], abs=5.1e-3), level


def test_an_exact_overlap_counts():
    """Truth [0, 100]; predictions [0, 50], [0, 55] … [0, 95]."""
    truth = [{"qid": i, "relevant_windows": [[0, 100]]} for i in range(10)]
    guesses = [{"qid": i, "pred_relevant_windows": [[0, 50 + 5 * i, 0.9]]} for i in range(10)]
    want = figures("moments")["exact_iou (truth [0,100]; predictions [0,50],[0,55]..[0,95])"]["result"]
    found = moment_retrieval(guesses, truth=truth)
    assert found["full"]["MR-R1"] == pytest.approx(want["moment_detr R1 by threshold"])
    assert found["full"]["MR-mAP"] == pytest.approx(want["moment_detr mAP by threshold"])
    assert found["short"]["MR-mAP"]["average"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, t: p.pop(), "query 12 is missing in the predictions"),
        (lambda p, t: t.pop(), "query 12 is missing in the truth"),
        (lambda p, t: p.append(p[0]), "the predictions have 13 lines for 12 queries"),
        (lambda p, t: t.clear(), "the truth has no query"),
        (lambda p, t: t[0].update(relevant_windows=[]), "query 1 has no relevant window"),
        (lambda p, t: p[0].update(pred_relevant_windows=[[1, 2]]), "wanted a list of [start_s, end_s, score]"),
    ],
)
def test_bad_moments_are_refused(change, message):
    predictions, truth = copy.deepcopy(lines("small12"))
    change(predictions, truth)
    with pytest.raises(UserError) as caught:
        moment_retrieval(predictions, truth=truth)
    assert message in str(caught.value)


def test_bad_highlights_are_refused():
    predictions, truth = copy.deepcopy(lines("small12"))
    truth[0]["relevant_clip_ids"][0] = 75
    with pytest.raises(UserError, match="ids from 0 to 74"):
        highlight_detection(predictions, truth=truth)
    predictions[0]["pred_saliency_scores"][2] = float("nan")
    with pytest.raises(UserError, match="'pred_saliency_scores of query 1' of 2 is nan"):
        highlight_detection(predictions, truth=lines("small12")[1])
