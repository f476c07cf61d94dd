"""Zero-shot classification through the verb: the figures of other projects' code, a split of records, bad input."""

import json

import numpy as np
import pytest
from evaluate_golden import arrays, figures
from scipy.stats import binomtest

from twinreel.base.errors import UserError
from twinreel.evaluate.evaluate import main
from twinreel.evaluate.protocols.classified import Classified
from twinreel.evaluate.protocols.zero_shot import class_scores, zero_shot_report
from twinreel.evaluate.reports.zero_shot_terminal import print_zero_shot

# figures -> flags
FIGURES = {
    "perception_models": ("--frame_rule", "mean_then_unit"),
    "clip_benchmark(mean of unit frames)": (),
    "internvideo2_clip": ("--frame_rule", "mean_then_unit", "--rule", "mean_of_cosines"),
    "internvideo2_mm": ("--frame_rule", "mean_then_unit", "--rule", "mean_of_cosines"),
    "actionclip": ("--frame_rule", "mean_then_unit", "--rule", "softmax_per_template"),
}
RERANKED = {"internvideo2_clip": "dsl:scale=1", "internvideo2_mm": "dsl:scale=1,per_template=true"}
VIEWS = {
    "mmaction2 average_clips=score": "score",
    "mmaction2 average_clips=prob": "prob",
    "slowfast logits max": "max",
    "slowfast probabilities max (its heads end in softmax in eval)": "prob_max",
}


def percent(value):
    return 100 * value if value < 1 else value


@pytest.fixture
def file(tmp_path):
    """Return a function that writes an `.npz` and returns its path."""

    def write(**named):
        np.savez(tmp_path / "given.npz", **named)
        return str(tmp_path / "given.npz")

    return write


def embedded(**changes):
    found = arrays("classify")
    made = {"class_text": found["text"], "video": found["video"], "labels": found["labels"]} | changes
    return {key: value for key, value in made.items() if value is not None}


