"""`prepare --append`: a further source for a finished folder, whose shards stay as they are.

    DIR/.appending/part/     the source, prepared like any other; the folder can be read as it was meanwhile
    DIR/twinreel_clips_N/    its shards, under their final names: the Nth further TFDS data set of the folder
    DIR/.appending/joined/   clips.jsonl, index and the rest of the whole; prepare.json, written last

Once `joined/prepare.json` is there, the append is decided: the files change places with those of the folder, its
prepare.json first away and last back, and whoever is killed on the way leaves this to the next `prepare` of the folder.

Of a folder behind a URL, all but the shards is fetched to a local folder, which is appended to and sent back.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from ...base.errors import UserError
from ..layout import APPENDING, BUILDING, INDEX, INPUTS, NAME, RECORDS_VERSION, home_of
from ..manifest import write_whole
from ..prepare import sending
from .elsewhere import read_elsewhere, write_elsewhere
from .folder import only_one
from .joining import (
    check_equal,
    counts_of,
    ensure_index,
    ids_of,
    join_lines,
    join_reports,
    link,
    part_of,
    read_report,
    refuse_repeated,
)

PART, JOINED = "part", "joined"  # in APPENDING
_FLAG = "--append"
_BASE = "base.json"  # beside the fetched lists: the prepare.json behind the URL with which they came


def append_to(
    out: Path,
    *,
    wanted: dict[str, Any],
    clip_ids: Iterable[str],
    build: Callable[[Path], dict[str, Any]],
    console: Console,
    url: str = "",
) -> dict[str, Any]:
    """Append a source to a finished folder, unless that has been done.

    Args:
      out: the folder; of one behind a URL, that into which its lists are fetched.
      wanted: what the prepare.json of the source alone is to have.
      clip_ids: of its clips.
      build: prepares it in a folder and returns that prepare.json.
      console: where messages go.
      url: where the folder is, "" = on a disk.

    Returns:
      The prepare.json of the whole.

    Raises:
      UserError: the folder is not finished, was prepared with other options, is a benchmark, or has a clip of that id;
        and as `build`.
    """
    given = {"wanted": wanted, "clip_ids": clip_ids, "build": build, "console": console}
    if not url:
        return _append(out, shown=str(out), **given)
    out.parent.mkdir(parents=True, exist_ok=True)
    with only_one(out.parent):
        there, base = sending.voucher(url), out.parent / _BASE
        if there is None and not base.is_file():
            raise UserError(f"{_FLAG}: {url!r} has no prepare.json; leave {_FLAG} out to make it")
        if there is not None and _has(there, wanted):
            console.print(f"{url} has this source already; nothing to do")
            sending.remove_build(url, name=APPENDING)  # an append that was killed at its very end leaves it
            shutil.rmtree(out, ignore_errors=True)
            base.unlink(missing_ok=True)
            return there
        if there is not None and _read(base) != there:  # nothing was begun, or from another state of the folder
            shutil.rmtree(out, ignore_errors=True)
            base.unlink(missing_ok=True)
            sending.fetch_lists(url, to=out)
            write_whole(base, parts=[json.dumps(there)])
        whole = _append(out, shown=url, **given)
        kept = {f"{home_of(shard['name'])}/{shard['name']}" for shard in whole["shards"]}
        sending.send(out, url=url, keep=kept)
        base.unlink()
    return whole


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _append(
    out: Path,
    *,
    shown: str,
    wanted: dict[str, Any],
    clip_ids: Iterable[str],
    build: Callable[[Path], dict[str, Any]],
    console: Console,
) -> dict[str, Any]:
    """Append to a folder on a disk, `shown` to the user by its name."""
    if not out.is_dir():
        raise UserError(f"{_FLAG}: {shown!r} does not exist; leave {_FLAG} out to make it")
    with only_one(out):
        recover(out)
        if (out / BUILDING).is_dir() and not (out / "prepare.json").is_file():
            raise UserError(f"{_FLAG}: {shown!r} holds an unfinished build; finish it first, by its own command")
        done = read_report(out, flag=_FLAG)
        if _has(done, wanted):
            shutil.rmtree(out / APPENDING, ignore_errors=True)
            console.print(f"{shown} has this source already; nothing to do")
            return done
        _check(done, wanted, shown=shown)
        known = list(clip_ids)
        refuse_repeated([lambda: ids_of(out), lambda: known], where=f"{shown!r} and {wanted['source']!r}")
        ensure_index(out, done=done)
        report = build(out / APPENDING / PART)
        whole = _join(out, done=done, report=report)
        recover(out)
    clips = sum(count["clips"] for count in whole["counts"].values())
    console.print(f"{shown} has {clips:,} clips of {len(whole['parts'])} sources now")
    return whole


def recover(out: Path) -> None:
    """Finish an append that is decided: put the joined files in their places. Nothing to do without one."""
    joined = out / APPENDING / JOINED
    if not (joined / "prepare.json").is_file():
        return
    (out / "prepare.json").unlink(missing_ok=True)  # until it is back, nobody opens the folder
    _sync(out)
    if (joined / INDEX).is_dir():
        shutil.rmtree(out / INDEX, ignore_errors=True)
        (joined / INDEX).rename(out / INDEX)
    for path in [path for path in joined.iterdir() if path.name != "prepare.json"]:
        path.replace(out / path.name)
    _sync(out)
    (joined / "prepare.json").replace(out / "prepare.json")
    _sync(out)
    shutil.rmtree(out / APPENDING, ignore_errors=True)


def _has(done: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether a source is in a folder, with these options and these contents of its files."""
    named = ("options", "list_sha256", "source_sha256")
    return any(all(part[name] == wanted[name] for name in named) for part in done.get("parts", [done]))


