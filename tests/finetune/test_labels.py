"""Label sets, subsets and held-out clips."""

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.finetune.labels import hold_out, label_set, subset


def rows(*labels, group=None):
    return [
        {"clip_id": f"clip{i}", "labels": [] if label is None else [label], "group": group}
        for i, label in enumerate(labels)
    ]


def test_labels_of_the_train_split_sorted_and_frequent_enough():
    clips = rows("run", "jump", None, "jump", "run", "rare")
    assert label_set(clips, min_count=2) == ("jump", "run")
    assert label_set(clips, min_count=1) == ("jump", "rare", "run")
    assert label_set(clips, labels=("run", "rare"), min_count=2) == ("run", "rare")


def test_only_the_first_label_counts():
    clips = [{"clip_id": "a", "labels": ["x", "y"], "group": None}, {"clip_id": "b", "labels": ["z"], "group": None}]
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


def test_subset_leaves_out_other_labels():
    part = subset(rows("run", None, "jump", "other"), split="train", labels=("jump", "run"))
    assert part.label.tolist() == [1, -1, 0, -1]
    assert part.indices.tolist() == [0, 2] and len(part) == 2


def test_attach_marks_rows_by_clip_index():
    part = subset(rows("run", None, "jump"), split="train", labels=("jump", "run"))
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


def test_hold_out_depends_on_the_clip_alone():
    clips = rows(*["run", "jump"] * 100, None)
    whole = subset(clips, split="train", labels=("jump", "run"))
    train, held = hold_out(whole, rows=clips, share=0.2)
    assert not set(train.indices) & set(held.indices)
    assert sorted([*train.indices, *held.indices]) == whole.indices.tolist()
    assert 20 <= len(held) <= 60
    fewer = subset(clips[:100], split="train", labels=("jump", "run"))
    _, held_fewer = hold_out(fewer, rows=clips[:100], share=0.2)
    assert held_fewer.indices.tolist() == [i for i in held.indices if i < 100]


def test_hold_out_keeps_groups_together_and_every_class_on_both_sides():
    clips = rows("run", "run", "jump", "jump")
    for share in (0.001, 0.999):
        train, held = hold_out(subset(clips, split="t", labels=("jump", "run")), rows=clips, share=share)
        assert sorted(train.label[train.indices]) == sorted(held.label[held.indices]) == [0, 1]
    twins = [{**row, "group": f"g{i // 2}"} for i, row in enumerate(rows(*["run", "jump"] * 40))]
    _, held = hold_out(subset(twins, split="t", labels=("jump", "run")), rows=twins, share=0.3)
    assert {i // 2 for i in held.indices if i % 2} == {i // 2 for i in held.indices if not i % 2}
