"""What a task asks of its batches, against loops over the rows."""

from pathlib import Path

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.data.batches.targets import Drawn, Stream, TargetMaker, Targets
from twinreel.data.text.tokenizer import load_tokenizer

TOKENIZER = load_tokenizer(Path(__file__).parents[2] / "golden" / "tokenizers" / "clip_fast")


def span(start_s, end_s, *, label="", text="", score=None):
    return {"start_s": start_s, "end_s": end_s, "label": label, "text": text, "score": score}


ROWS = [
    {
        "clip_id": "a",
        "captions": ["a dog runs", "an animal"],
        "labels": ["dog", "park"],
        "spans": [
            span(4.0, 9.0, label="run", text="it runs", score=0.5),
            span(0.0, 2.0, label="sit", text="it sits"),
            span(3.0, 5.0, label="bark", text="it runs"),
        ],
        "questions": [
            {"question": "who runs?", "answers": ["a dog", "the dog"]},
            {"question": "where?", "answers": ["in a park"]},
        ],
        "transcript": "",
        "sentences": [
            {"start_s": 0.0, "end_s": 3.0, "text": "look"},
            {"start_s": 3.0, "end_s": 8.0, "text": "there it goes"},
        ],
    },
    {
        "clip_id": "b",
        "captions": ["a street"],
        "labels": [],
        "spans": [],
        "questions": [{"question": "what is it?", "answers": []}],
        "transcript": "no times are known",
        "sentences": [],
    },
]


def drawn(windows, *, epoch=0, caption=(0, 0)):
    two = np.arange(2)
    return Drawn(
        source=np.zeros(2, np.int32),
        record=two,
        epoch=np.full(2, epoch),
        caption=np.array(caption, np.int32),
        window=np.array(windows, np.float32),
    )


def made(targets, windows=((2.5, 6.0), (0.0, 4.0)), *, seed=-1, text="", **kwargs):
    maker = TargetMaker([ROWS], targets=targets, tokenizer=TOKENIZER, text=text, seed=seed)
    return maker.make(drawn(windows, **kwargs))


def words(ids, mask):
    found = [TOKENIZER.decode(row[real]) for row, real in zip(ids, mask, strict=True)]
    return [text.replace(" ?", "?") for text in found]


def test_nothing_is_made_that_is_not_asked_for():
    assert made(Targets()) == {}
    assert made(Targets(window=True, frame_times=True)) == {}, "times are the reader's"


def test_spans_are_relative_to_the_window_and_cut_to_it():
    found = made(Targets(spans=3, span_labels=("bark", "run")))
    np.testing.assert_allclose(found["spans_s"][0], [[0.5, 2.5], [1.5, 3.5], [0, 0]])
    assert found["spans_index"].tolist() == [[2, 0, -1], [-1, -1, -1]]
    assert found["spans_label"].tolist() == [[0, 1, -1], [-1, -1, -1]]
    assert found["spans_mask"].tolist() == [[True, True, False], [False] * 3]
    np.testing.assert_array_equal(found["spans_score"][0], np.array([np.nan, 0.5, np.nan], np.float32))


def test_a_query_comes_with_all_the_spans_that_it_means():
    targets = Targets(spans=3, streams={"query": Stream(source="span", context_length=12)})
    found = made(targets)
    assert words(found["query"], found["query_mask"])[0] == "it runs" and found["query_index"].tolist() == [2, -1]
    assert found["spans_index"].tolist() == [[2, 0, -1], [-1, -1, -1]]
    only = made(targets, ((0.0, 2.5), (0.0, 4.0)))
    assert words(only["query"], only["query_mask"])[0] == "it sits" and only["spans_index"][0].tolist() == [1, -1, -1]


def test_more_spans_than_asked_for_are_an_error():
    with pytest.raises(UserError, match=r"clip 'a' has 2 spans within 2\.50 to 6\.00 s, the task takes 1"):
        made(Targets(spans=1))


