"""The counts of a build so far, the limit on rejected clips, and the progress bar."""

import collections
import dataclasses
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from ...base.errors import UserError
from ..manifest import NOT_FETCHED
from .shards import ShardReport

_ENOUGH = 20  # rejects before a build that must fail is stopped: one run should show most of the faults


@dataclasses.dataclass
class SplitCount:
    """Counts of a split: clips used and rejected, captions, frames, seconds, clips with sound."""

    clips: int = 0
    rejected: int = 0
    captions: int = 0
    frames: int = 0
    seconds: float = 0.0
    with_sound: int = 0

    def add(self, row: dict[str, Any], *, times: int = 1) -> None:
        """Count a line of clips.jsonl; -1 times takes it back."""
        self.clips += times
        self.captions += times * len(row["captions"])
        self.frames += times * row["num_frames"]
        self.seconds += times * row["duration_s"]
        self.with_sound += times * row["has_audio"]


@dataclasses.dataclass(kw_only=True)
class Summary:
    """Counts of a build, filled while it runs.

    Attributes:
      total: clips given.
      splits: counts by split.
      rejects: lines of rejects.jsonl, but for
      dropped: those of duplicates, which do not count as bad.
      reasons: rejected clips by reason.
      notes: clips by how they differ from their files (`DecodedClip.notes`).
      shards: the record files: `name`, `split`, `records`, `bytes`, `sha256`, `notes`.
      duplicates: what was found of them (`settle.counted`); None = nobody looked.
    """

    total: int
    splits: dict[str, SplitCount] = dataclasses.field(default_factory=dict)
    rejects: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    dropped: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    reasons: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    notes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    shards: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    duplicates: dict[str, Any] | None = None

    @property
    def bytes(self) -> int:
        """Size of the shards."""
        return sum(shard["bytes"] for shard in self.shards)

    @property
    def seen(self) -> int:
        """Clips that were used or rejected."""
        return sum(count.clips + count.rejected for count in self.splits.values())

    def counts(self) -> dict[str, dict[str, int]]:
        """Return `{split: {"clips": n, "rejected": m}}`."""
        return {split: {"clips": count.clips, "rejected": count.rejected} for split, count in self.splits.items()}

    def add(self, report: ShardReport) -> None:
        """Count what was found in a shard."""
        for row in report.rows:
            self.splits[row["split"]].add(row)
        for line in report.rejects:
            self.splits[line["split"]].rejected += 1
        self.rejects += report.rejects
        self.reasons.update(report.reasons)
        self.notes.update(report.notes)
        for entry in report.dropped:  # by an earlier run
            self.splits[entry["row"]["split"]].add(entry["row"])
        self.drop(report.dropped)

    def drop(self, entries: list[dict[str, Any]]) -> None:
        """Count clips as dropped that were counted as used (`ShardReport.dropped`)."""
        for entry in entries:
            count = self.splits[entry["row"]["split"]]
            count.add(entry["row"], times=-1)
            count.rejected += 1
            self.dropped.append(entry["line"])
            self.reasons["duplicate"] += 1


class TooManyRejects(UserError):
    """More clips than allowed could not be used; `summary` lists them."""

    def __init__(self, message: str, summary: Summary):
        super().__init__(message)
        self.summary = summary


def check(summary: Summary, *, max_bad_fraction: float, least: int = _ENOUGH) -> None:
    """Stop a build that has too many rejected clips; clips that a downloader did not get do not count.

    Args:
      summary: of the clips seen so far.
      max_bad_fraction: share of all clips that may be rejected.
      least: rejects below which it is too early to tell.

    Raises:
      TooManyRejects: that is so.
    """
    rejected, total = len(summary.rejects) - summary.reasons[NOT_FETCHED], summary.total
    if rejected <= max_bad_fraction * total or rejected < least:
        return
    stopped = f" (stopped after {summary.seen} of {total})" if summary.seen < total else ""
    raise TooManyRejects(
        f"{rejected} of {total} clips cannot be used{stopped}, more than "
        f"max_bad_fraction={max_bad_fraction:g} allows; rejects.jsonl lists them with their reasons. "
        "Fix or remove them, or raise --max_bad_fraction; what is finished is kept",
        summary,
    )


class _Rate(ProgressColumn):
    """Clips per second."""

    def render(self, task: Any) -> Text:
        """Return the rate as text."""
        return Text(f"{task.finished_speed or task.speed or 0.0:.1f} clips/s", style="cyan")


def progress_bar(*, shown: bool = True) -> Progress:
    """Return a bar with clips per second and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TextColumn("time left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not shown,
    )
