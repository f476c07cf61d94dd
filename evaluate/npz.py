"""Files of arrays: read without pickles, with errors that say what was wanted; written whole or not at all."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..base.errors import UserError


def read_npz(path: Path, *, wanted: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Read all arrays of an `.npz`.

    Args:
      path: of the file.
      wanted: array -> its type and shape, for messages; these must be there.

    Raises:
      UserError: no such file, no `.npz`, pickled objects, or a missing array.
    """
    told = ", ".join(f"{name} {form}" for name, form in wanted.items())
    if not path.is_file():
        raise UserError(
            f"file {str(path)!r} does not exist; wanted an .npz with {told}, see `twinreel evaluate --help`"
        )
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise UserError(f"{path} holds one bare array; wanted an .npz with {told}")
        with file:
            arrays = {key: file[key] for key in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read as .npz without pickled objects: {error}") from error
    if missing := [name for name in wanted if name not in arrays]:
        has = ", ".join(sorted(arrays)) or "none"
        raise UserError(f"{path} has no array {missing[0]!r} (it has: {has}); wanted {told}")
    return arrays


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """Write an `.npz` atomically: to a temporary file in the same folder, which is then renamed."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    partial.replace(path)
