"""Sessions: which clips somebody watched, in order; and the catalogue of the clips that can be recommended."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UserError, unknown
from ...base.text_lines import text_lines
from .clips import LabelledClips
from .context import TaskContext

SPLITS = ("train", "val", "test")
_FIELDS = {"session", "clips", "times", "split"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Catalogue:
    """The n clips that can be recommended.

    Attributes:
      clip_ids: of each.
      sets: the clips by split; item numbers go through them in order.
    """

    clip_ids: tuple[str, ...]
    sets: tuple[LabelledClips, ...]

    def place(self, item: int) -> tuple[str, int]:
        """Return the split and the record of an item."""
        for clips in self.sets:
            if item < len(clips):
                return clips.split, int(clips.indices[item])
            item -= len(clips)
        raise AssertionError("no such item")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sessions:
    """The sessions of one split.

    Attributes:
      names: of the sessions.
      items: of each the numbers of its clips in the catalogue, int64, in order of time.
    """

    names: tuple[str, ...]
    items: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.names)


def read_catalogue(context: TaskContext, *, splits: Sequence[str]) -> Catalogue:
    """Return all clips of some splits of the data set; () for all.

    Raises:
      UserError: no such split.
    """
    records, sets, ids = context.records, [], []
    for split in splits:
        if split not in records.splits:
            raise unknown("split in config.task.item_splits:", split, records.splits)
    for split in splits or sorted(records.splits):
        rows = records.rows(split)
        sets.append(LabelledClips(split=split, labels=(), label=np.zeros(len(rows), np.int32)))
        ids += [row["clip_id"] for row in rows]
    return Catalogue(clip_ids=tuple(ids), sets=tuple(sets))


def read_sessions(
    path: str, *, catalogue: Catalogue, val_share: float, test_share: float, shortest: int = 2
) -> dict[str, Sessions]:
    """Read the sessions of a file of JSON lines or of a Parquet file.

    Args:
      path: the file; each row has `session` (an id, such as of a user), `clips` (clip ids in order of time), and
        perhaps `times` (numbers, one for each clip) and `split` ("train", "val" or "test").
      catalogue: what can be recommended.
      val_share: where no session has a split: the share that is validated on, a function of the session's id alone.
      test_share: likewise, of those that are reported on.
      shortest: clips of a session at least.

    Returns:
      Split -> its sessions, in the order of the file; "train" and "test" are not empty.

    Raises:
      UserError: a row of another form, an unknown clip, a session that is empty or too short, that stands twice or in
        two splits, times that go back, the same clips in train and in another split, or no session in a split.
    """
    rows = list(_rows(path))
    if not rows:
        raise UserError(f"{path} (config.task.sessions) has no sessions")
    place = {clip: i for i, clip in enumerate(catalogue.clip_ids)}
    named = any(isinstance(row, dict) and row.get("split") for _, row in rows)
    found: dict[str, list[tuple[str, np.ndarray]]] = {split: [] for split in SPLITS}
    where: dict[str, str] = {}
    for number, row in rows:
        session, items = _checked(row, number=number, path=path, place=place, shortest=shortest)
        split = row.get("split") if named else _split_of(session, val_share=val_share, test_share=test_share)
        if split not in SPLITS:
            raise UserError(f"row {number} of {path}: split is {split!r}; wanted one of {', '.join(SPLITS)}")
        if session in where:
            both = f"in the splits {where[session]!r} and {split!r}" if where[session] != split else "twice"
            raise UserError(
                f"row {number} of {path}: session {session!r} stands {both}; each session belongs to one row, so that "
                "nothing of a test session is trained on"
            )
        where[session] = split
        found[split].append((session, items))
    _check_leaks(found, path=path)
    for split in ("train", "test"):
        if not found[split]:
            raise UserError(f"{path} (config.task.sessions) has no session of split {split!r}")
    return {
        split: Sessions(names=tuple(name for name, _ in own), items=tuple(items for _, items in own))
        for split, own in found.items()
    }


def _rows(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    file = Path(path)
    if not path or not file.is_file():
        raise UserError(
            f"config.task.sessions={path!r} does not exist; give a file of JSON lines or a Parquet file, one session a "
            "row: session, clips, and perhaps times and split"
        )
    if file.suffix == ".parquet":
        import pyarrow.parquet

        yield from enumerate(pyarrow.parquet.read_table(file).to_pylist(), 1)
        return
    for number, line in enumerate(text_lines(file, flag="config.task.sessions"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"row {number} of {path} is no JSON: {line[:60]!r}") from error
            yield number, row


def _checked(row: Any, *, number: int, path: str, place: dict[str, int], shortest: int) -> tuple[str, np.ndarray]:
    where = f"row {number} of {path}"
    if not isinstance(row, dict) or not {"session", "clips"} <= set(row):
        raise UserError(f"{where} is {str(row)[:60]!r}; wanted 'session' and 'clips', and perhaps 'times' and 'split'")
    for key in row:
        if key not in _FIELDS:
            raise unknown(f"field in {where}", key, _FIELDS)
    session, clips, times = str(row["session"]), row["clips"], row.get("times")
    if not isinstance(clips, list) or len(clips) < shortest:
        count = f"{len(clips)} clips" if isinstance(clips, list) else f"clips={clips!r:.40}"
        raise UserError(
            f"{where}: session {session!r} has {count}; a session needs at least {shortest}: a history and what came "
            "next. Leave shorter ones out of the file"
        )
    for clip in clips:
        if clip not in place:
            raise unknown(f"clip in {where} (session {session!r}), it is not in the data set:", str(clip), place)
    if times is not None:
        numbers = isinstance(times, list) and all(isinstance(t, (int, float)) for t in times)
        if not numbers or len(times) != len(clips) or any(b < a for a, b in itertools.pairwise(times)):
            raise UserError(
                f"{where}: 'times' of session {session!r} must be {len(clips)} numbers, one for each clip, that do not "
                "go back; put the clips in order of time"
            )
    return session, np.array([place[clip] for clip in clips], np.int64)


def _split_of(session: str, *, val_share: float, test_share: float) -> str:
    drawn = int.from_bytes(hashlib.sha256(session.encode()).digest()[:8], "big") / 2**64
    return "test" if drawn < test_share else "val" if drawn < test_share + val_share else "train"


def _check_leaks(found: dict[str, list[tuple[str, np.ndarray]]], *, path: str) -> None:
    """Raise UserError if a whole session of another split is one of training, under another id."""
    known = {items.tobytes(): name for name, items in found["train"] if len(items) > 2}
    for split in ("val", "test"):
        for name, items in found[split]:
            if items.tobytes() in known:
                raise UserError(
                    f"{path}: session {name!r} of split {split!r} has exactly the clips of session "
                    f"{known[items.tobytes()]!r} of 'train', so what comes next would be known; leave one of them out"
                )
