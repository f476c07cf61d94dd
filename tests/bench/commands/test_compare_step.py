"""The search of `bench compare_step` for the largest batch that fits."""

import pytest

from twinreel.bench.commands.compare_step import largest


class Device:
    """A device of 100 bytes: a state takes 10 of them, a clip 2; `reports` = whether a side knows that."""

    def __init__(self, *, reports, clip=2):
        self.reports, self.clip, self.asked = reports, clip, []

    def measure(self, *, batch_size):
        self.asked.append(batch_size)
        peak = 10 + self.clip * batch_size
        if peak > 100:
            return None
        sizes = {"resident_bytes": 10, "peak_bytes": peak, "limit_bytes": 100} if self.reports else {}
        return {"batch_size": batch_size} | sizes, [(1.0, 1.0)]


@pytest.mark.parametrize(
    ("reports", "begin", "asked"),
    [
        (False, 8, [8, 16, 32, 64]),
        (True, 8, [8, 32]),
        (True, 32, [32]),
        (True, 256, [256, 128, 64, 32]),
        (False, 64, [64, 32]),
    ],
)
def test_the_largest_power_of_two_is_found(reports, begin, asked):
    device = Device(reports=reports)
    facts, times = largest(device.measure, batch_size=begin)
    assert (facts["batch_size"], device.asked, len(times)) == (32, asked, 1)


def test_a_device_without_room_for_one_clip():
    device = Device(reports=True, clip=200)
    assert largest(device.measure, batch_size=4) is None
    assert device.asked == [4, 2, 1]


def test_an_estimate_that_was_too_high_is_corrected():
    """The limit is overstated: 64 clips should fit, 32 do."""

    class Overstating(Device):
        def measure(self, *, batch_size):
            found = super().measure(batch_size=batch_size)
            if found:
                found[0]["limit_bytes"] = 200
            return found

    device = Overstating(reports=True)
    facts, _ = largest(device.measure, batch_size=8)
    assert (facts["batch_size"], device.asked) == (32, [8, 64, 32])
