"""WebDataset archives, as video2dataset and img2dataset write them, to clips.

One sample is the members of one archive that share a name up to its first dot: `KEY.mp4` with `KEY.txt` (the caption),
`KEY.json` (see `sidecars`), `KEY.cls` (a label), `KEY.NAME.npy` (precomputed features). A picture (`KEY.jpg`) is a clip
of one frame. Only headers and texts are read; media stay where they are, and clips name them by their place. What
cannot be used becomes a clip with the reason in `meta["refused"]`, so that it is listed and counted with the others.
"""

import collections
import concurrent.futures
import dataclasses
import fnmatch
import itertools
import posixpath
import re
from collections.abc import Iterator
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ...base.errors import UserError
from ...data import paths, remote
from ..manifest import NOT_FETCHED, REFUSED, Clip, make_clip
from ..sources import sidecars
from ..tars import TarError, TarMember, members
from .read import ARCHIVES, PICTURE_SUFFIXES, VIDEO_SUFFIXES, assign_splits, hashed_split

SOUND_SUFFIXES = frozenset((".m4a", ".wav", ".flac", ".mp3", ".ogg", ".opus"))
_TEXTS = {".txt": sidecars.LONGEST_TEXT, ".cls": sidecars.LONGEST_TEXT, ".json": sidecars.LONGEST_JSON}
_KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.S)
_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")
_SPLIT = re.compile(r"(?:^|[-_./])(train|validation|valid|val|test)(?=[-_./])")
_MOST_ARCHIVES = 1_000_000
_REMOTE_READERS = 16  # archives behind URLs that are read at a time: each waits for the network most of the time


@dataclasses.dataclass(kw_only=True)
class Sample:
    """The members of an archive that share a key.

    Attributes:
      key: the name up to the first dot.
      media: member with the pictures, None if there is none.
      texts: contents of the text members by suffix.
      features: members with features by name.
      refused: why it cannot be used, "" if it can.
    """

    key: str
    media: TarMember | None = None
    texts: dict[str, bytes] = dataclasses.field(default_factory=dict)
    features: dict[str, TarMember] = dataclasses.field(default_factory=dict)
    refused: str = ""


@dataclasses.dataclass(kw_only=True)
class Shard:
    """What an archive holds.

    Attributes:
      samples: in the order in which their first members stand.
      faults: what is wrong beyond single samples, as (offset, reason).
      left_out: members that are no part of a clip, by what they are.
    """

    samples: list[Sample]
    faults: list[tuple[int, str]]
    left_out: collections.Counter[str]


def read(shards: str, *, console: Console | None = None) -> tuple[str, list[Clip]]:
    """Read the index of WebDataset archives.

    Args:
      shards: one archive, a folder of archives, or a pattern (`{00000..00099}`, `{a,b}`, `*`); local or a URL.
      console: where progress and remarks go; None = standard error.

    Returns:
      The folder to which the clips' paths are relative, and the clips, all with a split: the one that the archives'
      names state (`train-00000.tar`, `val/00000.tar`), else 80 % train, 10 % val, 10 % test by a hash of the video's
      URL or key, so that clips of one video stay together.

    Raises:
      UserError: no archive, one that is compressed or cannot be reached, or no sample in any of them.
    """
    console = console or Console(stderr=True)
    archives = expand(shards)
    root = _root(archives)
    found = [_clips(archive, shard, root=root) for archive, shard in _scan_all(archives, console=console)]
    clips = [clip for some, _ in found for clip in some]
    if not clips:
        raise UserError(f"--shards {shards!r}: {len(archives)} archives hold no sample; wanted members such as KEY.mp4")
    left_out = sum((remarks for _, remarks in found), collections.Counter[str]())
    for what, count in left_out.most_common():
        console.print(f"{count:,} {what}", style="yellow")
    return root, _settled(clips, where=shards)


