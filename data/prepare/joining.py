"""Several prepared folders as one: what must be equal, what the whole consists of, shards taken over as they are."""

import collections
import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ...base.config import difference
from ...base.errors import UserError
from ..index.keys import exact_key
from ..layout import INDEX, home_of

_NAMED = 5  # clip ids in an error
_WHOLE = ("version", "records_version", "shards", "duplicates", "parts")  # of prepare.json, what no part has of its own


def read_report(folder: Path, *, flag: str) -> dict[str, Any]:
    """Read the prepare.json of a finished folder.

    Raises:
      UserError: there is none, or it is of another version; `flag` names who asked.
    """
    remedy = "finish it with its own `twinreel prepare` command first"
    try:
        done = json.loads((folder / "prepare.json").read_text(encoding="utf-8"))
        if missing := {"options", "shards", "list_sha256", "counts"} - done.keys():
            raise KeyError(*sorted(missing))
    except FileNotFoundError:
        raise UserError(f"{flag}: {str(folder)!r} has no prepare.json, so it is not prepared; {remedy}") from None
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{flag}: {folder / 'prepare.json'} cannot be read ({error!r}); {remedy}") from error
    return done


def check_equal(done: dict[str, Any], other: dict[str, Any], *, where: str, remedy: str) -> None:
    """Refuse to join what was prepared with other options.

    Args:
      done: the prepare.json of one folder.
      other: that of another, or what it is to have.
      where: which of the two has which options, for the error.
      remedy: likewise.

    Raises:
      UserError: options differ, splits excepted; it names each field with both values.
    """
    if changes := difference(_compared(done), _compared(other)):
        raise UserError(f"{where} were prepared with other options:\n  " + "\n  ".join(changes) + f"\n{remedy}")


def _compared(report: dict[str, Any]) -> dict[str, Any]:
    options = {name: value for name, value in report["options"].items() if name != "splits"}
    return {"version": report["version"], "records_version": report["records_version"], **options}


def ids_of(folder: Path) -> Iterator[str]:
    """Yield the ids of the clips of a prepared folder."""
    with (folder / "clips.jsonl").open("rb") as lines:
        for line in lines:
            yield json.loads(line)["clip_id"]


def refuse_repeated(sources: Sequence[Callable[[], Iterable[str]]], *, where: str) -> None:
    """Refuse clip ids that come twice; 8 bytes of memory for each id.

    Args:
      sources: each yields ids when it is called, the same ones each time.
      where: what has them, for the error.

    Raises:
      UserError: some do; the first are named.
    """
    with Console(stderr=True).status("comparing clip ids"):
        keys = [np.fromiter(map(exact_key, source()), np.uint64) for source in sources]
        found, counts = np.unique(np.concatenate(keys), return_counts=True)
        if not (counts > 1).any():
            return
        twice = set(found[counts > 1].tolist())
        ids = collections.Counter(name for source in sources for name in source() if exact_key(name) in twice)
    names = [name for name, count in ids.items() if count > 1]  # two ids may share a key
    if names:
        named = ", ".join(map(repr, names[:_NAMED])) + ", ..." * (len(names) > _NAMED)
        raise UserError(
            f"{len(names):,} clip ids come twice in {where}: {named}; give each clip an id of its own, or leave out "
            "the clips that are there already"
        )


def link(source: Path, *, to: Path) -> None:
    """Give a finished file a second name, or copy it where the file system has no hard links.

    A file of that size which is there already is taken to be it.
    """
    size = source.stat().st_size
    with contextlib.suppress(FileNotFoundError):
        if to.stat().st_size == size:
            return
        to.unlink()
    try:
        os.link(source, to)
    except OSError:
        temporary = to.with_name(f".{to.name}.tmp")
        shutil.copyfile(source, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if temporary.stat().st_size != size:
            raise OSError(f"{source} has changed while it was copied") from None
        temporary.replace(to)


def join_lines(paths: Iterable[Path], *, to: Path) -> None:
    """Write files one behind the other, whole or not at all; those that do not exist are left out."""
    from .shards import writing

    temporary = to.with_name(f".{to.name}.tmp")
    with writing(to), temporary.open("wb") as file:
        for path in paths:
            with contextlib.suppress(FileNotFoundError), path.open("rb") as lines:
                shutil.copyfileobj(lines, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(to)


def counts_of(report: dict[str, Any]) -> list[tuple[str, int]]:
    """Return split and number of records of each shard, in the order of clips.jsonl."""
    return [(shard["split"], shard["records"]) for shard in report["shards"]]


def ensure_index(folder: Path, *, done: dict[str, Any]) -> None:
    """Give a finished folder of an earlier version its index."""
    if (folder / INDEX).is_dir():
        return
    from ..index.write import write_index

    listed = [(s["split"], s["records"], folder / home_of(s["name"]) / s["name"]) for s in done["shards"]]
    write_index(folder, shards=listed)


def part_of(report: dict[str, Any], *, name: str) -> dict[str, Any]:
    """Return what the whole says of one of its parts; `name` is that of its TFDS data set."""
    return {"name": name} | {field: value for field, value in report.items() if field not in _WHOLE}


def join_reports(
    reports: Sequence[dict[str, Any]],
    *,
    parts: Sequence[dict[str, Any]],
    shards: Sequence[dict[str, Any]],
    duplicates: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return the content of prepare.json for a folder that consists of several.

    Args:
      reports: the prepare.json of each.
      parts: `part_of` each source that is in them: of these are the hashes of the whole.
      shards: of the whole.
      duplicates: `settle.counted` of the whole, None = nobody looked.
    """
    counts: dict[str, dict[str, int]] = {}
    for report in reports:
        for split, count in report["counts"].items():
            own = counts.setdefault(split, {"clips": 0, "rejected": 0})
            for name in own:
                own[name] += count[name]
    splits = sorted({split for report in reports for split in report["options"]["splits"]})
    return {
        "version": reports[0]["version"],
        "records_version": reports[0]["records_version"],
        "options": reports[0]["options"] | {"splits": splits},
        "shard_clips": reports[0]["shard_clips"],
        "source": " + ".join(part["source"] for part in parts),
        "source_notes": _sum(report["source_notes"] for report in reports),
        "list_sha256": _hash(part["list_sha256"] for part in parts),
        "source_sha256": _hash(part["source_sha256"] for part in parts),
        "captions": _sum(report["captions"] for report in reports),
        "counts": counts,
        "bytes": sum(report["bytes"] for report in reports),
        "shards": list(shards),
        "rejected": _sum(report["rejected"] for report in reports),
        "notes": _sum(report["notes"] for report in reports),
        "duplicates": duplicates,
    }


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: collections.Counter[str] = collections.Counter()
    for count in counts:
        total.update(count)
    return dict(total.most_common())


def _hash(hashes: Iterable[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()
