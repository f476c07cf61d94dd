"""Rows by random access, with an index and without, equal clips.jsonl parsed at once."""

import concurrent.futures
import json

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.data.batches import table as table_module
from twinreel.data.batches.table import read_tables
from twinreel.data.index import write as write_module
from twinreel.data.index.keys import exact_key
from twinreel.data.index.write import write_index


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
    write(tmp_path / "clips.jsonl", rows, last=last, ensure_ascii=ascii_only)
    tables = read_tables(tmp_path)
    assert list(tables) == ["train", "val", "träin"]
    for split, table in tables.items():
        want = [r for r in rows if r["split"] == split]
        assert list(table) == want and len(table) == 20 and table[-1] == want[-1] and table[3:6] == want[3:6]
        check_columns(table, want)


def check_columns(table, want):
    np.testing.assert_array_equal(table.column("captions"), [len(r["captions"]) for r in want])
    numbers = {}  # groups -> numbers in order of their first members; the same of their keys
    named = [numbers.setdefault(r["group"], len(numbers)) for r in want]
    numbers = {}
    assert [numbers.setdefault(key, len(numbers)) for key in table.column("group").tolist()] == named
    assert [bool(key) for key in table.column("group")] == [r["group"] is not None for r in want]
    sizes = [(r["height"], r["width"]) for r in want]
    assert table.summary.sizes == {size: sizes.index(size) for size in sizes}
    assert set(table.summary.features["rgb"]) == {r["features"]["rgb"][1] for r in want if r["features"]}
    texts = [(i, c) for i, r in enumerate(want) for c in range(len(r["captions"]))]
    keys = table.keys(np.array([i for i, _ in texts]), captions=np.array([c for _, c in texts]))
    assert keys["exact"].tolist() == [exact_key(want[i]["captions"][c]) for i, c in texts]


def test_an_index_says_the_same_as_the_file(tmp_path, rows, monkeypatch):
    by_split = sorted(rows, key=lambda r: r["split"])
    write(tmp_path / "clips.jsonl", by_split, ensure_ascii=False)
    scanned = read_tables(tmp_path)
    content = (tmp_path / "clips.jsonl").read_bytes()
    write_index(tmp_path, shards=[(split, n, None) for split in scanned for n in (12, 8)])
    assert (tmp_path / "clips.jsonl").read_bytes() == content
    monkeypatch.setattr(table_module, "_gone_through", None)
    indexed = read_tables(tmp_path)
    assert list(indexed) == list(scanned)
    for split, table in indexed.items():
        want = [r for r in by_split if r["split"] == split]
        assert list(table) == want
        check_columns(table, want)
        np.testing.assert_array_equal(table.rows(np.arange(20)), scanned[split].rows(np.arange(20)))
        in_shards = [{r["group"] for r in part if r["group"]} for part in (want[:12], want[12:])]
        assert table.summary.torn == len(in_shards[0] & in_shards[1])
        assert table.summary.groups == len(in_shards[0] | in_shards[1])


def test_an_index_of_another_clips_jsonl_is_not_used(tmp_path, rows):
    write(tmp_path / "clips.jsonl", sorted(rows, key=lambda r: r["split"]))
    write_index(tmp_path, shards=[(split, 20, None) for split in ("train", "träin", "val")])
    write(tmp_path / "clips.jsonl", [r for r in rows if r["split"] == "val"])
    [(split, table)] = read_tables(tmp_path).items()
    assert split == "val" and len(table) == 20


def test_many_rows_have_an_even_sample(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(write_module, "SAMPLE", 8)
    write(tmp_path / "clips.jsonl", sorted(rows, key=lambda r: r["split"]))
    write_index(tmp_path, shards=[(split, 20, None) for split in ("train", "träin", "val")])
    table = read_tables(tmp_path)["train"]
    assert [r["captions"] for r in table.sample(8)] == [table[i]["captions"] for i in range(0, 20, 3)]
    assert len(table.sample(3)) == 3


def test_a_file_with_other_order_of_keys_is_read_too(tmp_path, rows):
    turned = [dict(reversed(r.items())) for r in rows]
    assert list(read_tables(write(tmp_path / "clips.jsonl", turned).parent)["val"]) == [
        r for r in rows if r["split"] == "val"
    ]


def test_several_threads_may_ask(tmp_path, rows):
    write(tmp_path / "clips.jsonl", rows)
    table = read_tables(tmp_path)["train"]
    places = np.random.default_rng(0).integers(0, 20, 2000).tolist()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda i: table[i]["clip_id"], places)) == [f"c{3 * i}" for i in places]


def test_an_empty_file_has_no_rows(tmp_path):
    (tmp_path / "clips.jsonl").write_text("")
    assert read_tables(tmp_path) == {}


@pytest.mark.parametrize("line", ["not json", '{"clip_id": "a"}', "[1]"])
def test_a_line_that_is_no_clip_is_shown(tmp_path, line):
    (tmp_path / "clips.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=r"no clip.*twinreel prepare"):
        read_tables(tmp_path)
