"""A made-up index opens without being read, and orders what a real one does."""

import json

import numpy as np

from twinreel.__main__ import main
from twinreel.bench.commands.index import make_up
from twinreel.data.batches.records import Records


def test_a_made_up_folder_takes_no_room_and_opens(tmp_path):
    assert make_up(tmp_path / "data", rows=5_000_000) == 4883
    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) > 8e9 > 1e8 > 512 * sum(path.stat().st_blocks for path in files)
    rows = Records(tmp_path / "data").rows("train")
    assert len(rows) == 5_000_000 and rows.rows(np.array([4_999_999]))["captions"] == [0]


def test_the_verb_measures_in_a_process_of_its_own(capsys):
    assert main(["bench", "index", "--rows", "100000", "--batch_size", "64", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["open_s"] < 60 and found["open_mb"] < 200 and found["shards"] == 98
    assert found["batch_ms"] > 0 and found["far_batch_ms"] > 0
