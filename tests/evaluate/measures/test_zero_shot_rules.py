"""Zero-shot score rules against the scores and figures of the projects that use them."""

import numpy as np
import pytest
from evaluate_golden import arrays, figures

from twinreel.base.errors import UserError
from twinreel.evaluate.measures import zero_shot_rules as rules
from twinreel.evaluate.measures.classes import mean_class_accuracy, top_k
from twinreel.evaluate.measures.rerank import dual_softmax

# figures -> (rule of the frames, rule of the scores)
FIGURES = {
    "perception_models": ("mean_then_unit", "unit_text_means"),
    "clip_benchmark(mean of unit frames)": ("unit_frames", "unit_text_means"),
    "internvideo2_clip": ("mean_then_unit", "mean_of_cosines"),
    "internvideo2_mm": ("mean_then_unit", "mean_of_cosines"),
    "actionclip": ("mean_then_unit", "softmax_per_template"),
}


def scored(frames, rule):
    found = arrays("classify")
    video = rules.video_vectors(found["video"], rule=frames)
    return rules.RULES[rule](found["text"], video=video), found["labels"]


def percent(want, *names):
    values = [want[name] for name in names]
    return [100 * value if value < 1 else value for value in values]


@pytest.mark.parametrize("source", FIGURES)
def test_each_rule_gives_its_project_s_figures(source):
    want = figures("classify")[source]
    scores, labels = scored(*FIGURES[source])
    names = ("acc1", "acc5") if "acc1" in want else ("top1", "top5")
    found = top_k(scores, labels=labels)
    assert [found["top1"], found["top5"]] == pytest.approx(percent(want, *names), abs=5.1e-3)
    if "mean_per_class_recall" in want:
        found = mean_class_accuracy(scores.argmax(axis=1), labels=labels, classes=12)
        assert found["over_truth"] / 100 == pytest.approx(want["mean_per_class_recall"])


def test_the_further_rules_of_texts_and_frames():
    want = figures("classify")["rules (CLIP_benchmark's accuracy())"]
    pairs = {
        "open_clip weights: unit texts, mean, unit; video: mean of raw frames, unit": (
            "mean_then_unit",
            "unit_text_means",
        ),
        "the same weights; video: unit frames, mean, unit": ("unit_frames", "unit_text_means"),
        "mean of raw texts, unit; video: mean of raw frames, unit": ("mean_then_unit", "raw_text_means"),
    }
    assert pairs.keys() == want.keys()
    for name, pair in pairs.items():
        scores, labels = scored(*pair)
        found = top_k(scores, labels=labels)
        assert [found["top1"], found["top5"]] == pytest.approx(percent(want[name], "acc1", "acc5")), name


def test_scores_and_weights_are_theirs():
    found = arrays("classify")
    assert pytest.approx(found["openclip_weights"], abs=1e-6) == rules.class_weights(found["text"]).T
    assert 100 * scored("mean_then_unit", "unit_text_means")[0] == pytest.approx(found["pe_logits"], abs=1e-4)
    mean = scored("mean_then_unit", "mean_of_cosines")[0]
    assert mean == pytest.approx(found["internvideo2_clip_scores"], abs=1e-5)
    unscaled = rules.video_vectors(found["video"], rule="unit_frames_unscaled")
    assert unscaled == pytest.approx(found["pe_retrieval_video"], abs=1e-6)
    assert np.linalg.norm(unscaled, axis=1) == pytest.approx(found["pe_retrieval_norms"], abs=1e-6)


def test_dual_softmax_of_classes_is_internvideo2_s():
    """Its `tasks_clip` re-weights the scores of classes, its `tasks` those of templates before their mean."""
    scores, labels = scored("mean_then_unit", "mean_of_cosines")
    found = arrays("classify")
    video = rules.video_vectors(found["video"], rule="mean_then_unit")
    of_templates = [rules.mean_of_cosines(found["text"][:, [t]], video=video) for t in range(4)]
    both = {
        "internvideo2_clip": dual_softmax(scores, scale=1.0, direction="t2v"),
        "internvideo2_mm": np.mean([dual_softmax(one, scale=1.0, direction="t2v") for one in of_templates], axis=0),
    }
    for source, weighted in both.items():
        got, want = top_k(weighted, labels=labels), figures("classify")[source]
        assert [got["top1"], got["top5"]] == pytest.approx([want["dsl_top1"], want["dsl_top5"]], abs=5.1e-3)


def test_a_softmax_over_pairs_is_a_loop():
    found = arrays("classify")
    video = rules.video_vectors(found["video"])[:3]
    text = found["text"] / np.linalg.norm(found["text"], axis=-1, keepdims=True)
    got = rules.softmax_over_pairs(found["text"], video=video, scale=7.0)
    for row, vector in enumerate(video):
        weights = np.exp(7.0 * (text @ vector))
        assert got[row] == pytest.approx((weights / weights.sum()).mean(axis=1))


VIEWS = {
    "mmaction2 average_clips=score": "score",
    "mmaction2 average_clips=prob": "prob",
    "slowfast logits sum": "score",
    "slowfast probabilities sum (its heads end in softmax in eval)": "prob",
    "slowfast logits max": "max",
    "slowfast probabilities max (its heads end in softmax in eval)": "prob_max",
}


@pytest.mark.parametrize("source", VIEWS)
def test_views(source):
    found, want = arrays("classify"), figures("classify")["views"][source]
    scores = rules.combine_views(found["view_logits"].reshape(60, 3, 12), rule=VIEWS[source])
    got = top_k(scores, labels=found["view_labels"])
    assert [got["top1"], got["top5"]] == pytest.approx(percent(want, "top1", "top5"), abs=5.1e-3)
    if "mean_class" in want:
        got = mean_class_accuracy(scores.argmax(axis=1), labels=found["view_labels"], classes=12)
        assert got["over_truth_or_predicted"] / 100 == pytest.approx(want["mean_class"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rules.class_weights(np.zeros((2, 3, 4))), "text is all zero at [0, 0]"),
        (lambda: rules.class_weights(np.full((2, 3, 4), np.nan)), "'text' of row 0, entry 0 is not finite"),
        (lambda: rules.class_weights(np.ones((2, 0, 4))), "'text' is float64 of shape (2, 0, 4)"),
        (lambda: rules.video_vectors(np.ones((2, 4))), "'video' is float64 of shape (2, 4)"),
        (lambda: rules.video_vectors(np.ones((2, 3, 4)), rule="mean"), "'mean'"),
        (lambda: rules.combine_views(np.ones((2, 3, 4)), rule="average"), "'average'"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value)