def measured(capsys, *argv):
    assert main(["--zero_shot", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("source", FIGURES)
def test_the_figures_of_other_projects(source, file, capsys):
    want = figures("classify")[source]
    reranked = ["--rerank", RERANKED[source]] if source in RERANKED else []
    found = measured(capsys, "--embeddings", file(**embedded()), *FIGURES[source], *reranked)
    names = ("acc1", "acc5") if "acc1" in want else ("top1", "top5")
    got = [found["accuracy"]["top1"], found["accuracy"]["top5"]]
    assert got == pytest.approx([percent(want[name]) for name in names], abs=5.1e-3)
    if reranked:
        got = found["reranked"][RERANKED[source]]
        assert [got["top1"], got["top5"]] == pytest.approx([want["dsl_top1"], want["dsl_top5"]], abs=5.1e-3)
    if "mean_per_class_recall" in want:
        assert found["mean_class_accuracy"]["over_truth"] / 100 == pytest.approx(want["mean_per_class_recall"])
    low, high = found["accuracy"]["top1_interval_95"]
    assert low < found["accuracy"]["top1"] < high


def test_what_stands_beside_the_figures(file, capsys):
    found = measured(capsys, "--embeddings", file(**embedded()), "--frame_rule", "mean_then_unit")
    reading = "mmaction2 (classes seen in truth or prediction; 0 where truth has none)"
    want = figures("classify")["mean_class"][reading]
    assert found["mean_class_accuracy"]["over_truth_or_predicted"] / 100 == pytest.approx(want)
    assert found["per_class"][11] == {"name": "class 11", "n": 0, "top1": None, "read_as": "class 11", "predicted": 4}
    truth = arrays("classify")["labels"]
    counts = np.zeros((12, 12), int)
    for clip, label in zip(found["clips"], truth, strict=True):
        assert clip["label"] == f"class {label}"
        counts[label, int(clip["predicted"].split()[1])] += 1
        assert (clip["rank"] == 1) == (clip["predicted"] == clip["label"])
    np.fill_diagonal(counts, 0)
    first = found["most_confused"][0]
    assert first["count"] == counts.max() == counts[int(first["truth"].split()[1]), int(first["predicted"].split()[1])]
    assert found["protocol"]["rule"] == "unit_text_means" and found["protocol"]["frame_rule"] == "mean_then_unit"


def test_the_scale_changes_the_calibration_only(file, capsys):
    path = file(**embedded(scale=np.float64(20.0)))
    sharp, flat = measured(capsys, "--embeddings", path), measured(capsys, "--embeddings", path, "--scale", "1")
    assert sharp["accuracy"] == flat["accuracy"]
    assert (sharp["protocol"]["scale"], flat["protocol"]["scale"]) == (20.0, 1.0)
    frames = arrays("classify")["video"]
    unit = frames / np.linalg.norm(frames, axis=-1, keepdims=True)
    mean = unit.mean(axis=1) / np.linalg.norm(unit.mean(axis=1), axis=-1, keepdims=True)
    logits = 20 * mean @ arrays("classify")["openclip_weights"]
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    confidence = (weights / weights.sum(axis=1, keepdims=True)).max(axis=1)
    assert sharp["calibration"]["mean_confidence"] == pytest.approx(100 * confidence.mean(), abs=1e-3)
    assert flat["calibration"]["mean_confidence"] < sharp["calibration"]["mean_confidence"]


@pytest.mark.parametrize("source", VIEWS)
def test_scores_of_several_views(source, file, capsys):
    found, want = arrays("classify"), figures("classify")["views"][source]
    path = file(scores=found["view_logits"].reshape(60, 3, 12), labels=found["view_labels"])
    got = measured(capsys, "--scores", path, "--view_rule", VIEWS[source])
    assert got["accuracy"]["top1"] == pytest.approx(percent(want["top1"]), abs=5.1e-3)
    assert got["accuracy"]["top5"] == pytest.approx(percent(want["top5"]), abs=5.1e-3)


@pytest.mark.parametrize("case", ["plain", "tied"])
def test_several_labels_per_clip(case, file, capsys):
    found, want = arrays("classify"), figures("classify")["multilabel"][case]
    scores = found["multilabel_scores" + ("_tied" if case == "tied" else "")]
    path = file(scores=scores, labels=found["multilabel_targets"])
    got = measured(capsys, "--scores", path)["multilabel"]
    exact = {
        "mAP": "mmaction2 mean_average_precision (class without positives skipped)",
        "mAP_absent_as_zero": "sklearn average_precision_score macro",
        "mAP_micro": "sklearn average_precision_score micro",
        "mAP_weighted": "sklearn average_precision_score weighted",
        "mAP_samples": "sklearn average_precision_score samples",
    }
    for key, name in exact.items():
        assert got[key] / 100 == pytest.approx(want[name]), key
    for key in ("micro", "macro", "samples"):
        assert got["f1_at_0.5"][key] / 100 == pytest.approx(want[f"sklearn F1 {key} at 0.5"])
    bounded = {"hit@1": "youtube-8m Hit@1", "perr": "youtube-8m PERR"}
    bounded |= {"gap@3": "youtube-8m GAP@3", "mAP_kept@3": "youtube-8m mAP (top_k=3 kept per video)"}
    got = measured(capsys, "--scores", path, "--keep", "3")["multilabel"]
    for key, name in bounded.items():
        low, high = (got[order][key] / 100 for order in ("pessimistic", "optimistic"))
        assert low - 1e-6 <= want[name] <= high + 1e-6, key
        assert low <= got[key] / 100 <= high


def test_equal_texts_tie_and_are_resolved_in_expectation():
    rng = np.random.default_rng(0)
    text = np.repeat(rng.normal(size=(1, 3, 37)), 7, axis=0)
    video = rng.normal(size=(50, 37))
    for rule in ("unit_text_means", "mean_of_cosines", "softmax_per_template", "softmax_over_pairs"):
        scores = class_scores(text, video=video, rule=rule)
        assert (scores == scores[:, :1]).all()
    found = zero_shot_report(Classified(class_text=text, video=video, labels=np.arange(50) % 7))["accuracy"]
    assert found["top1"] == pytest.approx(100 / 7) == found["chance"]
    assert (found["optimistic"]["top1"], found["pessimistic"]["top1"]) == (100, 0)


def test_blocks_of_clips_give_the_scores_of_the_whole(monkeypatch):
    found = arrays("classify")
    whole = class_scores(found["text"], video=found["video"], rule="softmax_per_template")
    monkeypatch.setattr("twinreel.evaluate.protocols.zero_shot._BLOCK", 7 * 48)
    assert class_scores(found["text"], video=found["video"], rule="softmax_per_template") == pytest.approx(whole)


def test_one_clip_has_no_interval(file, capsys):
    made = embedded(video=arrays("classify")["video"][:1], labels=arrays("classify")["labels"][:1])
    found = measured(capsys, "--embeddings", file(**made))
    assert found["accuracy"]["top1_interval_95"] is None and found["accuracy"]["n"] == 1


@pytest.mark.parametrize("right", [True, False])
def test_clips_that_are_all_right_or_all_wrong_leave_an_interval(right):
    text = np.eye(3)[:, None]
    labels = np.array([0, 1, 2] * 4)
    video = np.eye(3)[labels if right else (labels + 1) % 3]
    found = zero_shot_report(Classified(class_text=text, video=video, labels=labels))["accuracy"]
    wanted = 100 * np.array(binomtest(12 * right, 12).proportion_ci(method="wilson"))
    assert found["top1"] == 100 * right and found["top1_interval_95"] == pytest.approx(wanted)


def test_figures_without_some_clips_are_marked(capsys):
    text, labels = np.eye(3)[:, None], np.array([0, 1, 2, 0])
    coverage = {"expected": 5, "found": 4, "missing": 1, "fraction": 0.8, "missing_clips": []}
    given = {"class_text": text, "video": np.eye(3)[labels], "labels": labels}
    found = zero_shot_report(Classified(**given, coverage=coverage))
    assert found["marked"] and found["accuracy"]["marked"]
    print_zero_shot(found)
    told = capsys.readouterr().out
    assert "100.00*" in told and "* not comparable with figures of the whole test set: 1 of 5 clips are missing" in told
    assert "marked" not in zero_shot_report(Classified(**given))


NAN = np.full((90, 16), np.nan)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "has no array 'labels'"),
        ({"class_text": None}, "has no array 'class_text'"),
        ({"labels": np.full(90, 12)}, r"'labels'\[0\] is 12; wanted an index from 0 to 11"),
        ({"labels": np.zeros(90)}, "'labels' is float64"),
        ({"labels": np.zeros((90, 12))}, "'labels' of row 0 has no class"),
        ({"labels": np.zeros((90, 3))}, r"'labels' is float64 of shape \(90, 3\)"),
        ({"video": np.ones((90, 8))}, "'class_text' has width 16 and 'video' has width 8"),
        ({"video": np.zeros((90, 5, 16))}, "'video' of clip 'clip 0', frame 0, is all zero"),
        ({"video": NAN}, "'video' of clip 'clip 0' is all zero or not finite"),
        ({"class_text": np.zeros((12, 4, 16)), "classes": np.array(["run"] * 12)}, "class 'run', template 0, is all"),
        ({"class_text": np.ones((12, 16))}, "'class_text' is float64 of shape"),
        ({"class_text": np.ones((0, 4, 16))}, "'class_text' is float64 of shape"),
        ({"classes": np.array(["run", "jump"])}, "'classes' has 2 entries; wanted 12"),
        ({"scale": np.ones(3)}, "'scale' is float64 of shape"),
        ({"scale": np.zeros(1)}, "--scale is 0.0"),
    ],
)
def test_bad_arrays_are_refused(changes, message, file):
    with pytest.raises(UserError, match=message):
        main(["--zero_shot", "--embeddings", file(**embedded(**changes))])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--rule", "unit_text_mean"], "did you mean 'unit_text_means'"),
        (["--frame_rule", "mean"], "unknown value of --frame_rule 'mean'"),
        (["--view_rule", "max"], "embeddings have none of single windows"),
        (["--templates", "plain"], "--templates chooses what a model embeds"),
        (["--scale", "-1"], "--scale is -1.0"),
        (["--as", "pe"], "--as belongs to retrieval"),
        (["--captions", "first"], "--captions belongs to retrieval"),
        (["--benchmark", "msvd"], "--benchmark msvd belongs to retrieval, and the flags ask for zero-shot"),
        (["--rerank", "qb_norm"], "unknown --rerank 'qb_norm'"),
        (["--data", "somewhere"], "got both --embeddings and --data"),
    ],
)
def test_flags_that_do_not_fit_are_refused(argv, message, file):
    with pytest.raises(UserError, match=message):
        main(["--zero_shot", "--embeddings", file(**embedded()), *argv])


def test_flags_of_classification_need_it(file):
    with pytest.raises(UserError, match="--rule belongs to zero-shot classification; add --zero_shot"):
        main(["--embeddings", file(**embedded()), "--rule", "mean_of_cosines"])
    with pytest.raises(UserError, match="row 'clip 1' and column 'class 2' is nan"):
        scores = np.zeros((4, 3))
        scores[1, 2] = np.nan
        main(["--zero_shot", "--scores", file(scores=scores, labels=np.zeros(4, int))])
