"""The search of bench/compare_step.py for the largest batch that fits."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def largest(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    spec = importlib.util.spec_from_file_location("compare_step", BENCH / "compare_step.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module.largest
    sys.modules.pop("step_sides", None)


class Device:
    """A device of 100 bytes: a state takes 10 of them, a clip 2; `told` = whether a side knows that."""

    def __init__(self, *, told, clip=2):
        self.told, self.clip, self.asked = told, clip, []

    def measure(self, *, batch_size):
        self.asked.append(batch_size)
        peak = 10 + self.clip * batch_size
        if peak > 100:
            return None
        sizes = {"resident_bytes": 10, "peak_bytes": peak, "limit_bytes": 100} if self.told else {}
        return {"batch_size": batch_size} | sizes, [(1.0, 1.0)]


@pytest.mark.parametrize(
    ("told", "begin", "asked"),
    [
        (False, 8, [8, 16, 32, 64]),
        (True, 8, [8, 32]),
        (True, 32, [32]),
        (True, 256, [256, 128, 64, 32]),
        (False, 64, [64, 32]),
    ],
)
def test_the_largest_power_of_two_is_found(largest, told, begin, asked):
    device = Device(told=told)
    facts, times = largest(device.measure, batch_size=begin)
    assert (facts["batch_size"], device.asked, len(times)) == (32, asked, 1)


def test_a_device_without_room_for_one_clip_is_said_to_have_none(largest):
    device = Device(told=True, clip=200)
    assert largest(device.measure, batch_size=4) is None
    assert device.asked == [4, 2, 1]


def test_a_promise_that_does_not_hold_is_taken_back(largest):
    """The side says too little: 64 clips should fit, 32 do."""

    class Promising(Device):
        def measure(self, *, batch_size):
            found = super().measure(batch_size=batch_size)
            if found:
                found[0]["limit_bytes"] = 200
            return found

    device = Promising(told=True)
    facts, _ = largest(device.measure, batch_size=8)
    assert (facts["batch_size"], device.asked) == (32, [8, 64, 32])
