"""JSON that is read strictly: a key that an object has twice is an error, not the loss of its first value."""

import json
from typing import Any


class DuplicateKey(ValueError):
    """An object has a key twice; `key` is its name."""

    def __init__(self, key: str):
        super().__init__(f"key {key!r} is given twice in one object; remove one of the two")
        self.key = key


def parse(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
      DuplicateKey: an object has one key twice.
      json.JSONDecodeError: the text is not JSON; the error names line and column.
      ValueError: a number of thousands of digits, or brackets that are nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("brackets are nested too deeply (maximum recursion depth exceeded)") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise DuplicateKey(next(key for key in keys if keys.count(key) > 1))
    return made
