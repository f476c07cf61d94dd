"""Results of slow work by key, written as they come: a kill loses what was in work, and nothing else."""

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

from ..base.errors import UserError


class Journal:
    """A file of JSON lines `{"key": ..., "value": ...}`; may be used by several threads, not by several processes.

    A later line replaces an earlier one of the same key. A last line that was cut by a kill is dropped.
    """

    def __init__(self, path: Path):
        """Read what is there, and open the file for more.

        Args:
          path: of the file; it is made, with its folder, where it is not there.

        Raises:
          UserError: it is something else than a journal, or cannot be written.
        """
        self.path, self._lock = path, threading.Lock()
        self._values: dict[str, Any] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            whole = self._read(path.read_bytes())
            self._file = path.open("ab")
            self._file.truncate(whole)
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror}); choose another --out") from error

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def get(self, key: str) -> Any:
        """Return the value of a key, None if there is none."""
        return self._values.get(key)

    def put(self, key: str, *, value: Any) -> None:
        """Keep a JSON value; it is in the hands of the operating system when this returns."""
        line = json.dumps({"key": key, "value": value}, ensure_ascii=False, allow_nan=False) + "\n"
        with self._lock:
            self._values[key] = value
            self._file.write(line.encode())
            self._file.flush()

    def _read(self, content: bytes) -> int:
        """Take the lines; return how many bytes whole ones have."""
        whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                entry = json.loads(line)
                self._values[entry["key"]] = entry["value"]
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{self.path}, line {number} is no line of a journal; move the file away") from None
        return whole


def key_of(**fields: Any) -> str:
    """Return a key for JSON values: the first half of their SHA-256 (hex)."""
    text = json.dumps(fields, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
