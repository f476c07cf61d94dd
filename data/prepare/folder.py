"""What `twinreel prepare` finds in its output folder: a result, the beginning of one, or something else."""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ...base.config import difference
from ...base.errors import UserError
from ..manifest import Clip, to_json
from ..paths import NoSuchFile, PathLike, join, member_of, size
from .layout import BUILDING, SETTINGS

_SETTINGS = ("version", "records_version", "options", "shard_clips")  # as a build was begun, it goes on
COMPARED = (*_SETTINGS, "source_sha256")


@contextlib.contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Make the folder and keep a second prepare out of it for the time being."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {str(out)!r} is a file; give a folder")
    out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise UserError(f"another prepare is writing to {str(out)!r}; wait for it, or give another --out") from None
    try:
        yield
    finally:
        os.close(folder)


def finished(out: Path, wanted: dict[str, Any], *, overwrite: bool) -> dict[str, Any] | None:
    """Return what `out` holds if that is what is wanted; None if it has to be (re)made.

    Raises:
      UserError: it holds something else.
    """
    file = out / "prepare.json"
    if not file.is_file():
        strange = sorted({path.name for path in out.iterdir()} - {"rejects.jsonl"})
        if strange and not (out / BUILDING).is_dir():  # a build that was interrupted leaves this folder
            raise UserError(
                f"--out {str(out)!r} holds something else ({', '.join(strange[:3])}, ...) and no prepare.json; "
                "give an empty or new folder"
            )
        return None
    try:
        done = json.loads(file.read_text(encoding="utf-8"))
        changes = difference(*({key: config[key] for key in COMPARED if key in config} for config in (done, wanted)))
        sizes = {path.name: path.stat().st_size for path in out.glob("*/*/*.array_record*")}
        whole = changes or sizes == {shard["name"]: shard["bytes"] for shard in done["shards"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not from twinreel prepare ({error!r}); give another --out") from error
    if overwrite and changes:
        return None
    if changes:
        raise UserError(
            f"{str(out)!r} was prepared with other options or from another source:\n  "
            + "\n  ".join(changes)
            + "\ngive another --out, or --overwrite to replace it"
        )
    return done if whole else None


def goes_on(out: Path, wanted: dict[str, Any], *, overwrite: bool, console: Console) -> bool:
    """Return whether `out` holds the beginning of what is wanted.

    Raises:
      UserError: it holds the beginning of a build with other options, which would be lost.
    """
    if (out / "prepare.json").is_file():
        return False
    try:
        begun = json.loads((out / BUILDING / SETTINGS).read_text(encoding="utf-8"))
        changes = difference(*({key: config[key] for key in _SETTINGS} for config in (begun, wanted)))
        same_source = begun["source_sha256"] == wanted["source_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False  # nothing was begun yet
    if changes and not overwrite:
        raise UserError(
            f"{str(out)!r} holds the beginning of a build with other options:\n  "
            + "\n  ".join(changes)
            + "\ngive the same options to go on with it, another --out, or --overwrite to begin anew"
        )
    if not changes and not same_source:
        console.print("the source has changed since the build was begun: shards whose clips changed are made again")
    return not changes


def file_sizes(clips: Sequence[Clip], *, root: PathLike) -> dict[str, int]:
    """Return the size in bytes of the file or member at each path of the clips; -1 where there is none."""
    sizes: dict[str, int] = {"": -1}
    for path in (path for clip in clips for path in (clip.path, *clip.features.values())):
        if path not in sizes:
            # A record inside a file that is no archive changes with the file.
            file = path if member_of(path) else path.partition("::")[0]
            try:
                sizes[path] = size(join(root, file))
            except NoSuchFile:
                sizes[path] = -1
    return sizes


def sizes_of(clip: Clip, sizes: Mapping[str, int]) -> list[int]:
    """Return the sizes of the files of a clip: of its video, then of its features."""
    return [sizes[clip.path], *(sizes[path] for path in clip.features.values())]


def source_hash(clips: Sequence[Clip], *, sizes: Mapping[str, int]) -> str:
    """Return the SHA-256 (hex) of the clips' manifest lines and of the sizes of their files (`file_sizes`)."""
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(json.dumps([to_json(clip), *sizes_of(clip, sizes)], sort_keys=True).encode())
    return digest.hexdigest()
