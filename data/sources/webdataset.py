"""WebDataset archives, as video2dataset, img2dataset and clip-video-encode write them, to clips.

One sample is the members of one archive that share a key (see `samples`): `KEY.mp4` with `KEY.txt` (the caption; or
`KEY.cap`), `KEY.json` (see `sidecars`), `KEY.cls` (a label), `KEY.NAME.npy` or `KEY.npy` (precomputed features). A
picture (`KEY.jpg`) is a clip of one frame. Only headers and texts are read; media stay where they are, and clips name
them by their place. What cannot be used becomes a clip with the reason in `meta["refused"]`, so that it is listed and
counted with the others; members that belong to no clip are counted in the notes.
"""

import collections
import concurrent.futures
import dataclasses
import fnmatch
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ...base.errors import UserError
from ...data import paths, remote
from ..manifest import NOT_FETCHED, REFUSED, Clip, make_clip
from ..sources import sidecars
from ..subtitles import SUFFIXES as SUBTITLES
from ..tars import TarError, TarMember, members
from .kinds import ARCHIVES, TEXT_SUFFIXES, left_out, suffix_of
from .notes import Notes
from .samples import Sample, group
from .splits import assign_splits, hashed_split, split_of_archive

_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")
_MOST_ARCHIVES = 1_000_000
_REMOTE_READERS = 16  # archives behind URLs that are read at a time: each waits for the network most of the time


@dataclasses.dataclass(kw_only=True)
class Shard:
    """What an archive holds.

    Attributes:
      samples: in the order in which their first members stand.
      members: by name; of several with one name, the first.
      texts: contents of the members with texts, by name.
      faults: what is wrong beyond single samples, as (offset, reason).
      notes: members that are no part of a clip.
    """

    samples: list[Sample]
    members: dict[str, TarMember]
    texts: dict[str, bytes]
    faults: list[tuple[int, str]]
    notes: Notes


def read(shards: str, *, notes: Notes, console: Console | None = None) -> tuple[str, list[Clip]]:
    """Read the index of WebDataset archives.

    Args:
      shards: one archive, a folder of archives, or a pattern (`{00000..00099}`, `{a,b}`, `*`); local or a URL.
      notes: where members and files are counted that belong to no clip.
      console: where progress goes; None = standard error.

    Returns:
      The folder to which the clips' paths are relative, and the clips, all with a split: the one that the archives'
      names state (`train-00000.tar`, `Validation/00000.tar`), else 80 % train, 10 % val, 10 % test by a hash of the
      video's URL or key, so that clips of one video stay together.

    Raises:
      UserError: no archive, one that is compressed or cannot be reached, or no sample in any of them.
    """
    console = console or Console(stderr=True)
    archives = expand(shards, notes=notes)
    root = _root(archives)
    clips: list[_Found] = []
    for archive, shard in _scan_all(archives, console=console):
        clips += _clips(archive, shard, root=root)
        notes.update(shard.notes)
    if not clips:
        raise UserError(f"--shards {shards!r}: {len(archives)} archives hold no sample; wanted members such as KEY.mp4")
    return root, _settled(clips, where=shards)


def expand(shards: str, *, notes: Notes) -> list[str]:
    """Return the archives that a path, a folder or a pattern names; other files of a folder are counted in the notes.

    >>> expand("s/{08..10}.tar", notes=Notes())
    ['s/08.tar', 's/09.tar', 's/10.tar']

    Raises:
      UserError: a faulty pattern, or nothing that fits it.
    """
    names = list(itertools.islice(_braces(shards), _MOST_ARCHIVES + 1))
    if len(names) > _MOST_ARCHIVES:
        raise UserError(f"--shards {shards!r} names more than {_MOST_ARCHIVES:,} archives; give smaller ranges")
    archives: list[str] = []
    for name in names:
        if not name.lower().endswith(ARCHIVES):
            archives += _in_folder(name, notes=notes)
        elif any(sign in name for sign in "*?["):
            fitting = [
                path
                for path in paths.listing(paths.folder_of(name), suffix=".tar")
                if fnmatch.fnmatchcase(paths.file_name(path), paths.file_name(name))
            ]
            if not fitting:
                raise UserError(f"--shards {name!r} fits no archive; check the pattern")
            archives += fitting
        else:
            archives.append(name)
    return archives


