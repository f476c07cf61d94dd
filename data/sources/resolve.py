"""Files that a list names a little differently than the disk does: another Unicode form, blanks, backslashes."""

import dataclasses
import os
import unicodedata
from collections.abc import Callable, Iterator

from ..paths import PathLike, exists, is_remote, join, member_names, member_of

FORM = "files found under their name in another Unicode form (NFC or NFD)"
BLANKS = "files found under their name without the blanks at its ends"
SLASHES = "files found under their path with / for \\"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resolved:
    """What a path that does not exist most likely means.

    Attributes:
      path: the path of the file that is there, "" if none is certain.
      how: how the two differ, as it follows a number in a note.
      hint: what may be meant where nothing is certain, "" for no idea.
    """

    path: str = ""
    how: str = ""
    hint: str = ""


class Resolver:
    """Looks for files by names that differ from theirs; folders and archives are listed once."""

    def __init__(self, root: PathLike):
        """Look below `root`, to which the paths are relative."""
        self._root = root
        self._listed: dict[str, dict[str, list[str]]] = {}

    def resolve(self, path: str) -> Resolved:
        """Return what a path means that does not exist as it is."""
        for changed, how in self._variants(path):
            found = self._same(changed)
            if found and found != path:
                return Resolved(path=found, how=how if changed != path else FORM)
        blank = path != path.strip() or any(part != part.strip() for part in path.split("/"))
        hint = f"{path!r} begins or ends with a blank" if blank else self._other_case(path)
        return Resolved(hint=hint)

    def _variants(self, path: str) -> Iterator[tuple[str, str]]:
        """The path, and what else it may mean, the likeliest first."""
        yield path, FORM
        stripped = "/".join(part.strip() for part in path.split("/"))
        if stripped != path and stripped:
            yield stripped, BLANKS
        if "\\" in path:
            yield path.replace("\\", "/"), SLASHES

    def _same(self, path: str) -> str:
        """The path of the file whose name is the same in composed form, "" if there is none, or several."""
        member = member_of(path)
        archive = member.archive if member else path
        found = archive if exists(join(self._root, archive)) else self._same_file(archive)
        if not found or member is None:
            return found
        if member.offset is not None:
            return path.replace(archive, found, 1)
        names = member_names(join(self._root, found))
        same = [name for name in names if _composed(name) == _composed(member.name)]
        return f"{found}::{same[0]}" if len(same) == 1 else ""

    def _same_file(self, path: str) -> str:
        if is_remote(join(self._root, path)):
            forms = (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))
            return next((form for form in forms if form != path and exists(join(self._root, form))), "")
        return self._walk(path, key=_composed)

    def _other_case(self, path: str) -> str:
        if is_remote(join(self._root, path)) or member_of(path) is not None:
            return ""
        found = self._walk(path, key=_folded)
        return f"there is {found!r}, which differs in upper and lower case" if found else ""

    def _walk(self, path: str, *, key: Callable[[str], str]) -> str:
        """The path of a file of which each part has the same key as that of `path`; "" if none or several have."""
        here = "/" if path.startswith("/") else ""
        for part in filter(None, path.split("/")):
            names = self._names(here, key=key).get(key(part), [])
            if part in names or part in (".", ".."):
                names = [part]
            if len(names) != 1:
                return ""
            here = f"{here.rstrip('/')}/{names[0]}" if here else names[0]
        return here if exists(join(self._root, here)) else ""

    def _names(self, folder: str, *, key: Callable[[str], str]) -> dict[str, list[str]]:
        """The names in a folder by their key."""
        listed = self._listed.get(f"{key.__name__} {folder}")
        if listed is None:
            listed = self._listed.setdefault(f"{key.__name__} {folder}", {})
            try:
                for name in os.listdir(join(self._root, folder) if folder else self._root):  # noqa: PTH208
                    listed.setdefault(key(name), []).append(name)
            except OSError:  # no such folder, or none that may be read: nothing is found there
                pass
        return listed


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
