"""What `twinreel prepare` finds in its output folder: a result, the beginning of one, or something else."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from ...base.config import difference
from ...base.errors import UserError
from ..layout import BUILDING, NAME, SETTINGS
from .elsewhere import read_elsewhere

_SETTINGS = ("version", "records_version", "options", "shard_clips")  # an interrupted build is resumed with these
COMPARED = (*_SETTINGS, "list_sha256")  # a finished folder with others is not replaced without being asked to
KEPT = (*COMPARED, "source_sha256")  # of prepare.json, what a build keeps while it lasts


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
    """Return the prepare.json of `out` if the folder is what is wanted; None if it has to be made, or in part again.

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
        sizes = {path.name: path.stat().st_size for path in out.glob(f"{NAME}*/*/*.array_record*")}
        sizes |= {name.rpartition("/")[2]: size for name, (_, size) in read_elsewhere(out).items()}
        whole = sizes == {shard["name"]: shard["bytes"] for shard in done["shards"]}
        same = same_as_wanted(done, wanted, where=str(out), overwrite=overwrite)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{file} is not from twinreel prepare ({error!r}); give another --out") from error
    return done if may_stay(done, whole and same, where=str(out), overwrite=overwrite) else None


def may_stay(done: dict[str, Any], as_wanted: bool, *, where: str, overwrite: bool) -> bool:
    """Return whether a finished folder stays as it is.

    Raises:
      UserError: it does not, but sources were appended to it, which would be lost.
    """
    if not as_wanted and "parts" in done and not overwrite:
        sources = ", ".join(repr(part["source"]) for part in done["parts"][1:])
        raise UserError(
            f"shards of {where!r} are lost, or files of its first source have changed; it has appended sources, too "
            f"({sources}), so it cannot be made again in part. Prepare each source into a folder of its own and join "
            "them with `twinreel prepare --merge`, or give --overwrite to make it again without what was appended"
        )
    return as_wanted


def same_as_wanted(done: dict[str, Any], wanted: dict[str, Any], *, where: str, overwrite: bool) -> bool:
    """Return whether a finished folder is what is wanted; not if files of its clips have changed since.

    Args:
      done: its prepare.json.
      wanted: what prepare.json is to have.
      where: the folder, for the error.
      overwrite: whether a folder with other options or other clips may be replaced.

    Raises:
      UserError: it has other options, or was prepared from another list of clips, and may not be replaced.
    """
    done = done | done["parts"][0] if "parts" in done else done  # what was appended has commands of its own
    changes = difference(*({key: config[key] for key in COMPARED if key in config} for config in (done, wanted)))
    if changes and not overwrite:
        changes = ["the list of clips is another" if line.startswith("list_sha256") else line for line in changes]
        raise UserError(
            f"{where!r} was prepared with other options or from another list of clips:\n  "
            + "\n  ".join(changes)
            + "\ngive another --out, or --overwrite to replace it"
        )
    return not changes and done["source_sha256"] == wanted["source_sha256"]


def resumes(out: Path, wanted: dict[str, Any], *, overwrite: bool, console: Console) -> bool:
    """Return whether `out` holds the beginning of the build that is wanted.

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
            + "\ngive the same options to resume it, another --out, or --overwrite to start again"
        )
    if not changes and not same_source:
        console.print("the source has changed since the build was begun: shards whose clips changed are made again")
    return not changes
