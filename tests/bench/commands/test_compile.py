"""`bench compile`: a loop over layers makes the program of a deep tower as small as that of a shallow one."""

import json

import pytest

from twinreel.__main__ import main
from twinreel.base.errors import UserError
from twinreel.bench.commands.compile import measure, numbers


def test_json_has_a_row_for_each_program_and_the_loop_is_as_small_at_any_depth(tiny_overrides, capsys):
    overrides = [f"--config.{item}" for item in tiny_overrides]
    status = main(["bench", "compile", "--config", "demo", "--depths", "4,1", "--unroll", "1", "--json", *overrides])
    shallow, deep = json.loads(capsys.readouterr().out)
    assert status == 0 and (shallow["depth"], deep["depth"]) == (1, 4)
    assert deep["lowered_bytes"] == pytest.approx(shallow["lowered_bytes"], rel=0.03)
    assert shallow["cpu_ratio"] == 1 and deep["cpu_ratio"] == pytest.approx(deep["cpu_s"] / shallow["cpu_s"])
    assert deep["cpu_s"] == pytest.approx(deep["trace_cpu_s"] + deep["compile_cpu_s"])
    assert deep["peak_bytes"] > 2**27 and deep["temporary_bytes"] > shallow["temporary_bytes"] > 0


@pytest.mark.parametrize("text", ["", "6,", "0", "-1", "six"])
def test_depths_are_numbers(text):
    with pytest.raises(UserError, match="--depths must be whole numbers from 1 up"):
        numbers(text, flag="--depths", least=1)


def test_a_program_that_does_not_compile_is_named(capfd):
    with pytest.raises(UserError, match=r"the step of depth 2 does not compile \(status 1\)"):
        measure("demo", depth=2, unroll=1, overrides=["data.batch_size=9", "mesh.fsdp=2"])
    assert "fsdp" in capfd.readouterr().err
