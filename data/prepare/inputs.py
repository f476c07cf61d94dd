"""The files that the clips of a source are made of: found, and known by their contents.

A prepared folder keeps a line per input file in `inputs.jsonl`: path, contents (SHA-256; of a file behind a URL, its
size and the tag that its store gives it), and size and times of the local file. Where the latter are unchanged, the
contents are not read again; where they differ (a copy, `touch`), the file is hashed, and is the same if its hash is.
"""

import concurrent.futures
import dataclasses
import errno
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from ...base.errors import UserError
from ...data import remote
from ..layout import BUILDING, INPUTS
from ..machine import cores
from ..manifest import REFUSED, Clip, to_json
from ..paths import Member, NoSuchFile, PathLike, is_remote, join, member_of, open_binary, pin, size
from ..sources.notes import Notes
from ..sources.resolve import Resolver

_Times = tuple[int, int, int]
MISSING = ""  # the contents of a file that does not exist
_UNREADABLE = "unreadable"
_RECENT_S = 2.0  # a file changed so recently may change again within one tick of its file system's clock
_REMOTE_READERS = 16
_BLOCK = 2**20
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """What is known of an input file.

    Attributes:
      contents: what stands for its bytes; `MISSING` if it does not exist.
      times: size in bytes, and times of the last change of contents and of attributes in ns; None = not to be relied
        on.
    """

    contents: str
    times: _Times | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """The clips of a source with the state of their files.

    Attributes:
      clips: with their paths as the files are named.
      states: the state of each input file by its path.
    """

    clips: list[Clip]
    states: dict[str, State]

    def contents(self) -> dict[str, str]:
        """Return what stands for the contents of the file at each path of the clips, features included."""
        return contents_by_path(self.clips, self.states)


def contents_by_path(clips: Iterable[Clip], states: Mapping[str, State]) -> dict[str, str]:
    """Return what stands for the contents of the file at each path of the clips; of an unknown file, `MISSING`."""
    unknown = State(contents=MISSING)
    return {path: states.get(_file(path), unknown).contents for clip in clips for path in _paths(clip)} | {"": MISSING}


def read_inputs(
    clips: Sequence[Clip], *, root: PathLike, known: Mapping[str, State] | None = None, notes: Notes | None = None
) -> Inputs:
    """Find the files of clips and read what stands for their contents.

    Args:
      clips: as their source gives them. A file that does not exist is looked for under similar names (see `resolve`).
      root: folder to which their paths are relative.
      known: states of an earlier run: files whose size and times are still those are not read.
      notes: where files are counted that were found under another name.

    Raises:
      UserError: an archive that is cut short, or a URL that cannot be reached.
    """
    states = _states({path for clip in clips for path in _paths(clip)}, root=root, known=known or {})
    gone = sorted({path for clip in clips for path in _paths(clip) if path and not states[_file(path)].contents})
    resolver = Resolver(root)
    found, hints = {}, {}
    for path in gone:
        resolved = resolver.resolve(path)
        if resolved.path:
            found[path] = resolved.path
            if notes is not None:
                notes.add(resolved.how, name=path)
        elif resolved.hint:
            hints[path] = resolved.hint
    states |= _states(set(found.values()), root=root, known=known or {})
    return Inputs(clips=[_renamed(clip, found=found, hints=hints) for clip in clips], states=states)


def list_hash(clips: Iterable[Clip]) -> str:
    """Return the SHA-256 (hex) of the manifest lines of clips."""
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(json.dumps(to_json(clip), sort_keys=True).encode())
    return digest.hexdigest()


def source_hash(clips: Iterable[Clip], *, contents: Mapping[str, str]) -> str:
    """Return the SHA-256 (hex) of the manifest lines of clips and of the contents of their files."""
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(json.dumps([to_json(clip), *contents_of(clip, contents)], sort_keys=True).encode())
    return digest.hexdigest()


def contents_of(clip: Clip, contents: Mapping[str, str]) -> list[str]:
    """Return what stands for the contents of the files of a clip: of its video, then of its features."""
    return [contents.get(clip.path, MISSING), *(contents.get(path, MISSING) for path in clip.features.values())]


# --- inputs.jsonl ---


def load_states(out: Path, *, url: str = "") -> dict[str, State]:
    """Return the states that earlier runs have noted in a folder, whole or in the making; {} if there are none.

    Args:
      out: the folder.
      url: where a finished folder lies instead, "" = in `out`.
    """
    states: dict[str, State] = {}
    for place in (f"{url}/{INPUTS}" if url else out / INPUTS, out / BUILDING / INPUTS):
        try:
            with open_binary(place) as file:
                for line in map(json.loads, file):
                    times = tuple(line["times"]) if line.get("times") else None
                    states[line["path"]] = State(contents=line["contents"], times=cast(Any, times))
        except (UserError, ValueError, KeyError, TypeError):  # not there, or damaged: then files are read again
            continue
    return states


def to_lines(states: Mapping[str, State]) -> list[dict[str, Any]]:
    """Return the lines of inputs.jsonl."""
    return [
        {"path": path, "contents": state.contents, "times": state.times and list(state.times)}
        for path, state in sorted(states.items())
        if path
    ]


