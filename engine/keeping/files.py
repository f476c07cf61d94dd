"""Files that are either whole or not there."""

import os
from pathlib import Path


def write_atomically(path: Path, *, text: str) -> None:
    """Write `text` to `path` so that a reader, or a start after a crash, sees the old file or the new one."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
