"""The embeddings of uploaded files, remembered for searches: in memory, or in a folder that several processes share."""

import collections
import dataclasses
import re
import secrets
import threading
from pathlib import Path

import numpy as np

from ...base.errors import UserError
from ..search.query import Term, Wanted

KEPT = 64
"""Uploads that are remembered; the oldest is forgotten first."""

_ID = re.compile(r"[A-Za-z0-9_-]{16}")


class Uploads:
    """Embeddings by the id that a client got for its file; all methods may be called from several threads."""

    def __init__(self, folder: Path | None = None):
        """Remember in memory, or in an existing folder."""
        self._folder, self._lock = folder, threading.Lock()
        self._memory: collections.OrderedDict[str, Wanted] = collections.OrderedDict()

    def add(self, wanted: Wanted) -> str:
        """Remember an upload; return its id."""
        key = secrets.token_urlsafe(12)
        with self._lock:
            if self._folder is None:
                self._memory[key] = wanted
                if len(self._memory) > KEPT:
                    self._memory.popitem(last=False)
                return key
            term, temporary = wanted.term, self._folder / f"{key}.tmp"
            with temporary.open("wb") as file:
                about = np.array([term.kind, term.value, term.side])
                np.savez(file, allow_pickle=False, vectors=wanted.vectors, about=about)
            temporary.replace(self._folder / f"{key}.npz")
            self._forget(self._folder)
        return key

    def _forget(self, folder: Path) -> None:
        """Delete the oldest files; another process may do so at the same time."""
        found = []
        for path in folder.glob("*.npz"):
            try:
                found.append((path.stat().st_mtime_ns, path))
            except FileNotFoundError:
                continue
        for _, path in sorted(found)[:-KEPT]:
            path.unlink(missing_ok=True)

    def get(self, key: str, *, weight: float) -> Wanted:
        """Return an upload as a term of a weight.

        Raises:
          UserError: there is none of this id, or not any more.
        """
        with self._lock:
            found = self._memory.get(key) if self._folder is None else self._read(self._folder, key)
            if found is not None and self._folder is None:
                self._memory.move_to_end(key)
        if found is None:
            raise UserError("this upload is not remembered any more; drop the file again")
        return Wanted(term=dataclasses.replace(found.term, weight=weight), vectors=found.vectors)

    def _read(self, folder: Path, key: str) -> Wanted | None:
        if not _ID.fullmatch(key):  # it becomes the name of a file
            return None
        try:
            with np.load(folder / f"{key}.npz", allow_pickle=False) as arrays:
                kind, value, side = arrays["about"].tolist()
                return Wanted(term=Term(kind=kind, value=value, side=side), vectors=arrays["vectors"])
        except FileNotFoundError:
            return None
