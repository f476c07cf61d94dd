"""No caption twice in a global batch: by the keys of the index; texts are looked at only where keys cannot tell."""

from collections.abc import Callable, Sequence

import numpy as np

from ..index.keys import exact_key
from .table import Table

_COARSE = "max_words"  # the one operation that makes texts equal whose `alike` keys differ


class Unique:
    """Chooses captions so that no two rows of a batch have equal ones."""

    def __init__(self, tables: Sequence[Table], *, clean: Callable[[str], str], cleaning: str):
        """Set up; nothing is read.

        Args:
          tables: the rows of each source.
          clean: text cleaning, after which captions are compared.
          cleaning: the same as declared in `config.data.text`.
        """
        self._tables, self._clean, self._cleaned = tables, clean, bool(cleaning)
        self._by_text = _COARSE in cleaning

    def choose(self, source: np.ndarray, *, record: np.ndarray, caption: np.ndarray) -> np.ndarray:
        """Choose other captions where one stands in an earlier row of the global batch already.

        Args:
          source: int32 [B].
          record: int64 [B].
          caption: int32 [B,1], the captions drawn, -1 = none.

        Returns:
          int32 [B,1]: the first caption after the drawn one, round the record's list, that no earlier row has; -1 where
          there is none: such a row is not valid.
        """
        chosen = caption[:, 0].copy()
        exact, alike = self._keys(source, record=record, caption=chosen)
        rows = {"source": source, "record": record}
        repeated = np.ones(len(chosen), bool)
        repeated[np.unique(alike, return_index=True)[1]] = False
        known = self._of_rows(np.flatnonzero(repeated & (chosen >= 0)), **rows)
        taken: dict[int, list[int]] = {}  # key -> rows with it, all of different texts
        drawn, keys = chosen.tolist(), alike.tolist()
        for i, key in enumerate(keys):
            if drawn[i] < 0:
                continue
            if key not in taken:
                taken[key] = [i]
                continue
            own = known.get(i) or self._of_rows(np.array([i]), **rows)[i]
            for j in range(len(own)):
                chosen[i] = number = (drawn[i] + j) % len(own)
                exact[i], key = own[number]
                others = taken.setdefault(key, [])
                if not others or not self._among(others, i, exact=exact, chosen=chosen, **rows):
                    others.append(i)
                    break
            else:
                chosen[i] = -1
        return chosen[:, None]

    def _of_rows(self, rows: np.ndarray, *, source: np.ndarray, record: np.ndarray) -> dict[int, list[tuple[int, int]]]:
        """Return the two keys of each caption of some rows."""
        count = np.zeros(len(rows), np.int64)
        for i, table in enumerate(self._tables):
            here = source[rows] == i
            count[here] = table.rows(record[rows[here]])["captions"]
        each = np.repeat(rows, count)
        number = np.arange(len(each)) - np.repeat(np.cumsum(count) - count, count)
        exact, alike = self._keys(source[each], record=record[each], caption=number)
        both = list(zip(exact.tolist(), alike.tolist(), strict=True))
        ends = np.cumsum(count).tolist()
        return {row: both[end - n : end] for row, end, n in zip(rows.tolist(), ends, count.tolist(), strict=True)}

    def _among(self, rows: Sequence[int], i: int, *, exact: np.ndarray, **of: np.ndarray) -> bool:
        """Whether one of some rows, whose keys are alike, has the text of row i."""
        if any(exact[row] == exact[i] for row in rows):
            return True
        if not self._cleaned or not rows:
            return False
        own = self._text(i, **of)
        return any(self._text(row, **of) == own for row in rows)

    def _text(self, i: int, *, source: np.ndarray, record: np.ndarray, chosen: np.ndarray) -> str:
        return self._clean(self._tables[source[i]][int(record[i])]["captions"][chosen[i]])

    def _keys(self, source: np.ndarray, *, record: np.ndarray, caption: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return two keys of each caption, uint64 [r]: equal texts share the first, those alike the second."""
        exact, alike = np.zeros(len(record), np.uint64), np.zeros(len(record), np.uint64)
        for i, table in enumerate(self._tables):
            here = np.flatnonzero((source == i) & (caption >= 0))
            if self._by_text:
                of = {"source": source, "record": record, "chosen": caption}
                exact[here] = alike[here] = [exact_key(self._text(row, **of)) for row in here.tolist()]
            elif len(here):
                keys = table.keys(record[here], captions=caption[here])
                exact[here], alike[here] = keys["exact"], keys["alike" if self._cleaned else "exact"]
        return exact, alike
