"""Clips that have been read already, for `prepare` to decode; and what is to be said about them in prepare.json."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..manifest import Clip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """The clips of a source that is no single file or folder.

    Attributes:
      root: the folder to which the clips' paths are relative.
      clips: all with a split.
      missing: clips that the source names but whose file is not there: they are part of what the source is (and of its
        hash), and are not decoded.
      finish: called with the folder, whole but for prepare.json, and the content for that; returns what to write.
    """

    root: Path
    clips: list[Clip]
    missing: list[Clip]
    finish: Callable[[Path, dict[str, Any]], dict[str, Any]]
