"""GPUs of several processes: numbers, or those of the variable that this process has inherited."""

import pytest

from twinreel.base.errors import UserError
from twinreel.engine.start.gpus import VARIABLE, gpus_of


def test_processes_share_the_gpus_that_are_visible(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert gpus_of(1, count=2, flag="--gpus=2") == {VARIABLE: "2,3"}
    monkeypatch.setenv(VARIABLE, "4, 6,GPU-1a2b,7,-1,8")  # of a machine whose other GPUs are somebody else's
    assert [gpus_of(number, count=2, flag="--gpus=2")[VARIABLE] for number in range(2)] == ["4,6", "GPU-1a2b,7"]
    with pytest.raises(UserError, match=r"--gpus=2: .* leaves 4 GPUs, and 6 are wanted"):
        gpus_of(2, count=2, flag="--gpus=2")
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(UserError, match="leaves 0 GPUs"):
        gpus_of(0, count=1, flag="--gpus=1")
