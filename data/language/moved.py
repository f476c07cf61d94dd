"""Clips whose manifest is written into another folder: their files stay where they are."""

import dataclasses
import os
from pathlib import Path

from ..clip import Clip
from ..paths import PathLike, is_remote, join


def in_folder(clip: Clip, *, root: PathLike, folder: Path) -> Clip:
    """Return a clip with paths relative to another folder; URLs stay URLs.

    Args:
      clip: with paths relative to `root`.
      root: folder or URL.
      folder: of the manifest that is written.
    """
    path = _moved(clip.path, root=root, folder=folder)
    features = {name: _moved(file, root=root, folder=folder) for name, file in clip.features.items()}
    return dataclasses.replace(clip, path=path, features=features)


def _moved(path: str, *, root: PathLike, folder: Path) -> str:
    whole = join(root, path) if path else ""
    if not whole or is_remote(whole) or os.path.isabs(path):  # noqa: PTH117
        return whole
    return Path(os.path.relpath(whole, folder)).as_posix()
