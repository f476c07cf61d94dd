"""Frames as a record stores them: JPEG files, or the access units of an H.264 stream (ITU-T H.264, Annex B).

An access unit is one coded picture, with a delimiter ahead. Key pictures, ahead of which the parameter sets stand, are
decoded by themselves; each other picture needs all those from the last key picture on. Whatever hands a frame on to be
decoded hands on all of these as one value, whose last picture is the frame. Only this file knows the bytes.
"""

from collections.abc import Sequence

_DELIMITER = b"\x00\x00\x00\x01\x09"  # start code and type of an access unit delimiter; occurs nowhere else in a stream
_PARAMETERS = b"\x00\x00\x00\x01\x67"  # of a sequence parameter set


def is_unit(stored: bytes) -> bool:
    """Return whether a stored frame is an access unit (or several in a row), and no JPEG file."""
    return stored.startswith(_DELIMITER)


def is_key(unit: bytes) -> bool:
    """Return whether an access unit is decoded without others."""
    return unit.startswith(_PARAMETERS, len(_DELIMITER) + 1)  # the delimiter has one byte of content


def drawable(stored: Sequence[bytes], index: int) -> bytes:
    """Return all that decoding a frame takes: its JPEG file, or the access units from its key picture to it.

    Args:
      stored: the frames of a record, n JPEG files or n access units.
      index: of the frame, 0 to n - 1.

    Raises:
      IndexError: there is no such frame.
      ValueError: no key picture stands ahead of it.
    """
    frame = stored[index]
    if not is_unit(frame):
        return frame
    first = index
    while not is_key(stored[first]):
        if first == 0:
            raise ValueError("no key picture of H.264 stands ahead of the first frame")
        first -= 1
    return b"".join(stored[first : index + 1])


def split_units(value: bytes) -> list[bytes]:
    """Return the access units of a value, one for each picture.

    Raises:
      ValueError: it does not begin with one.
    """
    head, *units = value.split(_DELIMITER)
    if head or not units:
        raise ValueError("the frame is no access unit of H.264")
    return [_DELIMITER + unit for unit in units]