# --- files ---


def _paths(clip: Clip) -> tuple[str, ...]:
    return (clip.path, *clip.features.values())


def _file(path: str) -> str:
    """The file of a path that is hashed: a member of an archive alone, a record of a TFRecord file with its file."""
    return path if member_of(path) else path.partition("::")[0]


def _renamed(clip: Clip, *, found: Mapping[str, str], hints: Mapping[str, str]) -> Clip:
    hint = next((hints[path] for path in _paths(clip) if path in hints), "")
    if hint and REFUSED not in clip.meta:
        clip = dataclasses.replace(clip, meta={**clip.meta, REFUSED: f"file does not exist: {hint}"})
    if not any(path in found for path in _paths(clip)):
        return clip
    features = {name: found.get(path, path) for name, path in clip.features.items()}
    return dataclasses.replace(clip, path=found.get(clip.path, clip.path), features=features)


def _states(paths: Iterable[str], *, root: PathLike, known: Mapping[str, State]) -> dict[str, State]:
    """The states of files; those that have to be read are read in parallel."""
    states = {"": State(contents=MISSING)}
    to_read: list[tuple[str, int, _Times | None]] = []
    far: list[str] = []
    for path in sorted({_file(path) for path in paths} - {""}):
        if is_remote(join(root, path)):
            far.append(path)
            continue
        seen = _look(join(root, path))
        if isinstance(seen, State):
            states[path] = seen
        elif path in known and known[path].times == seen[1]:
            states[path] = known[path]
        else:
            recent = time.time_ns() - max(seen[1][1:]) < _RECENT_S * 1e9
            to_read.append((path, seen[0], None if recent else seen[1]))
    return states | _hashed(to_read, root=root) | _remote_states(far, root=root)


def _look(place: str) -> State | tuple[int, _Times]:
    """Bytes and times of a local file or member; the state of what is no file."""
    member = member_of(place)
    try:
        there = os.stat(member.archive if member else place)  # noqa: PTH116
        length = size(place) if member else there.st_size
    except NoSuchFile:
        return State(contents=MISSING)
    except UserError:  # a damaged archive
        raise
    except ValueError:  # a path that no file can have
        return State(contents=MISSING)
    except OSError as error:
        if error.errno in _NO_FILE:
            return State(contents=MISSING)
        raise UserError(f"{place!r} cannot be looked at ({error.strerror}); check its permissions") from error
    if not stat.S_ISREG(there.st_mode):
        return State(contents=_UNREADABLE)
    return length, (there.st_size, there.st_mtime_ns, there.st_ctime_ns)


def _hashed(files: Sequence[tuple[str, int, _Times | None]], *, root: PathLike) -> dict[str, State]:
    """The states of local files, by path, length and times, from their bytes."""
    columns = (TextColumn("reading inputs"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with (
        concurrent.futures.ThreadPoolExecutor(cores()) as pool,
        Progress(*columns, console=console, transient=True, disable=not (files and console.is_terminal)) as progress,
    ):
        task = progress.add_task("", total=sum(length for _, length, _ in files))

        def digest(path: str) -> str:
            try:
                with open_binary(join(root, path)) as file:
                    return _sha256(file, advance=lambda count: progress.advance(task, count))
            except (OSError, UserError):
                return _UNREADABLE

        digests = pool.map(digest, (path for path, _, _ in files))
        return {
            path: State(contents=contents, times=times)
            for (path, _, times), contents in zip(files, digests, strict=True)
        }


def _sha256(file: BinaryIO, *, advance: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
        advance(len(block))
    return digest.hexdigest()


def _remote_states(paths: Sequence[str], *, root: PathLike) -> dict[str, State]:
    """The states of files behind URLs; of the members of one archive, the archive is asked for once."""
    places = [join(root, path) for path in paths]
    archives = sorted({member.archive for place in places if (member := member_of(place))})
    with concurrent.futures.ThreadPoolExecutor(_REMOTE_READERS) as pool:
        stated = dict(zip(archives, pool.map(_identity, archives), strict=True))
        made = pool.map(lambda place: _remote_state(place, archives=stated), places)
        return dict(zip(paths, made, strict=True))


def _identity(url: str) -> tuple[int, str] | None:
    try:
        return remote.identity(url)
    except NoSuchFile:
        return None


def _remote_state(place: str, *, archives: Mapping[str, tuple[int, str] | None]) -> State:
    """The state of a file behind a URL: its size and what its store states; of a member, that of its archive too."""
    member = member_of(place)
    stated = archives[member.archive] if member else _identity(place)
    if stated is None:
        return State(contents=MISSING)
    whole, tag = stated
    if member is None:
        return State(contents=f"{whole} {tag}")
    try:
        pinned = cast(Member, member_of(pin(place)))
    except NoSuchFile:
        return State(contents=MISSING)
    assert pinned.offset is not None and pinned.size is not None
    if pinned.offset + pinned.size > whole:
        size(place)  # raises the error for an archive that is cut short
    return State(contents=f"{pinned.offset}+{pinned.size} of {whole} {tag}")
