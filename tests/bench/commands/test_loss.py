"""`twinreel bench loss`: what it reports, and what it refuses."""

import json

import pytest

from twinreel.__main__ import main
from twinreel.base.errors import UserError
from twinreel.bench.commands.loss import bench_loss


def test_json_has_every_form_with_time_memory_and_ratios(capsys):
    arguments = ["bench", "loss", "--batch", "600", "--dim", "8", "--block", "128", "--devices", "4", "--rounds", "1"]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    rows = {row["form"]: row for row in result["rows"]}
    assert list(rows) == ["dense", "blockwise", "gather", "ring"]
    assert [row["devices"] for row in rows.values()] == [1, 1, 4, 4]
    assert all(row["time_s"] > 0 and row["cpu_s"] > 0 and row["note"] == "" for row in rows.values())
    # Arguments of one device: two of [600,8] in float32, of each row a byte and two numbers (is it valid, which caption
    # has it), scale (and a bias that InfoNCE does not read).
    known = 2 * 600 * 8 * 4 + 600 * (1 + 8)
    assert known < rows["dense"]["argument_bytes"] <= known + 8
    assert rows["dense"]["temporary_bytes"] >= 4 * 600**2 > 4 * rows["blockwise"]["temporary_bytes"]
    assert rows["ring"]["argument_bytes"] < rows["blockwise"]["argument_bytes"]
    assert rows["blockwise"]["time_ratio"] == rows["blockwise"]["time_s"] / rows["dense"]["time_s"]
    assert rows["ring"]["memory_ratio"] == rows["ring"]["peak_bytes"] / rows["dense"]["peak_bytes"]


def test_what_does_not_fit_is_compiled_only(capsys):
    assert main(["bench", "loss", "--batch", "4000000", "--dim", "4", "--loss", "sigmoid", "--devices", "1"]) == 0
    out = capsys.readouterr().out
    assert " TB " in out  # 4 bytes for each of 4e6 x 4e6 scores are 64 TB, at least
    assert "4,000,000 dense: compiled only: needs" in out
    assert "4,000,000 blockwise: compiled only: estimated at" in out


def test_what_takes_too_long_is_compiled_only():
    result = bench_loss([256, 512], dim=4, devices=1, rounds=1, seconds=1e-9)
    notes = {(row["batch"], row["form"]): row["note"] for row in result["rows"]}
    assert notes[256, "dense"] == "" and "--seconds" in notes[512, "dense"]
    assert [row["time_ratio"] for row in result["rows"][2:]] == [None, None]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [({"loss": "infonse"}, "infonce"), ({"dim": 0}, "--dim"), ({"devices": 99}, "--devices"), ({"block": 0}, "block")],
)
def test_a_wrong_value_is_named(arguments, field):
    with pytest.raises(UserError, match=field):
        bench_loss([64], **arguments)


def test_batches_are_numbers():
    with pytest.raises(UserError, match=r"--batch takes integers"):
        from twinreel.bench.commands.loss import main as verb

        verb(["--batch", "1k"])
