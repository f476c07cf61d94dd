"""Sessions from files: JSON lines and Parquet, splits, and what is refused."""

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from twinreel.base.errors import UserError
from twinreel.finetune.examples.clips import LabelledClips
from twinreel.finetune.examples.sessions import Catalogue, read_sessions

CLIPS = tuple(f"c{i}" for i in range(8))
SETS = tuple(LabelledClips(split=s, labels=(), label=np.zeros(n, np.int32)) for s, n in (("a", 5), ("b", 3)))
CATALOGUE = Catalogue(clip_ids=CLIPS, sets=SETS)
ROWS = [
    {"session": "u1", "clips": ["c0", "c3", "c7"], "times": [1, 2, 2.5], "split": "train"},
    {"session": "u2", "clips": ["c1", "c2"], "times": [1, 1], "split": "test"},
]


def read(path, rows, **shares):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return read_sessions(str(path), catalogue=CATALOGUE, **{"val_share": 0.1, "test_share": 0.3, **shares})


def test_json_lines_and_parquet_give_the_same_sessions(tmp_path):
    found = read(tmp_path / "s.jsonl", ROWS)
    assert found["train"].names == ("u1",) and found["train"].items[0].tolist() == [0, 3, 7]
    assert found["test"].items[0].tolist() == [1, 2] and not len(found["val"])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "s.parquet")
    again = read_sessions(str(tmp_path / "s.parquet"), catalogue=CATALOGUE, val_share=0.1, test_share=0.3)
    assert again["train"].items[0].tolist() == [0, 3, 7] and again["test"].names == ("u2",)
    assert [CATALOGUE.place(i) for i in (0, 4, 5, 7)] == [("a", 0), ("a", 4), ("b", 0), ("b", 2)]


def test_without_splits_the_id_of_a_session_decides(tmp_path):
    rng = np.random.default_rng(0)
    rows = [{"session": f"u{i}", "clips": [CLIPS[j] for j in rng.permutation(8)]} for i in range(300)]
    found, fewer = read(tmp_path / "s.jsonl", rows), read(tmp_path / "s.jsonl", rows[:150])
    counts = {split: len(own) for split, own in found.items()}
    assert sum(counts.values()) == 300 and 60 < counts["test"] < 120 and 15 < counts["val"] < 50
    for split, own in fewer.items():
        assert set(own.names) <= set(found[split].names)


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"clips": ["c0", "c9"]}, r"clip in row 3 of .* \(session 'u3'\).*'c9'"),
        ({"clips": []}, "session 'u3' has 0 clips; a session needs at least 2"),
        ({"clips": ["c0"]}, "session 'u3' has 1 clips"),
        ({"clips": "c0"}, "session 'u3' has clips='c0'"),
        ({"times": [2, 1, 3]}, "'times' of session 'u3' must be 3 numbers.*do not go back"),
        ({"times": [1, 2]}, "'times' of session 'u3' must be 3 numbers"),
        ({"split": "dev"}, "split is 'dev'; wanted one of train, val, test"),
        ({"session": "u1", "split": "test"}, "session 'u1' stands in the splits 'train' and 'test'"),
        ({"session": "u1"}, "session 'u1' stands twice"),
        ({"clips": ["c0", "c3", "c7"], "split": "test"}, "'u3' of split 'test' has exactly the clips of session 'u1'"),
        ({"clip": 1}, "did you mean 'clips'"),
    ],
)
def test_what_is_refused(tmp_path, changed, wanted):
    row = {"session": "u3", "clips": ["c4", "c5", "c6"], "split": "train"} | changed
    with pytest.raises(UserError, match=wanted):
        read(tmp_path / "s.jsonl", [*ROWS, row])


def test_files_that_are_no_sessions(tmp_path):
    for text, wanted in (("", "has no sessions"), ("{\n", "row 1 of .* is no JSON"), ("[1]\n", "wanted 'session' and")):
        (tmp_path / "s.jsonl").write_text(text)
        with pytest.raises(UserError, match=wanted):
            read_sessions(str(tmp_path / "s.jsonl"), catalogue=CATALOGUE, val_share=0.1, test_share=0.1)
    with pytest.raises(UserError, match="no session of split 'test'"):
        read(tmp_path / "s.jsonl", ROWS[:1])
    with pytest.raises(UserError, match=r"config\.task\.sessions='none' does not exist"):
        read_sessions("none", catalogue=CATALOGUE, val_share=0.1, test_share=0.1)
