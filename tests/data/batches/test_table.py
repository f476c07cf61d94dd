"""clips.jsonl by random access equals the whole of it, parsed at once."""

import concurrent.futures
import json

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.data.batches.table import read_tables


def row(i):
    return {
        "split": ("train", "val", "träin")[i % 3],
        "clip_id": f"c{i}",
        "captions": [f"ein Bär\nläuft {i}"] * (i % 4),
        "group": f"g{i // 6}" if i % 2 else None,
        "height": 32 + i % 2,
        "width": 48,
        "features": {"rgb": [3, 8 + i // 30]} if i % 5 == 0 else {},
    }


@pytest.fixture
def rows():
    return [row(i) for i in range(60)]


def write(path, rows, *, last="\n", **kwargs):
    path.write_text("\n".join(json.dumps(r, **kwargs) for r in rows) + last, encoding="utf-8")
    return path


@pytest.mark.parametrize("last", ["\n", "", "\n\n"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_it_equals_the_file_parsed_whole(tmp_path, rows, last, ascii_only):
    tables = read_tables(write(tmp_path / "clips.jsonl", rows, last=last, ensure_ascii=ascii_only))
    assert list(tables) == ["train", "val", "träin"]
    for split, table in tables.items():
        want = [r for r in rows if r["split"] == split]
        assert list(table) == want and len(table) == 20 and table[-1] == want[-1] and table[3:6] == want[3:6]
        np.testing.assert_array_equal(table.columns.captions, [len(r["captions"]) for r in want])
        assert table.columns.groups == [r["group"] or "" for r in want]
        assert set(table.columns.sizes) == {(r["height"], r["width"]) for r in want}
        assert all(want[i]["height"] == height for (height, _), i in table.columns.sizes.items())
        assert set(table.columns.features["rgb"]) == {r["features"]["rgb"][1] for r in want if r["features"]}


def test_a_file_with_other_order_of_keys_is_read_too(tmp_path, rows):
    turned = [dict(reversed(r.items())) for r in rows]
    assert list(read_tables(write(tmp_path / "clips.jsonl", turned))["val"]) == [r for r in rows if r["split"] == "val"]


def test_several_threads_may_ask(tmp_path, rows):
    table = read_tables(write(tmp_path / "clips.jsonl", rows))["train"]
    places = np.random.default_rng(0).integers(0, 20, 2000).tolist()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda i: table[i]["clip_id"], places)) == [f"c{3 * i}" for i in places]


def test_an_empty_file_has_no_rows(tmp_path):
    (tmp_path / "clips.jsonl").write_text("")
    assert read_tables(tmp_path / "clips.jsonl") == {}


@pytest.mark.parametrize("line", ["not json", '{"clip_id": "a"}', "[1]"])
def test_a_line_that_is_no_clip_is_shown(tmp_path, line):
    (tmp_path / "clips.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=r"no clip.*twinreel prepare"):
        read_tables(tmp_path / "clips.jsonl")
