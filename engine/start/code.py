"""Which code a process runs."""

import functools
import hashlib
import importlib.metadata
import sys
from pathlib import Path

from ... import __version__
from ...base.config import NOT_EXPERIMENTS

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
_ROOMS = ("base", "configs", "data", "models", "losses", "engine", "zoo", "encode", "evaluate", "pretrain", "finetune")


@functools.cache
def code_version() -> str:
    """Return the versions of twinreel and of what computes, with a hash of twinreel's source files, as one line."""
    versions = " ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    python = ".".join(map(str, sys.version_info[:3]))
    return f"twinreel {__version__} (source {source_hash()}), python {python}, {versions}"


@functools.cache
def source_hash(root: Path | None = None) -> str:
    """Return 12 hex digits over names and contents of the package's Python files; `root` is its folder.

    Config files are left out: an experiment next to the shipped ones changes no code, and its fields are compared
    as the config.
    """
    root = Path(__file__).parents[2] if root is None else root
    digest = hashlib.sha256()
    for room in _ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            if room == "configs" and path.stem not in NOT_EXPERIMENTS:
                continue
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
