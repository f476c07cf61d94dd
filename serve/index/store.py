"""The index folder as one process writes it: what is added, changed and removed, each step whole or not at all."""

import dataclasses
import fcntl
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UserError
from ...data.clip import Sentence
from ...encode.media.windows import Moment
from . import database
from .database import ModelRow, Settings
from .listing import Entry
from .vectors import VectorWriter, count_rows, map_vectors, vector_file, write_compact

_HOLES = 0.3  # share of rows of removed moments from which on a file of vectors is written anew
_FIELDS = dataclasses.fields(Settings)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileRow:
    """What the index knows of a file, or a window of one; the fields are those of `Entry` and of the decoded file."""

    id: int
    key: str
    root: str
    path: str
    start_s: float | None
    end_s: float | None
    size: int
    mtime_ns: int
    sha256: str
    duration_s: float | None
    captions: str
    sentences: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What is known of a file once its first chunk is decoded.

    Attributes:
      sha256: of its bytes, in hex.
      duration_s: length of the clip in seconds, as stated or decoded; None where unknown.
      height: of its pictures in pixels; None of a picture file.
      width: likewise.
      fps: frames per second on average; None where unknown.
      has_audio: whether there is anything to hear.
    """

    sha256: str
    duration_s: float | None
    height: int | None
    width: int | None
    fps: float | None
    has_audio: bool


@dataclasses.dataclass(kw_only=True)
class NewMoment:
    """A moment that is to be added.

    Attributes:
      moment: its place in the file.
      text: what is said in it.
      thumbnail: a WebP picture; b"" = none.
      vectors: side -> float32 [E].
    """

    moment: Moment
    text: str = ""
    thumbnail: bytes = b""
    vectors: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


class Store:
    """An index that this process alone may write; a context manager."""

    def __init__(self, folder: Path, *, settings: Settings):
        """Open the index of a folder, or make an empty one.

        Raises:
          UserError: the index has other settings, another process is writing it, or the folder is none of ours.
        """
        self.folder = folder
        if not database.exists(folder):
            database.create(folder, settings=settings)
        self._lock = (folder / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise UserError(f"another process is writing the index {folder}; wait until it has finished") from error
        self._writers: dict[tuple[int, str], VectorWriter] = {}
        self.connection = database.connect(folder, write=True)
        before = database.read_settings(self.connection)
        if before.blur_faces and settings.blur_faces:  # where the detector lies may change
            database.write_setting(self.connection, "blur_faces", settings.blur_faces)
            before = dataclasses.replace(before, blur_faces=settings.blur_faces)
        if before != settings:
            self.close()
            pairs = [(field.name, getattr(before, field.name), getattr(settings, field.name)) for field in _FIELDS]
            changed = [
                f"--{name.removesuffix('_s')} {_shown(old)} -> {_shown(new)}" for name, old, new in pairs if old != new
            ]
            raise UserError(
                f"the index {folder} was made with other settings ({', '.join(changed)}); leave the flag out, or give "
                "another --out"
            )

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files and let others write."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
        self.connection.close()
        self._lock.close()

    def claim_model(self, given: ModelRow, *, about: Mapping[str, Any]) -> ModelRow:
        """Return the row of a model, added if the index does not have it; `given.id` is not looked at.

        Raises:
          UserError: the name belongs to a model with other weights.
        """
        for row in database.read_models(self.connection):
            if row.weights == given.weights:
                return row
            if row.name == given.name:
                raise UserError(
                    f"the index has another model under the name {given.name!r} (of {row.source}; weights "
                    f"{row.weights[:12]}, now {given.weights[:12]}); give this one another --name, or remove that one "
                    f"with `twinreel index --out {self.folder} --drop_model {row.name}`"
                )
        columns = "name, source, weights, about, width, sides"
        values = (given.name, given.source, given.weights, json.dumps(about), given.width, json.dumps(given.sides))
        with self.connection:
            done = self.connection.execute(f"INSERT INTO models ({columns}) VALUES (?, ?, ?, ?, ?, ?)", values)
        row = dataclasses.replace(given, id=int(done.lastrowid or 0))
        self._remove_vectors(row)  # of a model of this number whose removal was killed
        return row

    def drop_model(self, name: str) -> None:
        """Remove a model with its vectors.

        Raises:
          UserError: there is none of that name.
        """
        row = database.model_named(self.connection, name, folder=self.folder)
        with self.connection:
            self.connection.execute("DELETE FROM models WHERE id = ?", (row.id,))
        self._remove_vectors(row)

    def _remove_vectors(self, row: ModelRow) -> None:
        for path in (self.folder / "vectors").glob(f"{row.id}-*"):
            path.unlink()

    def files(self) -> dict[str, FileRow]:
        """Return all files by their key."""
        columns = ", ".join(field.name for field in dataclasses.fields(FileRow))
        names = [field.name for field in dataclasses.fields(FileRow)]
        rows = self.connection.execute(f"SELECT {columns} FROM files")
        return {row[1]: FileRow(**dict(zip(names, row, strict=True))) for row in rows}

    def finished(self, model: ModelRow) -> set[int]:
        """Return the ids of the files whose moments are all embedded by a model."""
        return {row[0] for row in self.connection.execute("SELECT file FROM finished WHERE model = ?", (model.id,))}

    def chunks(self, model: ModelRow) -> dict[int, set[int]]:
        """Return the chunks that a model has embedded of files that it has not finished, by the id of the file."""
        open_files = "file NOT IN (SELECT file FROM finished WHERE model = ?1)"
        query = f"SELECT file, number FROM chunks WHERE model = ?1 AND {open_files}"
        found: dict[int, set[int]] = {}
        for file, number in self.connection.execute(query, (model.id,)):
            found.setdefault(file, set()).add(number)
        return found

    def failures(self) -> dict[str, tuple[int, int, str]]:
        """Return size, time and reason of the files that could not be indexed, by their key."""
        rows = self.connection.execute("SELECT key, size, mtime_ns, reason FROM failures")
        return {key: (size, mtime_ns, reason) for key, size, mtime_ns, reason in rows}

    def add_roots(self, roots: Iterable[str]) -> None:
        """Remember sources, for runs that name none."""
        with self.connection:
            self.connection.executemany("INSERT OR IGNORE INTO roots VALUES (?)", [(root,) for root in roots])

    def roots(self) -> list[str]:
        """Return all sources."""
        return [row[0] for row in self.connection.execute("SELECT path FROM roots ORDER BY rowid")]

    def add_file(self, entry: Entry, *, facts: FileFacts) -> int:
        """Add a file without moments; return its id. A failure of it is forgotten."""
        values = {
            **{name: getattr(entry, name) for name in ("key", "root", "path", "start_s", "end_s", "size", "mtime_ns")},
            **dataclasses.asdict(facts),
            **_texts(entry),
        }
        marks = ", ".join(f":{name}" for name in values)
        with self.connection:
            done = self.connection.execute(f"INSERT INTO files ({', '.join(values)}) VALUES ({marks})", values)
            file = int(done.lastrowid or 0)
            self._label(file, entry.labels)
            self.connection.execute("DELETE FROM failures WHERE key = ?", (entry.key,))
        return file

    def update_file(self, file: int, *, entry: Entry) -> None:
        """Write what a listing says of a file whose content is the same: names, texts, time."""
        values = {name: getattr(entry, name) for name in ("key", "root", "path", "size", "mtime_ns")}
        values |= {"captions": _texts(entry)["captions"]}
        with self.connection:
            assigned = ", ".join(f"{name} = :{name}" for name in values)
            self.connection.execute(f"UPDATE files SET {assigned} WHERE id = :id", values | {"id": file})
            self.connection.execute("DELETE FROM labels WHERE file = ?", (file,))
            self._label(file, entry.labels)

    def _label(self, file: int, labels: Iterable[str]) -> None:
        self.connection.executemany("INSERT OR IGNORE INTO labels VALUES (?, ?)", [(file, label) for label in labels])

    def remove_files(self, files: Iterable[int]) -> None:
        """Remove files with their moments."""
        with self.connection:
            self.connection.executemany("DELETE FROM files WHERE id = ?", [(file,) for file in files])

    def add_failure(self, entry: Entry, *, reason: str, detail: str) -> None:
        """List a file that cannot be indexed, or only in part."""
        values = (entry.key, entry.root, entry.path, entry.size, entry.mtime_ns, reason, detail)
        with self.connection:
            self.connection.execute("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def remove_failures(self, *, roots: Collection[str], except_keys: Collection[str]) -> None:
        """Forget failures of files that are no longer there."""
        rows = self.connection.execute("SELECT key, root FROM failures").fetchall()
        gone = [(key,) for key, root in rows if root in roots and key not in except_keys]
        with self.connection:
            self.connection.executemany("DELETE FROM failures WHERE key = ?", gone)

    def add_moments(
        self,
        model: ModelRow,
        *,
        chunks: Sequence[tuple[int, int, Sequence[NewMoment]]],
        finished: Sequence[int] = (),
    ) -> None:
        """Add the moments of chunks, `(id of the file, number of the chunk, moments)`, and mark these as embedded.

        With them, files that are `finished` are marked so.
        """
        rows: dict[str, list[tuple[int, int]]] = {}
        vectors: dict[str, list[np.ndarray]] = {}
        with self.connection:
            for file, number, moments in chunks:
                for new in moments:
                    moment = self._moment(file, new)
                    for side, vector in new.vectors.items():
                        rows.setdefault(side, []).append((moment, file))
                        vectors.setdefault(side, []).append(vector)
                self.connection.execute("INSERT OR IGNORE INTO chunks VALUES (?, ?, ?)", (model.id, file, number))
            for side, places in rows.items():
                writer = self._writer(model, side)
                first = writer.append(np.stack(vectors[side]))
                writer.sync()
                values = [(model.id, side, first + i, moment, file) for i, (moment, file) in enumerate(places)]
                self.connection.executemany("INSERT INTO vectors VALUES (?, ?, ?, ?, ?)", values)
            marks = [(model.id, file) for file in finished]
            self.connection.executemany("INSERT OR IGNORE INTO finished VALUES (?, ?)", marks)

    def _moment(self, file: int, new: NewMoment) -> int:
        """Return the id of a moment, added if another model has not done so."""
        values = (file, new.moment.number, new.moment.start_s, new.moment.end_s, new.text)
        self.connection.execute(
            "INSERT OR IGNORE INTO moments (file, number, start_s, end_s, text) VALUES (?, ?, ?, ?, ?)", values
        )
        query = "SELECT id FROM moments WHERE file = ? AND number = ?"
        moment = self.connection.execute(query, values[:2]).fetchone()[0]
        if new.thumbnail:
            self.connection.execute("INSERT OR IGNORE INTO thumbnails VALUES (?, ?)", (moment, new.thumbnail))
        return moment

    def finish(self, model: ModelRow, *, file: int, duration_s: float | None = None) -> None:
        """Mark a file as completely embedded by a model; `duration_s` corrects the length that its container stated."""
        with self.connection:
            self.connection.execute("INSERT OR IGNORE INTO finished VALUES (?, ?)", (model.id, file))
            if duration_s is not None:
                self.connection.execute("UPDATE files SET duration_s = ? WHERE id = ?", (duration_s, file))

    def copy_file(self, entry: Entry, *, source: int, model: ModelRow) -> None:
        """Add a file with the same content as another one: its moments and vectors are copied, nothing is decoded."""
        columns = "sha256, duration_s, height, width, fps, has_audio"
        row = self.connection.execute(f"SELECT {columns} FROM files WHERE id = ?", (source,)).fetchone()
        file = self.add_file(entry, facts=FileFacts(**dict(zip(columns.split(", "), row, strict=True))))
        query = (
            "SELECT m.id, m.number, m.start_s, m.end_s, m.text, t.webp FROM moments m LEFT JOIN thumbnails t "
            "ON t.moment = m.id WHERE m.file = ? ORDER BY m.number"
        )
        moments = {
            key: NewMoment(moment=Moment(number=number, start_s=start, end_s=end), text=text, thumbnail=webp or b"")
            for key, number, start, end, text, webp in self.connection.execute(query, (source,))
        }
        query = "SELECT side, row, moment FROM vectors WHERE model = ? AND file = ?"
        for side, place, moment in self.connection.execute(query, (model.id, source)):
            moments[moment].vectors[side] = np.array(self.mapped(model, side)[place])
        # At once: all moments are given as one chunk, and of a file that is not finished the others would be made.
        self.add_moments(model, chunks=[(file, 0, list(moments.values()))], finished=[file])

    def mapped(self, model: ModelRow, side: str) -> np.ndarray:
        """Return the vectors of a model's side, float32 [rows,E]; rows of removed moments are among them."""
        path = vector_file(self.folder, model=model.id, side=side, generation=model.generation)
        return map_vectors(path, width=model.width, rows=self._rows(model, side))

    def _rows(self, model: ModelRow, side: str) -> int:
        query = "SELECT COALESCE(MAX(row) + 1, 0) FROM vectors WHERE model = ? AND side = ?"
        return self.connection.execute(query, (model.id, side)).fetchone()[0]

    def _writer(self, model: ModelRow, side: str) -> VectorWriter:
        key = (model.id, side)
        if key not in self._writers:
            path = vector_file(self.folder, model=model.id, side=side, generation=model.generation)
            self._writers[key] = VectorWriter(path, width=model.width, rows=self._rows(model, side))
        return self._writers[key]

    def compact(self, model: ModelRow, *, holes: float = _HOLES) -> ModelRow:
        """Write a model's vectors anew if more than a share `holes` belong to removed moments; return its new row."""
        kept: dict[str, np.ndarray] = {}
        total = 0
        for side in model.sides:
            path = vector_file(self.folder, model=model.id, side=side, generation=model.generation)
            total += count_rows(path, width=model.width)
            query = "SELECT row FROM vectors WHERE model = ? AND side = ? ORDER BY row"
            kept[side] = np.array([row[0] for row in self.connection.execute(query, (model.id, side))], np.int64)
        if total - sum(map(len, kept.values())) <= holes * total:
            return model
        for key in [key for key in self._writers if key[0] == model.id]:
            self._writers.pop(key).close()
        new = dataclasses.replace(model, generation=model.generation + 1, ann="")
        for side, rows in kept.items():
            path = vector_file(self.folder, model=model.id, side=side, generation=new.generation)
            if len(rows):
                write_compact(path, source=self.mapped(model, side), rows=rows)
        with self.connection:
            for side, rows in kept.items():
                # In rising order: each new number is free by the time that it is given.
                values = [(place, model.id, side, int(row)) for place, row in enumerate(rows)]
                update = "UPDATE vectors SET row = ? WHERE model = ? AND side = ? AND row = ?"
                self.connection.executemany(update, values)
            query = "UPDATE models SET generation = ?, ann = '' WHERE id = ?"
            self.connection.execute(query, (new.generation, model.id))
        for path in (self.folder / "vectors").glob(f"{model.id}-*-{model.generation}.*"):
            path.unlink()
        return new

    def remove_stale(self) -> None:
        """Delete the files of vectors that belong to no model as it is now, as a process that is killed leaves them."""
        current = {(str(row.id), str(row.generation)) for row in database.read_models(self.connection)}
        for path in (self.folder / "vectors").glob("*"):
            parts = path.name.partition(".")[0].split("-")
            if (parts[0], parts[-1]) not in current or path.suffix == ".tmp":
                path.unlink()

    def set_ann(self, model: ModelRow, *, kind: str) -> None:
        """Write down the kinds of a model's approximate indexes by side, as JSON; "" = exact search."""
        with self.connection:
            self.connection.execute("UPDATE models SET ann = ? WHERE id = ?", (kind, model.id))

    def scalar(self, query: str, *values: Any) -> int:
        """Return the only value of a query."""
        return self.connection.execute(query, values).fetchone()[0]


def _shown(value: float | str) -> str:
    """Return a setting for a message."""
    return (value or "none") if isinstance(value, str) else f"{value:g}"


def _texts(entry: Entry) -> dict[str, str]:
    """Return the columns of an entry's texts."""
    return {
        "captions": json.dumps(list(entry.captions), ensure_ascii=False),
        "sentences": sentences_json(entry.sentences),
    }


def sentences_json(sentences: Iterable[Sentence]) -> str:
    """Return sentences as the database has them."""
    return json.dumps([[one.start_s, one.end_s, one.text] for one in sentences], ensure_ascii=False)


def sentences_of(text: str) -> tuple[Sentence, ...]:
    """Return the sentences of a row of the database."""
    return tuple(Sentence(start_s=start, end_s=end, text=said) for start, end, said in json.loads(text))
