"""Times as people write them, to seconds. CSV files, manifests, sidecar files and benchmarks all use this parser."""

import math
import re

FORMS = "seconds (12.5) or a time (00:01:02.5, 1:02.5)"  # for error messages
_NUMBER = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?|[+-]?(?:nan|inf|infinity)", re.IGNORECASE
)
_TIME = re.compile(r"(-?)(?:([0-9]{1,9}):)?([0-9]{1,9}):([0-9]{1,2}(?:[.,][0-9]{0,9})?)")
_FRAMES = re.compile(r"[0-9]+:[0-9]+:[0-9]+[:;][0-9]+")
_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")


def to_seconds(value: str | float) -> float:
    """Return a time in seconds.

    >>> [to_seconds(value) for value in (1.5, "1.5", "01:02.5", "1:00:00", "00:00:01,250")]
    [1.5, 1.5, 62.5, 3600.0, 1.25]

    Args:
      value: seconds as a number or its text, or a text `HH:MM:SS.mmm` or `MM:SS.mmm`; a comma may stand before the
        milliseconds of the latter two, as in subtitle files.

    Returns:
      Seconds. The value may be negative, NaN or infinite where the input is.

    Raises:
      ValueError: the value is not a time; the message gives the accepted forms.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(FORMS)
    if not isinstance(value, str):
        try:
            return float(value)
        except OverflowError:  # a whole number of hundreds of digits
            return math.inf
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    if found := _TIME.fullmatch(text):
        sign, hours, minutes, rest = found.groups()
        seconds = float(rest.replace(",", "."))
        if seconds < 60 and (hours is None or int(minutes) < 60):
            return (-1 if sign else 1) * (int(hours or 0) * 3600 + int(minutes) * 60 + seconds)
    if _FRAMES.fullmatch(text):
        raise ValueError(f"{FORMS}; the frame number of a time code is not read")
    if _COMMA.fullmatch(text):
        raise ValueError(f"{FORMS} with a decimal point: {text.replace(',', '.')}")
    raise ValueError(FORMS)