def expand(shards: str) -> list[str]:
    """Return the archives that a path, a folder or a pattern names.

    >>> expand("s/{08..10}.tar")
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
            inside = paths.listing(name, suffix=".tar")
            if not inside:
                raise UserError(f"--shards {name!r}: the folder has no .tar; give a folder of archives, or a pattern")
            archives += inside
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


def scan(archive: str) -> Shard:
    """Read the headers and texts of one archive.

    Raises:
      UserError: it does not exist, cannot be reached, or is compressed.
    """
    shard = Shard(samples=[], faults=[], left_out=collections.Counter())
    samples: dict[str, Sample] = {}
    with remote.open_headers(archive) if paths.is_remote(archive) else paths.open_binary(archive) as file:
        try:
            for member in members(file):
                found = _KEY.fullmatch(member.name)
                if found is None and not member.refused:
                    shard.left_out["members without a suffix left out"] += 1
                elif found is None:
                    shard.faults.append((member.header, f"member {member.refused}: {member.name[:200]!r}"))
                else:
                    key, suffix = found[1], found[2].lower()
                    _take(samples.setdefault(key, Sample(key=key)), member, suffix, file=file, shard=shard)
        except TarError as error:
            if "compressed" in error.what or "no tar archive" in error.what:
                remedy = "gunzip or the like" if "compressed" in error.what else "give archives that tar can list"
                raise UserError(f"{archive!r}: {error.what.rstrip(';:, ')}; {remedy}") from error
            shard.faults.append((error.offset, f"archive is damaged: {error}"))
    shard.samples = list(samples.values())
    return shard


def _take(sample: Sample, member: TarMember, suffix: str, *, file: BinaryIO, shard: Shard) -> None:
    """Take a member into its sample."""
    last = "." + suffix.rpartition(".")[2]
    if member.refused:
        sample.refused = sample.refused or f"member {member.refused}: {member.name[:200]!r}"
    elif last in VIDEO_SUFFIXES or last in PICTURE_SUFFIXES:
        if sample.media is None:
            sample.media = member
        elif sample.media.name == member.name:
            sample.refused = sample.refused or f"member comes twice: {member.name[:200]!r}"
        elif last in VIDEO_SUFFIXES and not _is_video(sample.media):
            sample.media = member
            shard.left_out["pictures beside a video left out"] += 1
        else:
            shard.left_out["further media of one sample left out"] += 1
    elif last in _TEXTS and suffix == last[1:]:
        if last in sample.texts:
            sample.refused = sample.refused or f"member comes twice: {member.name[:200]!r}"
        elif member.size > _TEXTS[last]:
            limit = f"{member.size:,} bytes, at most {_TEXTS[last]:,}"
            sample.refused = sample.refused or f"text is too long: {member.name[:200]!r} ({limit})"
        else:
            file.seek(member.data)
            sample.texts[last] = file.read(member.size)
    elif last == ".npy" and re.fullmatch(r"[a-z][a-z0-9_]*\.npy", suffix):
        sample.features.setdefault(suffix.removesuffix(".npy"), member)
    elif last in SOUND_SUFFIXES:
        shard.left_out["sound in files of its own left out (what is in the video is used)"] += 1
    else:
        shard.left_out[f"members of the unknown kind {last[:20]} left out"] += 1


def _is_video(member: TarMember) -> bool:
    return posixpath.splitext(member.name)[1].lower() in VIDEO_SUFFIXES


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


def _clips(archive: str, shard: Shard, *, root: str) -> tuple[list[_Found], collections.Counter[str]]:
    """The clips of an archive, and remarks."""
    inside = archive if root == "." else archive.removeprefix(root.rstrip("/") + "/")
    split, remarks = _split(inside), shard.left_out.copy()
    found = []
    for sample in shard.samples:
        clip, bad_lines = _clip(sample, archive=inside, split=split)
        remarks["lines of subtitles with impossible times left out"] += bad_lines
        found.append(clip)
    for offset, reason in shard.faults:
        found.append(_refused(f"{inside}@{offset}", archive=inside, reason=reason, split=split, video=inside))
    return found, +remarks


def _clip(sample: Sample, *, archive: str, split: str) -> tuple[_Found, int]:
    """The clip of a sample, and how many of its sentences had to be left out."""
    video, reason = sample.key, sample.refused
    try:
        fields = sidecars.json_fields(sample.texts.get(".json", b"{}"))
        video = sidecars.video_key(sample.key, fields)
        if not reason and sample.media is None and not sample.features:
            status = fields.get("status")
            reason = NOT_FETCHED + (f": status {str(status)[:80]!r}" if status else "")
        if not reason:
            said, bad = sidecars.sentences(fields)
            caption, category = (sidecars.text(sample.texts.get(suffix, b"")) for suffix in (".txt", ".cls"))
            made = {
                "clip_id": sample.key,
                "path": "" if sample.media is None else _place(archive, sample.media),
                "captions": sidecars.captions(caption, fields),
                "labels": sidecars.labels(category, fields),
                "split": split,
                "sentences": said,
                "transcript": " ".join(line["text"] for line in said),
                "features": {name: _place(archive, member) for name, member in sample.features.items()},
                "meta": sidecars.meta(fields),
            }
            clip = make_clip(made, where=f"{archive}, sample {sample.key!r}")
            return _Found(clip=clip, archive=archive.removesuffix(".tar"), video=video), bad
    except (sidecars.BadText, UserError) as error:
        reason = reason or f"text cannot be used: {error}"
    path = archive if sample.media is None else _place(archive, sample.media)
    return _refused(sample.key, archive=archive, reason=reason, split=split, video=video, path=path), 0


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


def _split(archive: str) -> str:
    """The split that an archive's name or folder states; "" for none."""
    found = _SPLIT.search(archive)
    return "" if found is None else {"validation": "val", "valid": "val"}.get(found[1], found[1])


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
