"""What `twinreel evaluate` says of files that it cannot measure, and of small ones that it can."""

import json

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.evaluate.evaluate import main

RNG = np.random.default_rng(0)
TEXT, VIDEO, OWNER = RNG.normal(size=(4, 8)), RNG.normal(size=(4, 8)), np.arange(4)
SCORES, CLASSES = RNG.normal(size=(4, 4)), RNG.normal(size=(3, 2, 8))
GIVEN = {
    "--embeddings": {"text": TEXT, "video": VIDEO, "video_of_text": OWNER},
    "--scores": {"scores": SCORES, "video_of_text": OWNER},
    "--zero_shot": {"class_text": CLASSES, "video": VIDEO, "labels": np.array([0, 1, 0, 2])},
}


def changed(array, place, value):
    made = array.copy()
    made[place] = value
    return made


@pytest.fixture
def run(tmp_path, capsys):
    """Return a function that measures a file of arrays and gives the JSON."""

    def measured(kind, **arrays):
        np.savez(tmp_path / "file.npz", **(GIVEN[kind] | arrays))
        flags = [kind, "--embeddings"] if kind == "--zero_shot" else [kind]
        assert main([*flags, str(tmp_path / "file.npz"), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return measured


@pytest.mark.parametrize(
    ("kind", "arrays", "said"),
    [
        ("--embeddings", {"video": VIDEO[:, :6]}, "'text' has width 8 and 'video' has width 6; both must come from"),
        ("--embeddings", {"text": changed(TEXT, 2, 0)}, "row 2 of 'text' is all zero"),
        ("--embeddings", {"video": changed(VIDEO, (1, 3), np.nan)}, "row 1 of 'video' is not finite"),
        ("--embeddings", {"video": changed(VIDEO, (3, 0), np.inf)}, "row 3 of 'video' is not finite"),
        ("--embeddings", {"video_of_text": np.array([0, 1, 2, 9])}, r"'video_of_text'\[3\] is 9; wanted an index from"),
        ("--embeddings", {"video_of_text": np.arange(3)}, r"shape \(3,\); wanted integers of shape \(4,\)"),
        ("--embeddings", {"text": TEXT[:0], "video_of_text": OWNER[:0]}, "neither of them 0"),
        ("--scores", {"scores": changed(SCORES, (0, 1), np.nan)}, "of row 0 and column 1 is nan"),
        ("--scores", {"video_ids": np.array(["a", "b", "b", "c"])}, "'video_ids' has 'b' twice, in rows 1 and 2"),
        ("--scores", {"text_ids": np.array(["a", "b", "c", "a"])}, "'text_ids' has 'a' twice, in rows 0 and 3"),
        ("--scores", {"video_ids": np.array(["a", "b", "c"])}, "'video_ids' has 3 entries; wanted 4"),
        ("--zero_shot", {"labels": np.array([0, 1, 0, 3])}, r"'labels'\[3\] is 3; wanted an index from 0 to 2"),
        ("--zero_shot", {"class_text": CLASSES[..., :5]}, "has width 5 and 'video' has width 8"),
        ("--zero_shot", {"class_text": changed(CLASSES, (1, 0), 0)}, "'class 1', template 0, is all zero"),
    ],
)
def test_the_error_names_the_array_and_the_row(kind, arrays, said, run):
    with pytest.raises(UserError, match=said):
        run(kind, **arrays)


def test_equal_texts_are_no_error(run):
    """Two clips may have one caption; ids may not repeat."""
    assert run("--scores", texts=np.array(["a dog", "a dog", "a cat", "rain"]))["protocol"]["distinct_texts"] == 3


@pytest.mark.parametrize("kind", ["--embeddings", "--scores"])
def test_one_query_is_measured(kind, run):
    array = "text" if kind == "--embeddings" else "scores"
    found = run(kind, **{array: GIVEN[kind][array][:1], "video_of_text": np.array([2])})
    assert found["text_to_video"]["n"] == 1 and found["protocol"]["videos_without_text"] == 3
    assert "intervals" not in found, "one video says nothing about the spread"
    if kind == "--scores":
        assert found["text_to_video"]["MnR"] == 1 + np.sum(SCORES[0] > SCORES[0, 2])


def test_a_class_without_clips_is_counted_and_can_only_be_wrong(run):
    scores = np.array([[2.0, 1, 0], [0, 2, 1], [0, 1, 2], [1, 2, 0]])  # clip 2 is taken for the class without clips
    found = run("--zero_shot", class_text=np.eye(3)[:, None], video=scores, labels=np.array([0, 1, 0, 1]))
    assert [row["name"] for row in found["per_class"] if row["n"] == 0] == ["class 2"]
    assert found["mean_class_accuracy"] == {"over_truth": 75.0, "over_truth_or_predicted": 50.0, "absent": 1}