def _in_folder(folder: str, *, notes: Notes) -> list[str]:
    """The archives right inside a folder."""
    files = paths.listing(folder, suffix="")
    archives = [file for file in files if file.lower().endswith(".tar")]
    if not archives:
        raise UserError(f"--shards {folder!r}: the folder has no .tar; give a folder of archives, or a pattern")
    for file in files:
        if not file.lower().endswith(".tar"):
            notes.add(left_out(file), name=paths.file_name(file))
    for inner in [] if paths.is_remote(folder) else sorted(Path(folder).iterdir()):
        if inner.is_dir():
            notes.add("folders beside archives left out (give archives as a pattern: 'DIR/*/*.tar')", name=inner.name)
    return archives


def scan(archive: str) -> Shard:
    """Read the headers and texts of one archive.

    Raises:
      UserError: it does not exist, cannot be reached, or is compressed.
    """
    shard = Shard(samples=[], members={}, texts={}, faults=[], notes=Notes())
    twice: set[str] = set()
    with remote.open_headers(archive) if paths.is_remote(archive) else paths.open_binary(archive) as file:
        try:
            for member in members(file):
                if member.refused and not suffix_of(member.name):
                    shard.faults.append((member.header, f"member {member.refused}: {member.name[:200]!r}"))
                elif member.name in shard.members:
                    twice.add(member.name)
                else:
                    shard.members[member.name] = member
                    _read_text(member, file=file, shard=shard)
        except TarError as error:
            if "compressed" in error.what or "no tar archive" in error.what:
                remedy = "gunzip or the like" if "compressed" in error.what else "give archives that tar can list"
                raise UserError(f"{archive!r}: {error.what.rstrip(';:, ')}; {remedy}") from error
            shard.faults.append((error.offset, f"archive is damaged: {error}"))
    shard.samples = group(list(shard.members), notes=shard.notes, one_film=True)
    for sample in shard.samples:
        sample.refused = sample.refused or _wrong(sample, shard=shard, twice=twice)
    return shard


def _read_text(member: TarMember, *, file: BinaryIO, shard: Shard) -> None:
    """Read a member that may be the text of a sample."""
    suffix = suffix_of(member.name)
    if suffix in (*TEXT_SUFFIXES, *SUBTITLES) and not member.refused and member.size <= sidecars.longest(suffix):
        file.seek(member.data)
        shard.texts[member.name] = file.read(member.size)


def _wrong(sample: Sample, *, shard: Shard, twice: set[str]) -> str:
    """Why a sample cannot be used; "" if it can."""
    for name in (sample.media, *sample.texts.values(), *sample.features.values()):
        if not name:
            continue
        member, shown = shard.members[name], repr(name[:200])
        if member.refused:
            return f"member {member.refused}: {shown}"
        if name in twice:
            return f"member comes twice: {shown}"
        limit = sidecars.longest(suffix_of(name))
        if name in sample.texts.values() and member.size > limit:
            return f"text is too long: {shown} ({member.size:,} bytes, at most {limit:,})"
    return ""


