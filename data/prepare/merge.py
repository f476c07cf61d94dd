"""`prepare --merge A B --out C`: several prepared folders as one, without decoding anything.

The shards are hard links to those of the folders (copies where that is not possible) under new names, in the order of
the folders. `C/.merging.json` says of which folders; what is there already is not copied again.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ...base.errors import UserError
from ..layout import APPENDING, INPUTS, NAME, RECORDS_VERSION, RESULTS, home_of
from ..manifest import write_jsonl, write_whole
from ..paths import PathLike, is_remote
from ..prepare import sending
from .folder import only_one
from .joining import (
    check_equal,
    counts_of,
    ids_of,
    join_lines,
    join_reports,
    link,
    part_of,
    read_report,
    refuse_repeated,
)

_BEGUN = ".merging.json"
_FLAG = "--merge"


def merge(
    folders: Sequence[PathLike],
    *,
    out: PathLike,
    duplicates: str = "report",
    fail_on_leak: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Join prepared folders into a new one, which has the clips of the first before those of the second, and so on.

    Args:
      folders: prepared with equal options, splits excepted; local.
      out: the folder to make, or a URL to which it is sent once it is made.
      duplicates: `report` looks for clips that are the same or nearly in the whole, `keep` does not.
      fail_on_leak: whether to fail when a clip of another split has a duplicate in train.
      overwrite: replace what is in `out`.
      console: where messages go; None = standard output.

    Returns:
      What is written to `out/prepare.json`, with `merged`: what the prepare.json of each folder said of it.

    Raises:
      UserError: a folder is not prepared; they differ in an option; a clip id comes twice; `out` holds something else.
    """
    console, places = console or Console(), [Path(folder) for folder in folders]
    url = os.fspath(out).rstrip("/") if is_remote(out) else ""
    if any(map(is_remote, folders)):
        raise UserError(f"{_FLAG} joins folders on a disk, got {', '.join(map(str, folders))}; copy them first")
    if duplicates not in ("report", "keep"):
        raise UserError(
            f"{_FLAG} leaves the shards as they are, so --duplicates {duplicates} is not possible; give report or keep"
        )
    target = sending.staging_folder(url) if url else Path(out)
    reports = _checked(places, out=target)
    begun = {"folders": [hashlib.sha256((place / "prepare.json").read_bytes()).hexdigest() for place in places]}
    with only_one(target):
        done = _done(target, url=url, begun=begun, overwrite=overwrite)
        if done is None:
            refuse_repeated([lambda place=place: ids_of(place) for place in places], where=", ".join(map(str, places)))
            with console.status(f"joining {len(places)} folders"):
                done = _join(places, out=target, reports=reports, begun=begun, look=(duplicates, fail_on_leak))
            if url:
                sending.send(target, url=url)
        elif fail_on_leak:
            from .duplicates import refuse_counted

            refuse_counted(done["duplicates"], folder=str(out))
    clips = ", ".join(f"{count['clips']:,} of {split}" for split, count in done["counts"].items())
    console.print(f"{out}: {clips}, of {len(places)} folders")
    return done


def _checked(places: Sequence[Path], *, out: Path) -> list[dict[str, Any]]:
    """Read the prepare.json of each folder and compare their options."""
    if len({place.resolve() for place in places} | {out.resolve()}) != len(places) + 1:
        raise UserError(f"{_FLAG} {' '.join(map(str, places))} --out {out} names a folder twice; give different ones")
    reports = [read_report(place, flag=_FLAG) for place in places]
    for place, report in zip(places[1:], reports[1:], strict=True):
        where = f"{_FLAG}: {str(places[0])!r} and {str(place)!r}"
        check_equal(reports[0], report, where=where, remedy="prepare one of them again with the options of the other")
    return reports


