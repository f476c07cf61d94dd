"""`bench gpu_check`: its table, what fails or takes too long, and the checks themselves at tiny sizes."""

import argparse
import json
import sys

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.bench.commands import gpu_check
from twinreel.bench.sides import gpu, torch_step

ROW = {"what": "a thing", "value": "2 s", "beside": "another 1 s", "ratio": 2.0, "goal": 1.5, "limit": None}


def python(code):
    return lambda args: [sys.executable, "-c", code]


@pytest.fixture
def checks(monkeypatch, tmp_path):
    """A check that counts its runs, one that fails, one that takes long."""
    count = tmp_path / "count"
    good = f"open({str(count)!r}, 'a').write('x'); print('noise'); print({json.dumps([ROW])!r})"
    made = {
        "good": (python(good), list),
        "bad": (python("import sys; sys.exit('RuntimeError: no such kernel')"), list),
        "slow": (python("import time; time.sleep(60)"), list),
    }
    monkeypatch.setattr(gpu_check, "CHECKS", made)
    return count


def test_what_fails_is_listed_and_the_rest_goes_on(checks, tmp_path, capsys):
    out = tmp_path / "gpu.json"
    assert gpu_check.main(["--only", "bad,good", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "RuntimeError: no such kernel" in text and "a thing" in text and "at least 1.5: reached" in text
    kept = json.loads(out.read_text())["checks"]
    assert kept["good"]["rows"] == [ROW] and kept["bad"]["failed"] == "RuntimeError: no such kernel"


def test_what_takes_long_is_stopped(checks):
    args = argparse.Namespace(seconds=4.0)
    assert "--seconds=4 were over" in gpu_check.check("slow", args=args, seconds=2.0)["failed"]
    assert gpu_check.check("slow", args=args, seconds=0.5)["failed"] == "no time was left of --seconds=4"


def test_a_second_run_measures_only_what_is_missing(checks, tmp_path, capsys):
    flags = ["--only", "good,bad", "--out", str(tmp_path / "gpu.json"), "--json"]
    for _ in range(2):
        assert gpu_check.main(flags) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["good"]["rows"] == [ROW] and "failed" in found["bad"]
    assert checks.read_text() == "x"
    assert gpu_check.main(["--only", "bad", *flags[2:]]) == 0  # what is not asked for stays in the file
    assert json.loads((tmp_path / "gpu.json").read_text())["checks"]["good"]["rows"] == [ROW]
    assert gpu_check.main([*flags, "--size", "tiny"]) == 0  # another size is another table
    assert checks.read_text() == "xx"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--only", "stepp"], "check in --only 'stepp'; did you mean 'step'"),
        (["--seconds", "0"], "--seconds must be above 0, got 0"),
    ],
)
def test_bad_flags(flags, message):
    with pytest.raises(UserError, match=message):
        gpu_check.main(flags)


def test_a_file_of_something_else_is_kept(tmp_path):
    other = tmp_path / "other.json"
    other.write_text("[1]")
    with pytest.raises(UserError, match=r"other\.json exists and is no table of gpu_check"):
        gpu_check.main(["--out", str(other)])
    assert other.read_text() == "[1]"


def test_rows_of_the_step_and_of_the_loss():
    sides = {
        "torch.compile-bfloat16": {"clips_per_s": 100.0, "gflops_per_s": 400e3, "batch_size": 32},
        "twinreel-bfloat16": {"clips_per_s": 120.0, "gflops_per_s": 480e3, "batch_size": 32},
        "matmul-bfloat16": {"clips_per_s": 1.0, "gflops_per_s": 800e3, "batch_size": 32},
    }
    result = {"model": "ViT-L/14", "frames": 8, "sides": sides}
    result["ratios"] = {"twinreel-bfloat16 / torch.compile-bfloat16": 1.2}
    products, peer = gpu_check.step_rows(result)
    assert products["ratio"] == pytest.approx(0.6) and products["goal"] == 0.55
    assert (peer["ratio"], peer["goal"]) == (1.2, 1.1) and "torch.compile 100.0 clips/s" in peer["beside"]
    alone = gpu_check.step_rows(result | {"sides": {name: sides[name] for name in list(sides)[1:]}})
    assert "no torch" in alone[1]["value"]
    forms = [
        {"batch": 64, "form": "dense", "time_s": 0.002, "peak_bytes": 2**20, "note": "", "time_ratio": 1.0},
        {"batch": 64, "form": "blockwise", "time_s": None, "peak_bytes": 2**20, "note": "too long", "time_ratio": None},
    ]
    dense, block = gpu_check.loss_rows({"loss": "infonce", "rows": forms})
    assert dense["value"] == "2.0 ms, 1 MiB" and dense["ratio"] is None
    assert block["value"] == "too long, 1 MiB" and block["beside"] == "dense 2.0 ms, 1 MiB"


def test_attention_is_compared_with_float32():
    case = gpu.Case(rows=2, length=6, heads=2, masked=True, causal=True)
    row = gpu._attention_row("masked", case, rounds=1)
    error = float(row.value.split("error ")[1])
    assert 1e-4 < error < 3e-2  # bfloat16, not float32 again and not another attention
    assert row.ratio is None and "no flash kernel" in row.beside


def test_a_public_clip_is_written_converted_and_encoded(monkeypatch):
    tower = {"width": 16, "depth": 1, "heads": 2}
    model = torch_step.Model(patch=112, embed=8, video=tower, text=tower)
    monkeypatch.setitem(torch_step.MODELS, "tiny", model)
    opened, encoded = gpu.encode(gpu.Size(model="tiny", rows=1, depths=(1, 1), clips=1, rounds=1))
    assert opened.value.endswith(" s") and float(encoded.value.split()[0]) > 0


def test_the_distance_is_a_share_of_the_largest_value():
    wanted = np.array([1.0, -4.0], np.float32)
    assert gpu._distance(wanted + np.float32(0.2), wanted) == pytest.approx(0.05)
