"""The split of each clip: as its source states it by name, or by a hash."""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from ...base.errors import UserError
from ..manifest import Clip

SPLITS = ("train", "val", "test")
_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_WORDS = "|".join(sorted(_NAMES, key=len, reverse=True))
_NAME = re.compile(rf"({_WORDS})(?:[-_ ]?(?:set|split|data|videos|clips))?", re.IGNORECASE)
_IN_ARCHIVE = re.compile(rf"(?:^|[-_./])({_WORDS})(?=[-_./])", re.IGNORECASE)


def split_of_folder(name: str) -> str:
    """Return the split that a folder's name states, "" for none; case does not count.

    >>> [split_of_folder(name) for name in ("Train", "validation", "dev_set", "running")]
    ['train', 'val', 'val', '']
    """
    found = _NAME.fullmatch(name)
    return _NAMES[found[1].lower()] if found else ""


def split_of_archive(path: str) -> str:
    """Return the split that the path of an archive states, "" for none.

    >>> [split_of_archive(path) for path in ("train-00000.tar", "Validation/0.tar", "contest-0.tar")]
    ['train', 'val', '']
    """
    found = _IN_ARCHIVE.search(path)
    return _NAMES[found[1].lower()] if found else ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placed:
    """Where a file of a folder belongs.

    Attributes:
      split: "" if the folder has no split folders.
      folders: the folders that the file lies in, without that of its split.
    """

    split: str
    folders: tuple[str, ...]


def place_in_splits(paths: Sequence[str], *, folder: str) -> list[Placed]:
    """Find the split folders in the paths of the files of a folder.

    A folder is a split folder if its name states a split (`split_of_folder`) and it lies at the top, or if there is one
    on the way to each file, such as `videos/Train/` or `CLASS/train/`.

    Args:
      paths: relative to the folder, with forward slashes.
      folder: for error messages.

    Raises:
      UserError: some files lie in split folders at the top, and others do not.
    """
    parents = [PurePosixPath(path).parent.parts for path in paths]
    at = [next((n for n, name in enumerate(parts) if split_of_folder(name)), None) for parts in parents]
    if not all(place is not None for place in at):
        at = [0 if place == 0 else None for place in at]
        outside = [path for path, place in zip(paths, at, strict=True) if place is None]
        if len(outside) < len(paths):
            inside = sorted({parts[0] for parts, place in zip(parents, at, strict=True) if place is not None})
            raise UserError(
                f"folder {folder!r} has split folders ({', '.join(inside)}) but also {len(outside)} files outside them "
                f"(the first: {outside[0]!r}); move these into a split folder (train, val or test)"
            )
    # Folders above all split folders are no classes: videos/train/run/a.mp4.
    above = parents[0][: at[0]] if at and at[0] else ()
    common = len(above) if all(parts[: len(above)] == above for parts in parents) else 0
    return [
        Placed(split="", folders=parts)
        if place is None
        else Placed(split=split_of_folder(parts[place]), folders=(*parts[common:place], *parts[place + 1 :]))
        for parts, place in zip(parents, at, strict=True)
    ]


def hashed_split(name: str) -> str:
    """Return `train` (80 %), `val` (10 %) or `test` (10 %), the same one for the same name everywhere.

    >>> [hashed_split(name) for name in ("a", "b", "dance/clip7")]
    ['train', 'train', 'train']
    """
    tenth = int.from_bytes(hashlib.sha256(name.encode("utf-8")).digest()[:8], "big") % 10
    return {8: "val", 9: "test"}.get(tenth, "train")


def assign_splits(clips: list[Clip], *, where: str) -> list[Clip]:
    """Return the clips with a split each: as given, or if none has one, by a hash.

    What is hashed is the clip's group, else its path, else (of a clip that has features only) its id.

    Raises:
      UserError: some clips have a split and others have none; `where` names the source in the message.
    """
    without = [clip for clip in clips if not clip.split]
    if not without:
        return clips
    if len(without) < len(clips):
        names = ", ".join(repr(clip.clip_id) for clip in without[:3])
        raise UserError(
            f"{where}: {len(without)} of {len(clips)} clips have no split (the first: {names}); "
            "give every clip a split, or none to have them split by hash"
        )
    names = (clip.group or (stem(clip.path) if clip.path else clip.clip_id) for clip in clips)
    return [dataclasses.replace(clip, split=hashed_split(name)) for clip, name in zip(clips, names, strict=True)]


def stem(path: str) -> str:
    """Return a path without its last suffix."""
    return (PurePosixPath(path).parent / PurePosixPath(path).stem).as_posix()


def unique_ids(files: Iterable[tuple[str, str]]) -> list[str]:
    """Return a clip id for each `(path, window)`: path without suffix, then the window; all are different.

    The suffix stays where ids would clash, and blanks around the path do not count unless they make the difference.

    >>> unique_ids([("x/a.mp4", ""), ("x/a.mov", ""), ("b.mp4", "@0-2")])
    ['x/a.mp4', 'x/a.mov', 'b@0-2']
    """
    pairs = list(files)
    short = [stem(path.strip()) + window for path, window in pairs]
    whole = [path + window for path, window in pairs]
    ids = short
    while True:
        uses: dict[str, int] = {}
        for name in ids:
            uses[name] = uses.get(name, 0) + 1
        clashing = [name if uses[name] == 1 else full for name, full in zip(ids, whole, strict=True)]
        if clashing == ids:
            return ids
        ids = clashing
