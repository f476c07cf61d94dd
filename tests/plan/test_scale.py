"""The tables of `plan --scale`: sizes of chips, the config's workload against its plan, the command."""

import csv
import json

import pytest

from twinreel.__main__ import main
from twinreel.base.errors import UserError
from twinreel.cost.gpus import GPUS
from twinreel.cost.scaling import ScaleAssumptions
from twinreel.cost.tpus import TPUS
from twinreel.plan.plan import plan
from twinreel.plan.scale import chip_counts, scale, slices_for, workload
from twinreel.plan.topology import parse_topology


def test_slices_of_chips():
    assert [slices_for(TPUS["v5e"], chips=n) for n in (8, 256, 512, 8192)] == [1, 1, 2, 32]
    assert [slices_for(TPUS["v5p"], chips=n) for n in (8, 4096, 8192)] == [1, 1, 2]
    assert [slices_for(GPUS["h100"], chips=n) for n in (4, 8, 64)] == [1, 1, 8]
    with pytest.raises(UserError, match="12 GPUs fill no whole hosts"):
        slices_for(GPUS["h100"], chips=12)
    with pytest.raises(UserError, match="no slice of 2 chips"):
        slices_for(TPUS["v5e"], chips=2)


@pytest.mark.parametrize("sizes", ["8", "64..8", "0..8", "8..100000", "8-64", "5..7"])
def test_sizes_that_are_none(sizes):
    with pytest.raises(UserError, match=f"--scale='{sizes}'"):
        chip_counts(sizes)


@pytest.fixture(scope="module")
def config(small):
    return small("data.batch_size=32", "mesh.fsdp=4", "sharding.rules=fsdp", "loss.form=blockwise")


def test_the_workload_is_that_of_the_plan(config):
    work = workload(config, topology=parse_topology("v5e-16"))
    planned = plan(config, topology=parse_topology("cpu-8"))
    assert work.split_bytes + work.whole_bytes == 4 * planned["parameters"]
    assert work.whole_bytes > 0
    assert work.split_bytes > 0
    assert work.state_bytes == planned["checkpoint_bytes"]
    assert work.clip_bytes == planned["input"]["decoded_bytes_per_clip"]
    assert (work.fsdp, work.rows, work.form, work.passes) == (4, 2, "gather", 4)
    loss = 4 * 2 * 32 * 32 * 8 / 32  # of a clip, in the plan's count but not in the workload
    assert 8 * planned["flops"]["model_per_chip"] / 32 == pytest.approx(work.model_flops + loss, rel=0.01)


def test_what_does_not_fit_is_left_out(config):
    result = scale(config, topology=parse_topology("v5e-16"), sizes="1..128", batch="fixed", shares=ScaleAssumptions())
    assert [row["chips"] for row in result["rows"]] == [4, 8, 16, 32]
    assert set(result["impossible"]) == {"1", "2", "64", "128"}
    assert "batch of 32 does not divide by their 64 devices" in result["impossible"]["64"]
    assert [row["clips"] for row in result["rows"]] == [8, 4, 2, 1]
    assert [row["parts"] for row in result["rows"]] == [4, 2, 1, 1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--topology=cpu-8", "--scale=8..16"], "--scale needs the figures of a chip"),
        (["--topology=v5e-16", "--scale=8..16", "--scale_batch=half"], "value of --scale_batch"),
        (["--topology=v5e-16", "--scale=8..16", "--search"], "--scale and --search exclude each other"),
        (["--topology=v5e-16", "--csv=x.csv"], "--csv is for the table of --scale"),
        (["--topology=v5e-16", "--scale=1..2"], "none of these sizes is possible"),
    ],
)
def test_mistakes_are_named(flags, message, overrides, capsys):
    changes = [f"--config.{change}" for change in overrides]
    assert main(["plan", "--config=demo", *changes, *flags]) == 2
    assert message in capsys.readouterr().err


def test_the_command_writes_the_table(overrides, tmp_path, capsys):
    changes = [f"--config.{change}" for change in [*overrides, "data.batch_size=32"]]
    file = tmp_path / "scale.csv"
    flags = ["--topology=v5e-16", "--scale=8..32", f"--csv={file}"]
    assert main(["plan", "--config=demo", *changes, *flags, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    with file.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["chips"]) for row in rows] == [row["chips"] for row in result["rows"]] == [8, 16, 32]
    assert float(rows[-1]["efficiency"]) == result["rows"][-1]["efficiency"] < 1
    assert main(["plan", "--config=demo", *changes, *flags]) == 0
    shown = capsys.readouterr().out
    assert "one step on TPU v5 lite" in shown
    assert "us of a core for a frame" in shown
