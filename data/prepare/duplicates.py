"""Which clips of a data set are the same: byte for byte as stored, or nearly (re-encoded, resized, slightly cropped).

Two clips are near duplicates if all of this holds, in bits of 64 (see media/fingerprint.py):

    length      equal within half a second or a tenth
    pictures    the hashes of at least half of the pictures can be compared, and differ by at most 10 on average
    motion      where both move, those hashes differ by at most 10 on average; at most 2 of 8 pictures move in one only;
                where nothing moves, the pictures differ by at most 4
    one match   one of the hashes differs by at most 2

The last condition is what makes a search in a million clips possible: of three parts of that hash one is equal, so only
clips that share a third of a hash are compared. It costs hardly any copy (docstring of `near`).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from ..media.fingerprint import FRAMES

TRAIN = "train"
MODES = ("report", "drop", "keep")  # what is done about them, see settle.Treatment
_PICTURES, _MOTION, _STILL, _BEST = 10.0, 10.0, 4.0, 2  # bits
_ONE_MOVES = 2  # pictures
_SECONDS, _SHARE = 0.5, 0.1  # of the length
_PARTS = ((0, 22), (22, 21), (43, 21))  # first bit and number of bits; _BEST + 1 of them
_CROWD = 2000  # clips with the same part of a hash and the same length: each is compared with that many at most
_AT_ONCE = 1 << 18  # pairs compared in one go; bounds the memory


@dataclasses.dataclass(frozen=True)
class Prints:
    """Fingerprints as arrays: `phash`, `motion` uint64 [n,8], and bool [n,8] where there is a hash; `seconds` [n]."""

    phash: np.ndarray
    motion: np.ndarray
    shaped: np.ndarray
    moving: np.ndarray
    seconds: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[dict[str, Any]]) -> "Prints":
        """Gather them from lines of clips.jsonl; a clip of one frame counts as one that shows it all the time."""
        phash, shaped = _hashes([row["phash"] for row in rows])
        motion, moving = _hashes([row["motion"] for row in rows])
        return cls(phash, motion, shaped, moving, np.array([row["duration_s"] for row in rows], np.float64))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """Two clips that are the same: rows `first` < `second`, `exact` or near, and how many bits the pictures differ."""

    first: int
    second: int
    exact: bool
    distance: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Duplicates:
    """What was found in n clips.

    Attributes:
      splits: the clips' splits, n of them.
      node: int [n]; clips of one node have the same pictures (or the same bytes).
      digest: int [n]; clips of one number have the same bytes.
      edges: int [m,2], nodes that are near duplicates, the smaller first.
      distances: float [m], mean difference of the pictures' hashes in bits.
      flat: number of clips without a hash (black, or one grey): only their bytes are compared.
      crowded: number of comparisons left out because too many clips looked alike.
    """

    splits: Sequence[str]
    node: np.ndarray
    digest: np.ndarray
    edges: np.ndarray
    distances: np.ndarray
    flat: int
    crowded: int

    def pairs(self) -> list[Pair]:
        """Return the pairs: in each node every clip with the first one, and the first clips of nodes that are near."""
        found, first = [], _firsts(self.node)
        for row, node in enumerate(self.node.tolist()):
            if (other := first[node]) != row:
                found.append(self._pair(other, row, 0.0))
        for (a, b), distance in zip(self.edges.tolist(), self.distances.tolist(), strict=True):
            found.append(self._pair(min(first[a], first[b]), max(first[a], first[b]), distance))
        return sorted(found, key=lambda pair: (pair.second, pair.first))

    def leaks(self) -> list[Pair]:
        """Return, for each clip of another split of which train has a duplicate, the pair of the two."""
        trained = _firsts(self.node, where=[split == TRAIN for split in self.splits])
        near = self._neighbours()
        found = []
        for row, node in enumerate(self.node.tolist()):
            if self.splits[row] == TRAIN:
                continue
            choices = [(distance, trained[other]) for other, distance in [(node, 0.0), *near.get(node, ())]
                       if other in trained]  # fmt: skip
            if choices:
                distance, train = min(choices)
                found.append(self._pair(min(train, row), max(train, row), distance))
        return found

    def to_drop(self, *, keep: int = 0) -> dict[int, int]:
        """Return `{row: the row that is kept in its stead}`; the first `keep` rows are never dropped.

        Splits other than train come first, test before all; within a split, the first clip stays. A clip is dropped
        only for one that is kept and is its duplicate: chains of likenesses do not drop what is unlike.
        """
        rank = {"test": 0, TRAIN: 2}
        order = sorted(range(len(self.splits)), key=lambda row: (row >= keep, rank.get(self.splits[row], 1), row))
        near, kept, dropped = self._neighbours(), dict[int, int](), dict[int, int]()
        for row in order:
            node = int(self.node[row])
            stead = [kept[other] for other in (node, *(other for other, _ in near.get(node, ()))) if other in kept]
            if stead and row >= keep:
                dropped[row] = stead[0]
            else:
                kept.setdefault(node, row)
        return dropped

    def _pair(self, first: int, second: int, distance: float) -> Pair:
        exact = bool(self.digest[first] == self.digest[second])
        return Pair(first=first, second=second, exact=exact, distance=0.0 if exact else distance)

    def _neighbours(self) -> dict[int, list[tuple[int, float]]]:
        near: dict[int, list[tuple[int, float]]] = {}
        for (a, b), distance in zip(self.edges.tolist(), self.distances.tolist(), strict=True):
            near.setdefault(a, []).append((b, distance))
            near.setdefault(b, []).append((a, distance))
        return near


def find_duplicates(rows: Sequence[dict[str, Any]]) -> Duplicates:
    """Find the duplicates among clips.

    Args:
      rows: lines of clips.jsonl with `split`, `duration_s`, `sha256`, `phash`, `motion`.
    """
    digest = _numbered([row["sha256"] for row in rows])
    flat = [not any(row["phash"]) for row in rows]
    # The same bytes are one node, and so are the same hashes: what is then left to compare is not alike in masses.
    looks: dict[Any, int] = {}
    node_of_digest: dict[int, int] = {}
    node = np.empty(len(rows), np.int64)
    members: list[dict[str, Any]] = []
    for index, row in enumerate(rows):
        same = int(digest[index])
        if same not in node_of_digest:
            look = same if flat[index] else (*row["phash"], "", *row["motion"], round(row["duration_s"], 1))
            if look not in looks:
                looks[look] = len(members)
                members.append(row)
            node_of_digest[same] = looks[look]
        node[index] = node_of_digest[same]
    edges, distances, crowded = search(Prints.of(members)) if members else (np.empty((0, 2), np.int64), np.empty(0), 0)
    splits = [row["split"] for row in rows]
    return Duplicates(
        splits=splits, node=node, digest=digest, edges=edges, distances=distances, flat=sum(flat), crowded=crowded
    )


def in_words(found: dict[str, Any] | None) -> list[tuple[int, str]]:
    """Return what prepare.json says of duplicates as counts and what they count."""
    if found is None:
        return []
    return [
        (found["exact"], "exact duplicates (all pairs: duplicates.jsonl)"),
        (found["near"], "near duplicates (all pairs: duplicates.jsonl)"),
        *((count, f"clips of {split} have a duplicate in train") for split, count in found["leaks"].items()),
        (found["dropped"], "duplicates dropped"),
    ]


def refuse_counted(found: dict[str, Any] | None, *, folder: str) -> None:
    """Refuse a finished folder by what its prepare.json says of duplicates.

    Raises:
      UserError: clips of other splits have a duplicate in train, or nobody looked.
    """
    if found is None:
        raise UserError(f"nobody looked for duplicates in {folder!r}; prepare it again with --overwrite, without keep")
    leaks = {split: count for split, count in found["leaks"].items() if count} if not found["dropped"] else {}
    if leaks:
        told = ", ".join(f"{count} of {split}" for split, count in leaks.items())
        raise UserError(
            f"clips of {folder!r} have a duplicate in train: {told}; {folder}/duplicates.jsonl lists them. "
            "Prepare again with --duplicates drop"
        )


def search(prints: Prints) -> tuple[np.ndarray, np.ndarray, int]:
    """Find all pairs that are `near` without comparing all with all.

    Returns:
      int [m,2] pairs in order, the smaller first; float [m], how many bits the pictures differ; and the number of
      comparisons that were left out because more than 2000 clips of one length share a part of a hash.
    """
    found: dict[tuple[int, int], float] = {}
    crowded = 0
    for hashes, there in ((prints.phash, prints.shaped), (prints.motion, prints.moving)):
        for slot in range(FRAMES):
            for first, bits in _PARTS:
                part = (hashes[:, slot] >> np.uint64(first)) & np.uint64((1 << bits) - 1)
                for a, b, left_out in _together(part, there[:, slot], prints.seconds):
                    crowded += left_out
                    same, distance = near(prints, a, b)
                    pairs = np.sort(np.stack([a[same], b[same]], axis=1), axis=1)
                    found.update(zip(map(tuple, pairs.tolist()), distance[same].tolist(), strict=True))
    edges = sorted(found)
    return np.array(edges, np.int64).reshape(-1, 2), np.array([found[edge] for edge in edges], np.float64), crowded


def near(prints: Prints, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Apply the rule of this module to pairs of clips.

    Measured on 77 real clips and copies of them, the share that is recognised: coarser coding (CRF 38), half the size,
    stretched by 15 % or brightened 1.00; 2 % cut off each side 0.97; other frame rate 0.95; the first 3 % of the time
    cut off 0.69; 5 % cut off each side 0.17. A mirrored picture is another picture. Of 185,136 pairs of different real
    clips 30 were called near: the same person doing the same exercise again before the same camera.

    Args:
      prints: of all clips.
      a: int [m], the first of each pair.
      b: int [m], the second.

    Returns:
      bool [m], and the mean difference of the pictures' hashes in bits, float [m].
    """
    shaped = prints.shaped[a] & prints.shaped[b]
    moving, one_moves = prints.moving[a] & prints.moving[b], prints.moving[a] ^ prints.moving[b]
    pictures, best_picture = _difference(prints.phash[a] ^ prints.phash[b], shaped)
    motion, best_motion = _difference(prints.motion[a] ^ prints.motion[b], moving)
    moves = moving.any(axis=1)
    same = (
        _alike(prints.seconds[a], prints.seconds[b])
        & (shaped.sum(axis=1) >= FRAMES // 2)
        & (pictures <= np.where(moves, _PICTURES, _STILL))
        & (~moves | (motion <= _MOTION))
        & (one_moves.sum(axis=1) <= _ONE_MOVES)
        & (np.minimum(best_picture, best_motion) <= _BEST)
    )
    return same, pictures


def _difference(bits: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and least number of set bits of uint64 [m,8] where `there`; 64 where nothing is."""
    count = np.bitwise_count(bits)
    total = np.where(there, count, 0).sum(axis=1)
    number = there.sum(axis=1)
    return np.where(number > 0, total / np.maximum(number, 1), 64.0), np.where(there, count, 64).min(axis=1)


def _alike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a - b) <= np.maximum(_SECONDS, _SHARE * np.maximum(a, b))


def _together(part: np.ndarray, there: np.ndarray, seconds: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yield pairs of clips with the same part of a hash and alike lengths, and how many pairs were left out."""
    members = np.flatnonzero(there)
    members = members[np.lexsort((seconds[members], part[members]))]
    key, length = part[members], seconds[members]
    start = np.arange(len(members))
    for step in range(1, len(members)):
        start = start[start + step < len(members)]
        # Sorted by length: once a neighbour is too long, all further ones are.
        start = start[(key[start] == key[start + step]) & _alike(length[start], length[start + step])]
        if not len(start):
            return
        if step > _CROWD:
            yield members[:0], members[:0], len(start)
            return
        for begin in range(0, len(start), _AT_ONCE):
            chosen = start[begin : begin + _AT_ONCE]
            yield members[chosen], members[chosen + step], 0


def _hashes(lists: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Hex strings to uint64 [n,8], and bool [n,8] where there is one."""
    full = [list(hashes) * FRAMES if len(hashes) == 1 else hashes for hashes in lists]
    values = [[int(one, 16) if one else 0 for one in hashes] for hashes in full]
    there = np.array([[bool(one) for one in hashes] for hashes in full]).reshape(-1, FRAMES)
    return np.array(values, np.uint64).reshape(-1, FRAMES), there


def _numbered(values: Sequence[str]) -> np.ndarray:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)


def _firsts(node: np.ndarray, *, where: Sequence[bool] | None = None) -> dict[int, int]:
    """The first row of each node, among those that `where` marks."""
    first: dict[int, int] = {}
    for row, number in enumerate(node.tolist()):
        if where is None or where[row]:
            first.setdefault(number, row)
    return first