def test_an_answer_belongs_to_its_question():
    streams = {
        "question": Stream(source="question", context_length=10),
        "answer": Stream(source="answer", context_length=10),
    }
    pairs = set()
    for epoch in range(40):
        found = made(Targets(streams=streams), seed=5, epoch=epoch)
        again = made(Targets(streams=streams), seed=5, epoch=epoch)
        assert all((found[key] == again[key]).all() for key in found)
        question, answer = (words(found[key], found[f"{key}_mask"])[0] for key in streams)
        pairs.add((question, answer))
        assert found["answer_index"][1] == -1 and not words(found["answer"], found["answer_mask"])[1]
    assert pairs == {("who runs?", "a dog"), ("who runs?", "the dog"), ("where?", "in a park")}
    first = made(Targets(streams=streams))
    assert first["question_index"].tolist() == [0, 0] and first["answer_index"].tolist() == [0, -1]


def test_caption_and_transcript_follow_what_was_drawn():
    streams = {
        "caption_in": Stream(source="caption", context_length=16),
        "said": Stream(source="transcript", context_length=40),
    }
    found = made(Targets(streams=streams), caption=(1, -1), text="lower")
    assert words(found["caption_in"], found["caption_in_mask"]) == ["an animal", ""]
    assert words(found["said"], found["said_mask"]) == ["look there it goes", "no times are known"]
    later = made(Targets(streams=streams), ((3.5, 6.0), (0.0, 4.0)))
    assert words(later["said"], later["said_mask"])[0] == "there it goes"
    assert found["caption_in_index"].tolist() == [1, -1]


def test_all_labels_of_a_clip():
    assert made(Targets(labels=("dog", "cat", "park")))["labels"].tolist() == [[True, False, True], [False] * 3]


def test_an_unknown_source_is_named():
    with pytest.raises(UserError, match="unknown source of a text stream: 'questions'; did you mean 'question'"):
        Stream(source="questions", context_length=4)


def test_targets_come_with_the_batches_of_training_and_evaluation(tmp_path, media):
    from twinreel.data.batches.pipeline import eval_batches, train_batches
    from twinreel.data.manifest import Clip, Question, Span, write_manifest
    from twinreel.data.options import DataOptions
    from twinreel.data.prepare.prepare import prepare

    clips = [
        Clip(
            clip_id=f"c{i}",
            path=f"{i}.mp4",
            captions=("a film",),
            split="train",
            labels=("x",) if i else ("y", "x"),
            spans=(Span(start_s=0.5, end_s=1.0, label="late"),),
            questions=(Question(question="what is it?", answers=("a film",)),),
        )
        for i in range(3)
    ]
    for i in range(3):
        media.write(tmp_path / f"{i}.mp4", media.grey(*range(0, 240, 20)), fps=8)
    write_manifest(tmp_path / "clips.jsonl", clips=clips)
    prepare(tmp_path / "clips.jsonl", out=tmp_path / "out", fps=0, short_side=0, workers=1)
    data = DataOptions.of(
        {
            "dir": str(tmp_path / "out"),
            "batch_size": 2,
            "num_frames": 3,
            "eval_video": "resize(16)",
            "train_sampling": "uniform_jitter",
            "window_seconds": 1.0,
            "context_length": 8,
        }
    )
    targets = Targets(
        window=True,
        frame_times=True,
        spans=1,
        span_labels=("late",),
        labels=("x", "y"),
        streams={"question": Stream(source="question", context_length=9)},
    )
    [first, second] = eval_batches(data, tokenizer=TOKENIZER, split="train", batch_size=2, targets=targets)
    trained = next(train_batches(data, tokenizer=TOKENIZER, seed=1, start_step=0, targets=targets))
    for batch in (first, trained):
        start, end = batch["window_s"].T
        np.testing.assert_allclose(end - start, 1.0, atol=1e-6)
        assert batch["frame_times_s"].shape == (2, 3)
        assert ((batch["frame_times_s"] >= start[:, None] - 0.13) & (batch["frame_times_s"] < end[:, None])).all()
        wanted = np.stack([np.clip(0.5 - start, 0, 1), np.clip(1.0 - start, 0, 1)], axis=1)
        np.testing.assert_allclose(batch["spans_s"][:, 0], wanted, atol=1e-5)
        assert words(batch["question"], batch["question_mask"]) == ["what is it?"] * 2
    assert first["labels"].tolist() == [[True, True], [True, False]]
    assert second["labels"].tolist() == [[True, False], [False, False]], "the second row is padding"
