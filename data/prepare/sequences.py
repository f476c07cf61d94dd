"""Feature sequences out of TFRecord files of `tf.train.SequenceExample`, one record at a time, checksums checked."""

import functools
import os
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError as BadMessage
from tensorflow.python.lib.io.tf_record import tf_record_random_reader

from ..tf_cpu import tf


class RecordError(Exception):
    """A record that cannot be read; the message says why."""


def read_sequence(file: str | os.PathLike[str], *, offset: int, name: str) -> np.ndarray:
    """Read a feature list of byte strings.

    Args:
      file: a TFRecord file of SequenceExamples.
      offset: bytes before the record, as `tfrecords.contexts` gives it.
      name: of the feature list.

    Returns:
      uint8 [n,D], a row per element of the list.

    Raises:
      RecordError: no such record or list, a checksum that does not fit, or rows of different lengths.
    """
    try:
        record, _ = _reader(os.fspath(file)).read(offset)
        lists = tf.train.SequenceExample.FromString(record).feature_lists.feature_list
    except (tf.errors.OpError, IndexError, BadMessage) as error:
        raise RecordError(f"record at byte {offset:,}: {str(error).splitlines()[0]}") from error
    if name not in lists:
        raise RecordError(f"no feature list {name!r}, only {', '.join(sorted(lists)) or 'none'}")
    rows = [b"".join(feature.bytes_list.value) for feature in lists[name].feature]
    if len({len(row) for row in rows}) > 1:
        raise RecordError(f"feature list {name!r} has rows of different lengths")
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1) if rows else np.zeros((0, 0), np.uint8)


@functools.lru_cache(maxsize=8)
def _reader(file: str) -> Any:
    # The one reader of TFRecord files with random access, which checks checksums; tensorflow has no public name for it.
    return tf_record_random_reader(file)
