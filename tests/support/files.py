"""Writes small files for tests, and reads what runs and builds leave behind."""

import json
from pathlib import Path


def lines(path, kind=None):
    """Return the JSON values of a file of JSON lines, or of a workdir's metrics; `kind` keeps those of one kind."""
    file = path / "metrics.jsonl" if path.is_dir() else path
    found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return found if kind is None else [line for line in found if line["kind"] == kind]


def write(path: Path, text: str, *, encoding: str = "utf-8") -> Path:
    """Write a text file and the folders above it; line ends stay as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def touch(folder: Path, *names: str) -> None:
    """Make empty files."""
    for name in names:
        write(folder / name, "")
