"""Pairs of clips of which a model is to say whether they show the same identity."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...base.errors import UserError, unknown
from ...base.text_lines import text_lines

FOLDS, FOLD_PAIRS = 10, 600
"""Folds of LFW's protocol, and pairs of each, half of them of one identity."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    """n pairs of clips.

    Attributes:
      first: int64 [n], places of clips.
      second: int64 [n], likewise.
      same: bool [n], whether they show the same identity.
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray

    def __len__(self) -> int:
        return len(self.same)

    def only(self, chosen: np.ndarray) -> "Pairs":
        """Return some of them, by number or bool [n]."""
        return Pairs(first=self.first[chosen], second=self.second[chosen], same=self.same[chosen])


def all_pairs(identity: np.ndarray, *, most: int) -> Pairs:
    """Return each pair of m clips once; of more than `most`, a random choice, the same each time.

    Of a choice, pairs of one identity are at most a half; pairs of two identities are drawn with repetition.

    Args:
      identity: int [m].
      most: how many pairs at most.
    """
    count = len(identity)
    if count * (count - 1) // 2 <= most:
        first, second = np.triu_indices(count, 1)
        return Pairs(first=first, second=second, same=identity[first] == identity[second])
    rng = np.random.default_rng(0)
    order = np.argsort(identity, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(identity[order])) + 1)
    same = np.concatenate([np.stack([g[i] for i in np.triu_indices(len(g), 1)], 1) for g in groups])
    if len(same) > most // 2:
        same = same[np.sort(rng.choice(len(same), most // 2, replace=False))]
    other = rng.integers(count, size=(2 * (most - len(same)), 2))
    other = other[identity[other[:, 0]] != identity[other[:, 1]]][: most - len(same)]
    both = np.concatenate([same, other])
    return Pairs(first=both[:, 0], second=both[:, 1], same=np.arange(len(both)) < len(same))


def fold_pairs(identity: np.ndarray, *, folds: int = FOLDS, pairs: int = FOLD_PAIRS) -> tuple[Pairs, int]:
    """Draw balanced pairs in folds that share no identity, in the form of LFW's second view (Huang et al. 2007).

    Args:
      identity: int [m].
      folds: how many; fewer where there are not two identities for each.
      pairs: of each fold, half of them of one identity; fewer where there are not so many.

    Returns:
      The pairs, fold by fold in equally long parts, and the number of folds; none and 0 for fewer than four identities.
    """
    rng = np.random.default_rng(0)
    names = rng.permutation(np.unique(identity))
    folds = min(folds, len(names) // 2)
    parts = []
    for own in np.array_split(names, folds) if folds >= 2 else []:
        clips = np.flatnonzero(np.isin(identity, own))
        every = all_pairs(identity[clips], most=1_000_000)
        parts.append((clips, every))
    half = min([pairs // 2, *(int(min(p.same.sum(), (~p.same).sum())) for _, p in parts)])
    if not parts or not half:
        none = np.zeros(0, np.int64)
        return Pairs(first=none, second=none, same=none > 0), 0
    drawn = []
    for clips, every in parts:
        kinds = [np.flatnonzero(every.same == kind) for kind in (True, False)]
        chosen = every.only(np.concatenate([np.sort(rng.choice(kind, half, replace=False)) for kind in kinds]))
        drawn.append(Pairs(first=clips[chosen.first], second=clips[chosen.second], same=chosen.same))
    fields = ("first", "second", "same")
    return Pairs(**{name: np.concatenate([getattr(part, name) for part in drawn]) for name in fields}), len(parts)


def read_pairs(path: Path, *, places: Mapping[str, int]) -> Pairs:
    """Read the pairs of a file of JSON lines, `{"first", "second", "same"}`.

    Args:
      path: the file.
      places: clip id -> place of the clip.

    Raises:
      UserError: no such file, a line of another form, an unknown clip, or pairs of one kind only.
    """
    if not path.is_file():
        raise UserError(f"config.task.pairs={str(path)!r} does not exist; give JSON lines with first, second and same")
    found: list[tuple[int, int, bool]] = []
    for number, line in enumerate(text_lines(path, flag="config.task.pairs"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            ids, same = (value["first"], value["second"]), value["same"]
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"line {number} of {path} is {line[:60]!r}; wanted a JSON object with clip ids 'first' and "
                "'second', and 'same', true or false"
            ) from error
        if not isinstance(same, bool):
            raise UserError(f"line {number} of {path}: 'same' is {same!r}; wanted true or false")
        for name in ids:
            if name not in places:
                raise unknown(f"clip in line {number} of {path}:", str(name), places)
        found.append((places[ids[0]], places[ids[1]], same))
    same = np.array([one[2] for one in found], bool)
    if same.all() or not same.any():
        raise UserError(f"{path} (config.task.pairs) has {len(same)} pairs, all of one kind; the figures need both")
    first, second = (np.array([one[i] for one in found], np.int64) for i in (0, 1))
    return Pairs(first=first, second=second, same=same)
