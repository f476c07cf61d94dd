"""What the API answers: searches, uploads, facts; one model and one index, used by one request at a time."""

import collections
import dataclasses
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UserError
from ..index.database import ModelRow
from ..index.models import AUDIO, VIDEO, Opened
from ..search.collection import Collection, FileInfo
from ..search.engine import Hit, Results, SearchOptions, Span, search
from ..search.filters import Filters
from ..search.opened import check_model
from ..search.query import Term, Wanted, checked, parse_text, side_of
from .batching import BatchOptions
from .blurred import BlurredFilms
from .encoding import Encoding
from .map import CollectionMap
from .metrics import Metrics
from .uploads import Uploads

_TEXTS = 512  # texts whose embeddings are remembered
_FRESH_S = 2.0  # how long an index is taken to be unchanged
LONGEST_TEXT = 1000
"""Characters of a query."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """A search as the API takes it.

    Attributes:
      text: a query, see `query.parse_text`; "" = none.
      within: where texts are looked for; "" = the pictures.
      moments: ids of moments of the index that are looked for -> weight.
      uploads: ids of uploads that are looked for -> weight.
      filters: which files are searched.
      options: how many hits.
    """

    text: str = ""
    within: str = ""
    moments: dict[int, float] = dataclasses.field(default_factory=dict)
    uploads: dict[str, float] = dataclasses.field(default_factory=dict)
    filters: Filters = dataclasses.field(default_factory=Filters)
    options: SearchOptions = dataclasses.field(default_factory=SearchOptions)


class Service:
    """An index and its model; all methods may be called from several threads.

    Attributes:
      metrics: what the server counts.
      encoding: the model's towers, behind queues.
      blurred: makes what is shown of an index whose faces are blurred; None of any other.
    """

    def __init__(
        self,
        folder: Path,
        *,
        model: str,
        opened: Opened,
        batches: BatchOptions | None = None,
        uploads: Path | None = None,
    ):
        """Open the index.

        Args:
          folder: the index.
          model: name of one of its models; "" = the first one.
          opened: the model.
          batches: how rows of several requests are batched; None = the defaults.
          uploads: folder of the embeddings of uploads, shared with other processes; None = in memory.

        Raises:
          UserError: no index, or another model than the one that made it.
        """
        self._folder, self._model, self._opened = folder, model, opened
        self._lock = threading.RLock()
        self._uploads = Uploads(uploads)
        self._texts: collections.OrderedDict[str, np.ndarray] = collections.OrderedDict()
        self._open()
        self.metrics = Metrics()
        given = {"settings": self._collection.settings, "options": batches or BatchOptions()}
        self.encoding = Encoding(opened, metrics=self.metrics, **given)
        detector = self._collection.settings.blur_faces
        self.blurred = BlurredFilms(detector) if detector else None

    def _open(self) -> None:
        self._collection = Collection(self._folder, model=self._model)
        check_model(self._opened, collection=self._collection)
        self._map: CollectionMap | None = None
        self._version, self._checked = self._data_version(), time.monotonic()

    def _data_version(self) -> int:
        """Return a number that changes when another process has written to the index."""
        return self._collection.connection.execute("PRAGMA data_version").fetchone()[0]

    def _current(self) -> Collection:
        """Return the index, opened again if it has changed."""
        if time.monotonic() - self._checked > _FRESH_S:
            self._checked = time.monotonic()
            if self._data_version() != self._version:
                self._collection.close()
                self._open()
        return self._collection

    def close(self) -> None:
        """End the threads of the model, and close the index."""
        self.encoding.close()
        if self.blurred is not None:
            self.blurred.close()
        with self._lock:
            self._collection.close()

    def facts(self) -> dict[str, Any]:
        """Return what the page shows of the collection, as JSON values."""
        with self._lock:
            collection = self._current()
            row = collection.connection.execute(
                "SELECT COUNT(*), COALESCE(SUM(duration_s), 0) FROM files JOIN finished ON file = id WHERE model = ?",
                (collection.model.id,),
            ).fetchone()
            labels = collection.connection.execute(
                "SELECT label, COUNT(*) FROM labels GROUP BY label ORDER BY 2 DESC, 1 LIMIT 200"
            ).fetchall()
            roots = [Path(path).name for (path,) in collection.connection.execute("SELECT path FROM roots")]
            return {
                "model": collection.model.name,
                "sides": list(collection.sides),
                "files": row[0],
                "hours": round(row[1] / 3600, 2),
                "moments": len(collection.side(VIDEO)),
                "labels": [{"label": label, "files": count} for label, count in labels],
                "sources": roots,
            }

    def search(self, asked: Asked) -> tuple[Results, list[Term]]:
        """Search the index.

        Raises:
          UserError: nothing to look for, or something that the index does not have.
        """
        if len(asked.text) > LONGEST_TEXT:
            raise UserError(f"the query has {len(asked.text):,} characters; wanted at most {LONGEST_TEXT:,}")
        terms = parse_text(asked.text, side=asked.within or VIDEO)
        with self._lock:
            collection = self._current()
            for term in terms:
                side_of("text", within=term.side, sides=collection.sides, name=collection.model.name)
        wanted = self._texts_of(terms)  # without the lock: texts of several requests are encoded together
        with self._lock:
            collection = self._current()
            wanted += [self._moment(key, weight, collection=collection) for key, weight in asked.moments.items()]
            wanted += [self._uploads.get(key, weight=weight) for key, weight in asked.uploads.items()]
            wanted.sort(key=lambda one: one.term.weight < 0)
            if not wanted:
                raise UserError("nothing to look for; type a text, or drop a clip or a picture")
            terms = checked([one.term for one in wanted])
            return search(collection, wanted, filters=asked.filters, options=asked.options), terms

    def _texts_of(self, terms: list[Term]) -> list[Wanted]:
        """Return texts with their embeddings, which are remembered."""
        with self._lock:
            known = {term.value: self._texts.get(term.value) for term in terms}
        missing = [text for text, vector in known.items() if vector is None]
        found = dict(zip(missing, self.encoding.texts(missing), strict=True))
        with self._lock:
            self._texts.update(found)
            while len(self._texts) > _TEXTS:
                self._texts.popitem(last=False)
        vectors = known | found
        return [Wanted(term=term, vectors=np.ascontiguousarray(vectors[term.value])[None]) for term in terms]

    def _moment(self, key: int, weight: float, *, collection: Collection) -> Wanted:
        vectors = collection.vector(key, side=VIDEO)
        if not len(vectors):
            raise UserError(f"the index has no moment {key} any more; search again")
        return Wanted(term=Term(kind="moment", value=str(key), weight=weight), vectors=vectors)

    def upload(self, path: Path, *, name: str, kind: str) -> dict[str, str]:
        """Embed an uploaded file, decoded in a limited process; return its id for searches, its kind and its name.

        Args:
          path: where it lies; it may be deleted afterwards.
          name: what the user called it, for display only.
          kind: "like" or "sound".

        Raises:
          UserError: it cannot be decoded, or the model does not take it.
        """
        with self._lock:
            collection = self._current()
            side = side_of(kind, within="", sides=collection.sides, name=collection.model.name)
        (found,) = self.encoding.files([(path, name)], kind=kind)
        key = self._uploads.add(Wanted(term=Term(kind=kind, value=name, side=side), vectors=found.vectors))
        return {"id": key, "kind": kind, "name": name}

    def map(self) -> dict[str, Any]:
        """Return the map of the collection as JSON values; its computation begins with the first call.

        Raises:
          UserError: there is nothing on the map.
        """
        with self._lock:
            collection = self._current()
            if VIDEO not in collection.sides:
                raise UserError("the index has no embedded pictures, so there is no map")
            if self._map is None:
                self._map = CollectionMap(collection.side(VIDEO))
            made, files = self._map, collection.files(self._map.files)
        names = {key: Path(file.path).name for key, file in files.items()}
        return made.answer() | {"names": names}

    def file(self, key: int) -> FileInfo | None:
        """Return what is known of a file of the index; None if it has none of that id."""
        with self._lock:
            return self._current().files([key]).get(key)

    def size(self, key: int) -> int:
        """Return how many bytes a file had when it was indexed."""
        with self._lock:
            query = "SELECT size FROM files WHERE id = ?"
            return self._current().connection.execute(query, (key,)).fetchone()[0]

    def thumbnail(self, moment: int) -> bytes | None:
        """Return the WebP picture of a moment; None if it has none."""
        with self._lock:
            query = "SELECT webp FROM thumbnails WHERE moment = ?"
            row = self._current().connection.execute(query, (moment,)).fetchone()
        return None if row is None else row[0]

    @property
    def model(self) -> ModelRow:
        """What the index knows of the model."""
        return self._opened.row

    @property
    def hears(self) -> bool:
        """Whether sounds can be looked for."""
        return AUDIO in self._collection.sides


def _span(span: Span) -> list[float]:
    return [round(span.start_s, 3), round(span.end_s, 3), round(span.score, 5)]


def hit_for_page(hit: Hit) -> dict[str, Any]:
    """Return a hit without its path on this machine, as JSON values."""
    file = hit.file
    spans, strip = (
        [[round(s.start_s, 3), round(s.end_s, 3), round(s.score, 5)] for s in part] for part in (hit.spans, hit.strip)
    )
    return {
        "file": file.id,
        "moment": hit.moment,
        "name": Path(file.path).name,
        "folder": Path(file.path).parent.name,
        "score": round(hit.score, 5) if np.isfinite(hit.score) else None,
        "spans": spans,
        "strip": strip,
        "cosines": [None if value is None else round(value, 5) for value in hit.terms],
        "duration_s": file.duration_s,
        "still": file.fps is None,
        "captions": list(file.captions),
        "labels": list(file.labels),
        "date": time.strftime("%Y-%m-%d", time.localtime(file.mtime_ns / 1e9)),
        "alike": [hit_for_page(other) for other in hit.alike],
    }
