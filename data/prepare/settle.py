"""Duplicates in a build whose shards are finished: listed, and reported, refused or dropped."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from array_record.python.array_record_module import ArrayRecordReader

from ...base.errors import UserError
from ..manifest import write_jsonl
from .duplicates import TRAIN, Duplicates, Pair, find_duplicates
from .shards import BuildFolder, Shard, ShardReport, writing

if TYPE_CHECKING:
    from .summary import Summary

_NEEDED = ("clip_id", "split", "duration_s", "sha256", "phash", "motion")
_NAMED = 5  # leaks named in the error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Treatment:
    """What is done about duplicates.

    Attributes:
      mode: `report` lists them, `drop` leaves them out of the records as well, `keep` does not look for them.
      fail_on_leak: whether a clip of another split that has a duplicate in train ends the build with an error.
      before: the folder to which the build is to be appended: its clips count, and are never dropped.
    """

    mode: str = "report"
    fail_on_leak: bool = False
    before: Path | None = None


def slim(row: dict[str, Any]) -> dict[str, Any] | None:
    """Return what is needed of a line of clips.jsonl to find duplicates; None for a clip without a fingerprint."""
    return {key: row[key] for key in _NEEDED} if "sha256" in row else None


def slim_rows(folder: Path) -> list[dict[str, Any]]:
    """Return what is needed of a prepared folder to find duplicates, `slim` of each clip that has a fingerprint."""
    with (folder / "clips.jsonl").open(encoding="utf-8") as file:
        return [needed for line in file if (needed := slim(json.loads(line))) is not None]


def settle(
    shards: Sequence[Shard], *, work: BuildFolder, out: Path, treatment: Treatment, summary: "Summary"
) -> dict[str, Any] | None:
    """Look for duplicates, write `out/duplicates.jsonl`, and drop them if that is wanted.

    Returns:
      What prepare.json says of them (see `counted`), None if they were not looked for.

    Raises:
      UserError: a clip has a duplicate in train and `treatment.fail_on_leak` is set (not after dropping).
    """
    if treatment.mode == "keep" and not treatment.fail_on_leak:
        return None
    rows = [] if treatment.before is None else slim_rows(treatment.before)
    places, there = [-1] * len(rows), len(rows)
    for number, shard in enumerate(shards):
        report = work.report(shard, moved=True)
        assert report is not None, shard.name
        for row in _all_rows(report):
            if (needed := slim(row)) is not None:
                places.append(number)
                rows.append(needed)
    found = find_duplicates(rows)
    stead = found.to_drop(keep=there) if treatment.mode == "drop" else {}
    with writing(out / "duplicates.jsonl"):
        write_jsonl(out / "duplicates.jsonl", lines=listed(rows, found=found, stead=stead))
    if treatment.fail_on_leak and treatment.mode != "drop":
        refuse_leaks(rows, leaks=found.leaks(), out=out)
    by_shard: dict[int, dict[str, str]] = {}
    for row, kept in stead.items():
        by_shard.setdefault(places[row], {})[rows[row]["clip_id"]] = rows[kept]["clip_id"]
    for number, chosen in by_shard.items():
        _drop(shards[number], work=work, chosen=chosen, summary=summary)
    return counted(rows, found=found) | {"dropped": len(stead)}


def counted(rows: Sequence[dict[str, Any]], *, found: Duplicates) -> dict[str, Any]:
    """Count duplicates: `exact` and `near` pairs, the latter `within` and `across` splits; `leaks`; `flat`; `crowded`.

    `leaks` are the clips of other splits of which train has a duplicate, by split.
    """
    pairs = found.pairs()
    leaks: dict[str, int] = {}
    for pair in found.leaks():
        split = rows[_evaluated(rows, pair)]["split"]
        leaks[split] = leaks.get(split, 0) + 1
    across = sum(rows[pair.first]["split"] != rows[pair.second]["split"] for pair in pairs)
    return {
        "exact": sum(pair.exact for pair in pairs),
        "near": sum(not pair.exact for pair in pairs),
        "within_split": len(pairs) - across,
        "across_splits": across,
        "leaks": leaks,
        "flat": found.flat,
        "crowded": found.crowded,
    }


def listed(
    rows: Sequence[dict[str, Any]], *, found: Duplicates, stead: dict[int, int] | None = None
) -> list[dict[str, Any]]:
    """Return the lines of duplicates.jsonl: one for each pair, leaks first."""
    leaks = found.leaks()
    named = {(pair.first, pair.second) for pair in leaks}
    others = [pair for pair in found.pairs() if (pair.first, pair.second) not in named]
    lines = []
    for leak, pair in [(True, pair) for pair in leaks] + [(False, pair) for pair in others]:
        first, second = rows[pair.first], rows[pair.second]
        line = {
            "kind": "exact" if pair.exact else "near",
            "leak": leak,
            "distance": round(pair.distance, 2),
            "clips": [{"split": row["split"], "clip_id": row["clip_id"]} for row in (first, second)],
        }
        if stead:
            line["dropped"] = [rows[row]["clip_id"] for row in (pair.first, pair.second) if row in stead]
        lines.append(line)
    return lines


def refuse_leaks(rows: Sequence[dict[str, Any]], *, leaks: Sequence[Pair], out: Path) -> None:
    """Raise a UserError that names the first leaks, if there are any."""
    if not leaks:
        return
    lines = []
    for pair in leaks[:_NAMED]:
        held = _evaluated(rows, pair)
        train = pair.first + pair.second - held
        kind = "the same as" if pair.exact else "nearly the same as"
        lines.append(f"  {rows[held]['split']} {rows[held]['clip_id']} is {kind} {TRAIN} {rows[train]['clip_id']}")
    more = f"\n  and {len(leaks) - _NAMED} more" if len(leaks) > _NAMED else ""
    raise UserError(
        f"--fail_on_leak: {len(leaks)} clips of other splits are in train as well:\n"
        + "\n".join(lines)
        + more
        + f"\n{out / 'duplicates.jsonl'} lists all; take them out of train, or have that done by --duplicates drop"
    )


def _evaluated(rows: Sequence[dict[str, Any]], pair: Pair) -> int:
    """The row of a leak that is not in train."""
    return pair.second if rows[pair.first]["split"] == TRAIN else pair.first


def _all_rows(report: ShardReport) -> list[dict[str, Any]]:
    """The rows of a shard as before anything was dropped: the search finds the same however often it is repeated."""
    gone = {entry["row"]["index"]: entry["row"] for entry in report.dropped}
    kept = iter(report.rows)
    return [gone[index] if index in gone else next(kept) for index in range(len(report.rows) + len(gone))]


def _drop(shard: Shard, *, work: BuildFolder, chosen: dict[str, str], summary: "Summary") -> None:
    """Write a shard again without the chosen clips, `{clip_id: the clip that is kept instead}`."""
    report = work.report(shard)
    assert report is not None, shard.name
    if all(row["clip_id"] not in chosen for row in report.rows):
        return  # a build that goes on: it was done before
    paths = {clip.clip_id: clip.path for clip in shard.clips}
    dropped, kept = [], []
    for row in report.rows:
        if row["clip_id"] in chosen:
            place = {"clip_id": row["clip_id"], "path": paths[row["clip_id"]], "split": row["split"]}
            dropped.append({"row": row, "line": place | {"reason": f"duplicate: of {chosen[row['clip_id']]}"}})
        else:
            kept.append(row)
    with work.opened(shard) as path:
        reader = ArrayRecordReader(str(path), options="readahead_buffer_size:0,max_parallelism:0")
        try:
            records = (reader.read([row["index"]])[0] for row in kept)
            rows = [row | {"index": index} for index, row in enumerate(kept)]
            made = ShardReport(**vars(report) | {"rows": rows, "dropped": dropped, "bytes": 0, "sha256": ""})
            work.put(shard, report=made, records=records)
        finally:
            reader.close()
    summary.drop(dropped)


def check_leaks(folder: Path) -> None:
    """Look for leaks in a folder that is prepared already.

    Raises:
      UserError: a clip of another split has a duplicate in train.
    """
    rows = slim_rows(folder)
    found = find_duplicates(rows)
    leaks = found.leaks()
    if leaks:
        write_jsonl(folder / "duplicates.jsonl", lines=listed(rows, found=found))
    refuse_leaks(rows, leaks=leaks, out=folder)
