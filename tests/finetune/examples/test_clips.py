"""Label sets, labelled clips, and hold-outs by source file."""

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.finetune.examples.clips import hold_out, label_set, labelled_clips, shared_files


def rows(*labels, files=None, groups=None):
    return [
        {
            "clip_id": f"clip{i}",
            "labels": [] if label is None else [label],
            "group": groups[i] if groups else None,
            "file": files[i] if files else f"{i}.mp4",
        }
        for i, label in enumerate(labels)
    ]


def test_labels_of_the_train_split_sorted_and_frequent_enough():
    clips = rows("run", "jump", None, "jump", "run", "rare")
    assert label_set(clips, min_count=2) == ("jump", "run")
    assert label_set(clips, min_count=1) == ("jump", "rare", "run")
    assert label_set(clips, labels=("run", "rare"), min_count=2) == ("run", "rare")


def test_only_the_first_label_counts():
    clips = [row | {"labels": labels} for row, labels in zip(rows("", ""), (["x", "y"], ["z"]), strict=True)]
    assert label_set(clips) == ("x", "z")


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"labels": ("jmup", "run")}, "unknown label in config.task.labels: 'jmup'; did you mean 'jump'"),
        ({"labels": ("run", "run")}, "names a label twice"),
        ({"labels": ("run",)}, "two classes or more, got 1"),
        ({"min_count": 3}, r"got 0 with at least 3 clips.*jump \(2\)"),
    ],
)
def test_bad_label_sets(options, wanted):
    with pytest.raises(UserError, match=wanted):
        label_set(rows("run", "jump", "jump", "run"), **options)


def test_clips_of_other_labels_take_no_part():
    part = labelled_clips(rows("run", None, "jump", "other"), split="train", labels=("jump", "run"))
    assert part.label.tolist() == [1, -1, 0, -1]
    assert part.indices.tolist() == [0, 2] and len(part) == 2


def test_attach_marks_rows_by_clip_index():
    part = labelled_clips(rows("run", None, "jump"), split="train", labels=("jump", "run"))
    batch = {
        "video": np.zeros((4, 1), np.uint8),
        "text": np.zeros((4, 2), np.int32),
        "clip_index": np.array([2, 1, 0, 0], np.int64),
        "valid": np.array([True, True, True, False]),
    }
    (got,) = part.attach(iter([batch]))
    assert set(got) == {"video", "clip_index", "label", "valid"}
    assert got["label"].tolist() == [0, -1, 1, -1] and got["label"].dtype == np.int32
    assert got["valid"].tolist() == [True, False, True, False]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_windows_of_one_file_are_never_on_both_sides(share):
    """200 clips cut from 40 films, five windows each; every film shows both classes."""
    files = [f"film{i // 5}.mp4" for i in range(200)]
    clips = rows(*["run", "jump"] * 100, files=files)
    whole = labelled_clips(clips, split="train", labels=("jump", "run"))
    train, held = hold_out(whole, rows=clips, share=share)
    assert sorted([*train.indices, *held.indices]) == whole.indices.tolist()
    assert not {files[i] for i in train.indices} & {files[i] for i in held.indices}
    assert abs(len(held) - 200 * share) <= 10 and len(held) > 0
    assert {0, 1} == set(train.label[train.indices]) == set(held.label[held.indices])
    assert shared_files(held, rows=clips, trained=train, train_rows=clips) == 0
    again = hold_out(whole, rows=clips, share=share)[1]
    np.testing.assert_array_equal(again.label, held.label)


def test_clips_of_one_group_stay_together_though_their_files_differ():
    groups = [f"g{i // 2}" for i in range(80)]
    clips = rows(*["run", "jump"] * 40, groups=groups)
    train, held = hold_out(labelled_clips(clips, split="t", labels=("jump", "run")), rows=clips, share=0.3)
    assert not {groups[i] for i in train.indices} & {groups[i] for i in held.indices} and len(held)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_every_class_of_several_files_is_on_both_sides(share):
    clips = rows("run", "run", "jump", "jump")
    train, held = hold_out(labelled_clips(clips, split="t", labels=("jump", "run")), rows=clips, share=share)
    assert sorted(train.label[train.indices]) == sorted(held.label[held.indices]) == [0, 1]


def test_a_class_of_one_file_is_trained_on():
    clips = rows("run", "run", "jump", "jump", files=["a", "a", "b", "c"])
    train, held = hold_out(labelled_clips(clips, split="t", labels=("jump", "run")), rows=clips, share=0.5)
    assert train.indices.tolist()[:2] == [0, 1] and len(held) == 1
    one = rows("run", "jump", files=["a", "a"])
    assert not len(hold_out(labelled_clips(one, split="t", labels=("jump", "run")), rows=one, share=0.5)[1])


def test_a_data_set_without_files_is_refused():
    clips = [{key: value for key, value in row.items() if key != "file"} for row in rows("run", "jump")]
    with pytest.raises(UserError, match=r"does not record the source file of each clip.*prepare it again"):
        hold_out(labelled_clips(clips, split="t", labels=("jump", "run")), rows=clips, share=0.5)
