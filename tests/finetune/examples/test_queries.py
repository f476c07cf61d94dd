"""What is to be found in clips, and how much their moments are worth, from lines of clips.jsonl; figures by hand."""

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.finetune.examples.queries import queries_of, span_label_set
from twinreel.finetune.figures.localisation import action_figures, best_guess, moment_figures
from twinreel.finetune.figures.saliency import highlight_figures, marks_of, step_targets


def span(start, end, *, text="", label="", score=None):
    return {"start_s": start, "end_s": end, "text": text, "label": label, "score": score}


ROWS = [
    {
        "clip_id": "a",
        "duration_s": 10.0,
        "spans": [span(6, 8, text="b", label="run"), span(0, 2, text="a", label="sit")],
    },
    {"clip_id": "none", "duration_s": 5.0, "spans": []},
    {
        "clip_id": "c",
        "duration_s": 4.0,
        "spans": [span(1, 2, text="a"), span(3, 4, text="a", score=2), span(2, 2, text="z")],
    },
    {"clip_id": "d", "duration_s": 8.0, "spans": [span(0, 8, label="odd")]},
]


def test_a_query_for_each_text_with_all_of_its_spans():
    got = queries_of(ROWS, split="test", query="text")
    assert list(zip(got.record.tolist(), got.texts, strict=True)) == [(0, "a"), (0, "b"), (2, "a")]
    assert [spans.tolist() for spans in got.spans] == [[[0, 2]], [[6, 8]], [[1, 2], [3, 4]]]
    assert got.clips.label.tolist() == [0, -1, 0, -1] and got.labels == ()
    times, mask, label = got.padded_spans()
    np.testing.assert_allclose(times[2], [[0.25, 0.5], [0.75, 1]])
    assert mask.tolist() == [[True, False], [True, False], [True, True]] and not label.any()
    assert got.only(np.array([1])).texts == ("b",)


def test_an_example_for_each_clip_with_labelled_spans():
    assert span_label_set(ROWS, labels=(), min_count=1) == ("odd", "run", "sit")
    got = queries_of(ROWS, split="test", query="label", labels=("run", "sit"))
    assert got.record.tolist() == [0, 3] and [one.tolist() for one in got.span_labels] == [[1, 0], []]
    with pytest.raises(UserError, match=r"no label stands on at least config\.task\.min_count=2 spans"):
        span_label_set(ROWS, labels=(), min_count=2)


def test_batches_bring_the_query_and_the_spans_of_each_row():
    queries = queries_of(ROWS, split="test", query="text")
    batch = {"tokens": np.zeros((2, 1)), "example": np.array([2, 0])}
    asked = []

    def encode(texts):
        asked.append(list(texts))
        return np.zeros((2, 3), np.int32), np.ones((2, 3), bool)

    [got] = queries.attach(iter([batch]), encode=encode)
    assert asked == [["a", "a"]] and got["spans_mask"].tolist() == [[True, True], [True, False]]
    np.testing.assert_allclose(got["spans"][1, 0], [0, 0.2])


def test_marks_of_spans_and_of_annotators():
    rows = [*ROWS[:3], ROWS[3] | {"meta": {"saliency": [[4, 1], [2, 3]], "relevant_clip_ids": [1, 3]}}]
    spans = queries_of(rows, split="t", query="clip")
    marks = marks_of(spans.only(np.array([0, 1])), rows=rows, seconds=1.0, highest=4.0)
    assert marks[0][:, 0].tolist() == [4, 4, 0, 0, 0, 0, 4, 4, 0, 0] and marks[1][:, 0].tolist() == [0, 4, 0, 2]
    annotated = spans.only(np.array([2]))
    assert marks_of(annotated, rows=rows, seconds=2.0, highest=4.0)[0].tolist() == [[0, 0], [4, 1], [0, 0], [2, 3]]
    short = [*rows[:3], rows[3] | {"duration_s": 7.97, "meta": rows[3]["meta"] | {"duration_s": 8.0}}]  # of a codec
    found = queries_of(short, split="t", query="clip").only(np.array([2]))
    assert len(marks_of(found, rows=short, seconds=2.0, highest=4.0)[0]) == 4  # as the annotators counted
    np.testing.assert_allclose(step_targets(marks, steps=2), [[0, 1], [1, 0.5]])  # at a quarter and three quarters
    with pytest.raises(UserError, match=r"set config\.task\.moment_seconds=2"):
        marks_of(annotated, rows=rows, seconds=1.0, highest=4.0)
    with pytest.raises(UserError, match=r"score 2; config\.task\.highest_score=1"):
        marks_of(spans, rows=rows, seconds=1.0, highest=1.0)
    best = highlight_figures([np.array([0.0, 1.0, 0.0, 0.5])], marks=marks[1:2])
    assert best["levels"]["VeryGood"] == {"HL-mAP": 100.0, "HL-Hit1": 100.0} and best["chance"] == 25.0


def test_moments_in_seconds_and_the_guess_without_a_clip():
    queries = queries_of(ROWS, split="test", query="text")
    found = [np.array([[0, 0.2, 0.9, 0]]), np.array([[0.6, 0.7, 0.9, 0], [0.6, 0.8, 0.8, 0]]), np.zeros((0, 4))]
    got = moment_figures(found, queries=queries)["grounding"]
    assert got["R@1,IoU>0.5"] == got["R@1,IoU>0.7"] == pytest.approx(100 / 3)
    assert got["R@1,IoU>=0.5"] == got["R@5,IoU>0.5"] == pytest.approx(200 / 3)
    assert got["mIoU"] == pytest.approx(50.0)
    [guess] = best_guess(queries, count=1)
    shares = [[0, 0.2], [0.6, 0.8], [0.25, 0.5], [0.75, 1]]
    assert guess.shape == (1, 4) and guess[0, :2].tolist() in shares and guess[0, 2] == pytest.approx(0.25)


def test_actions_and_their_guess():
    queries = queries_of(ROWS, split="test", query="label", labels=("run", "sit"))
    found = [np.array([[0.6, 0.8, 0.9, 0], [0.1, 0.2, 0.8, 1]]), np.zeros((0, 4))]
    got = action_figures(found, queries=queries)
    assert got["per_class"]["run"] == [1.0] * 10 and got["per_class"]["sit"][:2] == [1.0, 0.0]
    assert got["mAP@0.5"] == 1.0 and got["thumos"]["average"] == pytest.approx((1 + 1 + 1 + 0.5 + 0.5) / 5)
    guess = best_guess(queries, count=2)
    assert action_figures(guess, queries=queries)["average"] == 0.5  # it also guesses in the other clip