def _done(out: Path, *, url: str, begun: dict[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """Return the prepare.json of a merge that is finished; None if it is to be made, or to be continued."""
    name = f"{url}/prepare.json" if url else str(out / "prepare.json")
    done = _read(out / "prepare.json") if not url else sending.voucher(url)
    if done is not None and done.get("merged_sha256") == begun["folders"]:
        (out / _BEGUN).unlink(missing_ok=True)
        return done
    there = {path.name for path in out.iterdir()} if not url else set()
    if (done is not None and not overwrite) or (there and done is None and _BEGUN not in there):
        what = ", ".join(sorted(there)[:3]) if done is None else f"see {name}"
        remedy = "give an empty or new folder" + ", or --overwrite to replace it" * (done is not None)
        raise UserError(f"--out {str(url or out)!r} holds something else ({what}); {remedy}")
    if _read(out / _BEGUN) != begun:
        (out / "prepare.json").unlink(missing_ok=True)
        for path in [path for path in out.iterdir() if path.name.startswith((*RESULTS, APPENDING))]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_whole(out / _BEGUN, parts=[json.dumps(begun)])
    return None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{str(path)!r} cannot be read ({error}); give another --out") from error


def _join(
    places: Sequence[Path],
    *,
    out: Path,
    reports: Sequence[dict[str, Any]],
    begun: dict[str, Any],
    look: tuple[str, bool],
) -> dict[str, Any]:
    """Make the folder, prepare.json last."""
    from ..index.join import Member, join_clips
    from .assemble import describe
    from .duplicates import find_duplicates
    from .record import features
    from .settle import counted, listed, refuse_leaks, slim_rows
    from .shards import writing

    named = _named(reports)
    shards = [shard for members in named for _, shard in members]
    with writing(out):
        home = out / home_of(NAME)
        home.mkdir(parents=True, exist_ok=True)
        for place, members in zip(places, named, strict=True):
            for old, shard in members:
                link(place / home_of(old) / old, to=home / shard["name"])
        describe(home, files=shards, version=RECORDS_VERSION, features=features())
        join_clips(out, members=[Member(place, counts_of(one)) for place, one in zip(places, reports, strict=True)])
    for name in ("rejects.jsonl", INPUTS):
        join_lines([place / name for place in places], to=out / name)
    found = None
    if look != ("keep", False):
        rows = [row for place in places for row in slim_rows(place)]
        same = find_duplicates(rows)
        with writing(out / "duplicates.jsonl"):
            write_jsonl(out / "duplicates.jsonl", lines=listed(rows, found=same))
        if look[1]:
            refuse_leaks(rows, leaks=same.leaks(), out=out)
        gone = sum((report["duplicates"] or {"dropped": 0})["dropped"] for report in reports)
        found = counted(rows, found=same) | {"dropped": gone}
    merged = [part_of(one, name=str(place)) for place, one in zip(places, reports, strict=True)]
    whole = join_reports(reports, parts=merged, shards=shards, duplicates=found)
    whole |= {"merged": merged, "merged_sha256": begun["folders"]}
    with writing(out / "prepare.json"):
        write_whole(out / "prepare.json", parts=[json.dumps(whole, indent=2, ensure_ascii=False), "\n"])
    (out / _BEGUN).unlink(missing_ok=True)
    return whole


def _named(reports: Sequence[dict[str, Any]]) -> list[list[tuple[str, dict[str, Any]]]]:
    """Return of each folder the old name of each shard, and what the whole says of it, with its new name."""
    totals: dict[str, int] = {}
    for report in reports:
        for shard in report["shards"]:
            totals[shard["split"]] = totals.get(shard["split"], 0) + 1
    numbers, named = dict.fromkeys(totals, 0), []
    for report in reports:
        members = []
        for shard in report["shards"]:
            split = shard["split"]
            name = f"{NAME}-{split}.array_record-{numbers[split]:05d}-of-{totals[split]:05d}"
            numbers[split] += 1
            members.append((shard["name"], shard | {"name": name}))
        named.append(members)
    return named
