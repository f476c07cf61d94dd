"""Splits by hash and by the names of folders and archives; ids that differ."""

import collections

import hypothesis
import pytest
from hypothesis import strategies as st

from twinreel.base.errors import UserError
from twinreel.data.manifest import Clip
from twinreel.data.sources.splits import (
    assign_splits,
    hashed_split,
    place_in_splits,
    split_of_archive,
    split_of_folder,
    unique_ids,
)


def test_hashed_splits_are_80_10_10_and_do_not_depend_on_the_others():
    counts = collections.Counter(hashed_split(f"clip{index}") for index in range(5000))
    assert abs(counts["train"] - 4000) < 120
    assert abs(counts["val"] - 500) < 90
    clips = [Clip(clip_id=str(index), path=f"{index}.mp4") for index in range(50)]
    whole = {clip.clip_id: clip.split for clip in assign_splits(clips, where="")}
    part = {clip.clip_id: clip.split for clip in assign_splits(clips[::3], where="")}
    assert part.items() <= whole.items()


def test_windows_of_a_file_and_members_of_a_group_share_a_split():
    windows = [Clip(clip_id=f"a@{start}", path="a.mp4", start_s=float(start)) for start in range(30)]
    assert len({clip.split for clip in assign_splits(windows, where="")}) == 1
    twins = [Clip(clip_id=str(index), path=f"{index}.mp4", meta={"group": "g"}) for index in range(30)]
    assert len({clip.split for clip in assign_splits(twins, where="")}) == 1


def test_clips_without_a_file_are_split_by_their_ids():
    clips = [Clip(clip_id=str(index), path="", features={"rgb": "x.npy"}) for index in range(60)]
    assert {clip.split for clip in assign_splits(clips, where="")} == {"train", "val", "test"}


def test_some_with_a_split_and_some_without():
    clips = [Clip(clip_id="a", path="a", split="train"), Clip(clip_id="b", path="b")]
    with pytest.raises(UserError, match=r"m\.csv: 1 of 2 clips have no split \(the first: 'b'\)"):
        assign_splits(clips, where="m.csv")


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (("train", "Train", "TRAINING", "training_set", "Train Videos", "trainset"), "train"),
        (("val", "Valid", "validation", "VALIDATE", "dev", "Dev-Set", "development"), "val"),
        (("test", "Testing", "TEST", "test_split"), "test"),
        (("trained", "attest", "devices", "valley", "", "all", "testimony", "retrain"), ""),
    ],
)
def test_names_of_split_folders(names, split):
    assert {split_of_folder(name) for name in names} == {split}


@pytest.mark.parametrize(
    ("path", "split"),
    [
        *(("x-Train-000.tar", "train"), ("Validation/0.tar", "val"), ("s/dev_0.tar", "val"), ("testing.0.tar", "test")),
        *(("contest-0.tar", ""), ("0.tar", ""), ("trainer/0.tar", "")),
    ],
)
def test_names_of_archives(path, split):
    assert split_of_archive(path) == split


def placed(*paths):
    return [(place.split, place.folders) for place in place_in_splits(paths, folder="F")]


def test_split_folders_in_any_place():
    assert placed("Train/run/a", "Test/jump/x/b") == [("train", ("run",)), ("test", ("jump", "x"))]
    assert placed("run/train/a", "jump/test/b") == [("train", ("run",)), ("test", ("jump",))]
    assert placed("videos/Train/run/a", "videos/Test/b") == [("train", ("run",)), ("test", ())]
    assert placed("run/a", "b") == [("", ("run",)), ("", ())]
    assert placed("run/test/a", "run/b") == [("", ("run", "test")), ("", ("run",))]  # a folder of that class


def test_file_outside_the_split_folders():
    with pytest.raises(UserError, match=r"split folders \(Train\) but also 1 files outside them .*'extra/b'"):
        placed("Train/a", "extra/b")


@hypothesis.given(
    st.lists(st.tuples(st.text("ab. /", min_size=1, max_size=6), st.sampled_from(["", "@0-1"])), unique=True)
)
def test_ids_are_unique(files):
    ids = unique_ids(files)
    assert len(set(ids)) == len(files)
