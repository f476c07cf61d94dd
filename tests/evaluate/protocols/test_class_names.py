"""The classes of zero-shot classification: files of them, names in words, and the clips' labels."""

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.evaluate.protocols.class_names import (
    classes_of_rows,
    name_classes,
    read_classes,
    targets_of_rows,
    to_words,
)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("YoYo", "yo yo"),
        ("CleanAndJerk", "clean and jerk"),
        ("ride_bike", "ride bike"),
        ("Skijet", "skijet"),
        ("3PointShot", "3 point shot"),
        ("Pushing something from left to right", "Pushing something from left to right"),
        ("tai chi", "tai chi"),
    ],
)
def test_names_in_words(name, words):
    assert to_words(name) == words
    assert name_classes([name], names="words", origin="here").texts == (words,)
    assert name_classes([name], names="as_is", origin="here").texts == (name,)


def test_a_file_of_classes(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("b_1\n\na_2\tthe second\n", encoding="utf-8")
    found = read_classes(path, names="words")
    assert found.labels == ("b_1", "a_2") and found.texts == ("b 1", "the second")
    assert read_classes(path, names="as_is").texts == ("b_1", "the second")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no class; give --classes FILE"),
        ("\n \n", "has no class"),
        ("run\njump\nrun\n", "line 3 of .* repeats class 'run' of line 1"),
        ("run\tgo\njump\tgo\n", "classes 'run' and 'jump' are both read 'go'"),
        ("run\njump\trun\n", "are both read 'run'"),
        ("run\t\n", "line 1 of .* wanted LABEL or LABEL<TAB>NAME"),
        ("\trun\n", "line 1 of .* wanted LABEL or LABEL<TAB>NAME"),
    ],
)
def test_a_faulty_file_is_refused(content, message, tmp_path):
    (tmp_path / "classes.txt").write_text(content)
    with pytest.raises(UserError, match=message):
        read_classes(tmp_path / "classes.txt", names="as_is")


def rows(*labels):
    return [{"clip_id": f"c{number}", "labels": list(own)} for number, own in enumerate(labels)]


def test_the_labels_of_clips():
    clips = rows(["run", "jump"], [], ["swim", "run"])
    every = classes_of_rows(clips, labels="all", names="as_is", origin="here")
    assert every.labels == ("jump", "run", "swim")
    assert classes_of_rows(clips, labels="first", names="as_is", origin="here").labels == ("run", "swim")
    found = targets_of_rows(clips, classes=every, labels="all", allow_missing=False)
    assert found.clips.tolist() == [0, 2] and found.unlabelled == 1 and not found.other
    assert found.labels.dtype == bool and found.labels.tolist() == [[True, True, False], [False, True, True]]
    found = targets_of_rows(clips, classes=every, labels="first", allow_missing=False)
    assert found.labels.dtype == np.int64 and found.labels.tolist() == [1, 2]


def test_labels_that_are_no_class():
    clips = rows(["run"], ["jumping"], ["swim", "run"], ["swim"])
    classes = name_classes(["run", "jump"], names="as_is", origin="--classes mine.txt")
    message = r"clip 'c1' has label 'jumping', which is none of the 2 classes of --classes mine.txt "
    message += r"\(did you mean 'jump'\?\); add"
    with pytest.raises(UserError, match=message):
        targets_of_rows(clips, classes=classes, labels="all", allow_missing=False)
    found = targets_of_rows(clips, classes=classes, labels="all", allow_missing=True)
    assert found.clips.tolist() == [0, 2] and found.labels.tolist() == [0, 0]
    assert found.other == {"jumping": 1, "swim": 2} and found.unlabelled == 0


def test_clips_without_labels_are_refused():
    with pytest.raises(UserError, match="no clip of here has a label"):
        classes_of_rows(rows([], []), labels="all", names="as_is", origin="here")
    classes = name_classes(["run"], names="as_is", origin="here")
    with pytest.raises(UserError, match="none of the 2 clips has a label among the 1 classes of here"):
        targets_of_rows(rows([], []), classes=classes, labels="all", allow_missing=True)