def _scan_all(archives: list[str], *, console: Console) -> Iterator[tuple[str, Shard]]:
    """Scan the archives, several at a time if they are remote; yield them in order."""
    readers = _REMOTE_READERS if any(map(paths.is_remote, archives)) else 1
    columns = (TextColumn("reading archives"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with concurrent.futures.ThreadPoolExecutor(readers) as pool, Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(archives))
        try:
            for archive, shard in zip(archives, pool.map(scan, archives), strict=True):
                progress.advance(task)
                yield archive, shard
        finally:
            pool.shutdown(cancel_futures=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Found:
    """A clip before it has its final name and split."""

    clip: Clip
    archive: str  # the archive's path below the root, without suffix
    video: str  # name of the video that it was cut from


def _clips(archive: str, shard: Shard, *, root: str) -> list[_Found]:
    """The clips of an archive."""
    inside = archive if root == "." else archive.removeprefix(root.rstrip("/") + "/")
    split = split_of_archive(inside)
    found = [_clip(sample, shard=shard, archive=inside, split=split) for sample in shard.samples]
    for offset, reason in shard.faults:
        found.append(_refused(f"{inside}@{offset}", archive=inside, reason=reason, split=split, video=inside))
    return found


def _clip(sample: Sample, *, shard: Shard, archive: str, split: str) -> _Found:
    """The clip of a sample."""
    video, reason = sidecars.without_number(sample.key), sample.refused
    try:
        contents = {suffix: shard.texts[name] for suffix, name in sample.texts.items() if name in shard.texts}
        texts = sidecars.read_texts(contents, one_per_line=False)
        video = texts.video or video
        if not reason and not sample.media and not sample.features:
            status = sidecars.json_fields(contents.get(".json", b"{}")).get("status")
            reason = NOT_FETCHED + (f": status {str(status)[:80]!r}" if status else "")
        if not reason:
            made = texts.fields | {
                "clip_id": sample.key,
                "path": _place(archive, shard.members[sample.media]) if sample.media else "",
                "split": split,
                "features": {name: _place(archive, shard.members[file]) for name, file in sample.features.items()},
            }
            clip = make_clip(made, where=f"{archive}, sample {sample.key!r}")
            sidecars.note_left_out(texts, name=sample.key, notes=shard.notes)
            return _Found(clip=clip, archive=archive.removesuffix(".tar"), video=video)
    except (sidecars.BadText, UserError) as error:
        reason = reason or f"text cannot be used: {error}"
    path = _place(archive, shard.members[sample.media]) if sample.media else archive
    return _refused(sample.key, archive=archive, reason=reason, split=split, video=video, path=path)


def _refused(clip_id: str, *, archive: str, reason: str, split: str, video: str, path: str = "") -> _Found:
    """A clip that stands for what cannot be used."""
    reason, video = (text.encode("utf-8", "backslashreplace").decode("utf-8") for text in (reason, video))
    clip = Clip(clip_id=clip_id, path=path or archive, split=split, meta={REFUSED: reason})
    return _Found(clip=clip, archive=archive.removesuffix(".tar"), video=video)


def _place(archive: str, member: TarMember) -> str:
    return str(paths.Member(archive=archive, name=member.name, offset=member.data, size=member.size))


def _settled(found: list[_Found], *, where: str) -> list[Clip]:
    """The clips with their splits, and with the archive's name before keys that come in several archives."""
    uses = collections.Counter(one.clip.clip_id for one in found)
    by_hash = not any(one.clip.split for one in found)
    clips: dict[str, Clip] = {}
    for one in found:
        clip = one.clip
        name = f"{one.archive}/{clip.clip_id}" if uses[clip.clip_id] > 1 else clip.clip_id
        if name in clips:
            raise UserError(f"--shards {where!r} names the archive of sample {name!r} twice; name each archive once")
        split = hashed_split(one.video) if by_hash else clip.split
        clips[name] = dataclasses.replace(clip, clip_id=name, split=split)
    return assign_splits(list(clips.values()), where=where)


def _root(archives: list[str]) -> str:
    """The folder that all archives share."""
    parents = [paths.folder_of(archive) for archive in archives]
    levels = zip(*(folder.split("/") for folder in parents), strict=False)
    root = "/".join(same[0] for same in itertools.takewhile(lambda level: len(set(level)) == 1, levels))
    if not root or root.endswith(":/"):
        remote_ones = [archive for archive in archives if paths.is_remote(archive)]
        if remote_ones:
            raise UserError(f"--shards: {archives[0]!r} and {archives[-1]!r} share no folder; prepare them apart")
        return "/" if all(folder.startswith("/") for folder in parents) else "."
    return root


def _braces(pattern: str) -> Iterator[str]:
    """All names that a pattern with `{first..last}` and `{a,b}` stands for, in order."""
    begin = pattern.find("{")
    if begin < 0:
        yield pattern
        return
    end = pattern.find("}", begin)
    inside = pattern[begin + 1 : end]
    found = _RANGE.fullmatch(inside)
    if end < 0 or "{" in inside or not (found or "," in inside):
        raise UserError(f"--shards {pattern!r} is no pattern; write ranges as {{00000..00099}}, choices as {{a,b}}")
    if found:
        first, last = int(found[1]), int(found[2])
        if last < first:
            raise UserError(f"--shards {pattern!r}: the range {inside} runs backwards; give the smaller number first")
        choices = (f"{number:0{len(found[1])}d}" for number in range(first, last + 1))
    else:
        choices = iter(inside.split(","))
    for choice in choices:
        for rest in _braces(pattern[end + 1 :]):
            yield pattern[:begin] + choice + rest