def _check(done: dict[str, Any], wanted: dict[str, Any], *, shown: str) -> None:
    remedy = f"give the options of {shown!r} (the values before the arrows), or another --out without {_FLAG}"
    check_equal(done, wanted, where=f"{_FLAG}: {shown!r} and what is to be appended", remedy=remedy)
    if "benchmark" in done:
        raise UserError(
            f"{_FLAG}: {shown!r} is the benchmark {done['benchmark']['name']!r}, which it would not be any more; "
            "prepare the source into a folder of its own, and join the two with `twinreel prepare --merge`"
        )


def _join(out: Path, *, done: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    """Put the shards of the part in their places, and write the files of the whole; return its prepare.json."""
    from ..index.join import Member, join_clips
    from .assemble import describe
    from .record import features
    from .shards import writing

    parts = done.get("parts") or [part_of(done, name=NAME)]
    part, joined, name = out / APPENDING / PART, out / APPENDING / JOINED, f"{NAME}_{len(parts)}"
    shutil.rmtree(joined, ignore_errors=True)
    shutil.rmtree(out / name, ignore_errors=True)  # of an append that was never decided
    home = out / home_of(name)
    shards = [shard | {"name": name + shard["name"].removeprefix(NAME)} for shard in report["shards"]]
    with writing(home):
        home.mkdir(parents=True)
        far, placed = read_elsewhere(part), {}
        for shard, named in zip(report["shards"], shards, strict=True):
            there = f"{home_of(shard['name'])}/{shard['name']}"
            if there in far:
                placed[f"{home_of(name)}/{named['name']}"] = far[there]
            else:
                link(part / there, to=home / named["name"])
        write_elsewhere(out, shards=placed)
        describe(home, files=shards, version=RECORDS_VERSION, features=features())
        joined.mkdir()
        members = [Member(folder, counts_of(one)) for folder, one in ((out, done), (part, report))]
        join_clips(joined, members=members)
    for listed in ("rejects.jsonl", INPUTS):
        join_lines([out / listed, part / listed], to=joined / listed)
    found = report["duplicates"]  # of the whole: see `Treatment.before`
    if found is not None:
        join_lines([part / "duplicates.jsonl"], to=joined / "duplicates.jsonl")
        found = found | {"dropped": found["dropped"] + (done["duplicates"] or {"dropped": 0})["dropped"]}
    parts = [*parts, part_of(report, name=name)]
    whole = join_reports([done, report], parts=parts, shards=[*done["shards"], *shards], duplicates=found)
    whole |= {"parts": parts}
    with writing(joined / "prepare.json"):
        _sync(joined)
        write_whole(joined / "prepare.json", parts=[json.dumps(whole, indent=2, ensure_ascii=False), "\n"])
    return whole


def _sync(folder: Path) -> None:
    """Put the names of a folder's files on the disk, where its file system knows of that."""
    opened = os.open(folder, os.O_RDONLY)
    with contextlib.suppress(OSError):
        os.fsync(opened)
    os.close(opened)
