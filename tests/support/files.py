"""Reads what runs and builds leave behind."""

import json


def lines(path, kind=None):
    """Return the JSON values of a file of JSON lines, or of a workdir's metrics; `kind` keeps those of one kind."""
    file = path / "metrics.jsonl" if path.is_dir() else path
    found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return found if kind is None else [line for line in found if line["kind"] == kind]
