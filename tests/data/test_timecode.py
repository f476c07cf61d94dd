"""Times as people write them: all forms give the same seconds, and what is no time is refused."""

import math

import hypothesis
import pytest
from hypothesis import strategies as st

from twinreel.data.timecode import to_seconds


@hypothesis.given(milliseconds=st.integers(0, 10**9), comma=st.booleans())
def test_every_time_is_read_in_all_forms(milliseconds, comma):
    seconds, rest = divmod(milliseconds, 1000)
    point = "," if comma else "."
    forms = [
        f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{rest:03d}",
        f" {seconds // 60}:{seconds % 60:02d}{point}{rest:03d} ",
        f"{milliseconds / 1000}",
        milliseconds / 1000,
    ]
    for form in forms:
        assert to_seconds(form) == pytest.approx(milliseconds / 1000, abs=1e-6)


def test_whole_seconds_signs_and_what_is_not_finite():
    assert [to_seconds(text) for text in ("1:02", "00:00:05", "7", "-00:00:01.5", "-3")] == [62, 5, 7, -1.5, -3]
    assert math.isnan(to_seconds("NaN")) and to_seconds(10**400) == math.inf


@pytest.mark.parametrize(
    "value", ["", "soon", "1:75", "00:60:00", "1:2:3:4", "1_000", "2,5", "1h", "::", "٣", True, None, [1], {}]
)
def test_what_is_no_time(value):
    with pytest.raises(ValueError, match=r"seconds \(12\.5\) or a time"):
        to_seconds(value)


def test_remedies_of_near_misses():
    with pytest.raises(ValueError, match=r"decimal point: 2\.5"):
        to_seconds("2,5")
    with pytest.raises(ValueError, match="frame number"):
        to_seconds("00:00:01:12")
