"""The database of an index: tables of files, moments, vectors and models (SQLite)."""

import dataclasses
import json
import sqlite3
from pathlib import Path

from ...base.errors import UserError, unknown

DATABASE = "index.sqlite"
VERSION = 2
_BUSY_S = 30.0  # how long a connection waits for another one's transaction

_SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE roots (path TEXT PRIMARY KEY);
CREATE TABLE models (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, source TEXT NOT NULL, weights TEXT NOT NULL, about TEXT NOT NULL,
  width INTEGER NOT NULL, sides TEXT NOT NULL, generation INTEGER NOT NULL DEFAULT 0, ann TEXT NOT NULL DEFAULT ''
);
CREATE TABLE files (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, root TEXT NOT NULL, path TEXT NOT NULL, start_s REAL, end_s REAL,
  size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL, duration_s REAL, height INTEGER,
  width INTEGER, fps REAL, has_audio INTEGER NOT NULL DEFAULT 0, captions TEXT NOT NULL, sentences TEXT NOT NULL
);
CREATE INDEX files_of_content ON files (sha256);
CREATE TABLE labels (
  file INTEGER NOT NULL REFERENCES files ON DELETE CASCADE, label TEXT NOT NULL, PRIMARY KEY (file, label)
) WITHOUT ROWID;
CREATE TABLE moments (
  id INTEGER PRIMARY KEY, file INTEGER NOT NULL REFERENCES files ON DELETE CASCADE, number INTEGER NOT NULL,
  start_s REAL NOT NULL, end_s REAL NOT NULL, text TEXT NOT NULL, UNIQUE (file, number)
);
CREATE TABLE thumbnails (moment INTEGER PRIMARY KEY REFERENCES moments ON DELETE CASCADE, webp BLOB NOT NULL);
CREATE TABLE vectors (
  model INTEGER NOT NULL REFERENCES models ON DELETE CASCADE, side TEXT NOT NULL, row INTEGER NOT NULL,
  moment INTEGER NOT NULL REFERENCES moments ON DELETE CASCADE, file INTEGER NOT NULL, PRIMARY KEY (model, side, row)
) WITHOUT ROWID;
CREATE INDEX vectors_of_moment ON vectors (moment);
CREATE TABLE chunks (
  model INTEGER NOT NULL REFERENCES models ON DELETE CASCADE, file INTEGER NOT NULL REFERENCES files ON DELETE CASCADE,
  number INTEGER NOT NULL, PRIMARY KEY (model, file, number)
) WITHOUT ROWID;
CREATE TABLE finished (
  model INTEGER NOT NULL REFERENCES models ON DELETE CASCADE, file INTEGER NOT NULL REFERENCES files ON DELETE CASCADE,
  PRIMARY KEY (model, file)
) WITHOUT ROWID;
CREATE INDEX finished_files ON finished (file);
CREATE TABLE failures (
  key TEXT PRIMARY KEY, root TEXT NOT NULL, path TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
  reason TEXT NOT NULL, detail TEXT NOT NULL
);
CREATE TABLE forgotten (
  sha256 TEXT NOT NULL, size INTEGER NOT NULL, start_s REAL, end_s REAL, at TEXT NOT NULL, way TEXT NOT NULL,
  score REAL NOT NULL, moments INTEGER NOT NULL, erased INTEGER NOT NULL DEFAULT 0
);
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What holds for all models of an index.

    Attributes:
      window_s: length of a moment in seconds; shorter files are one moment.
      overlap_s: what neighbouring moments share, in seconds.
      fps: frames per second from which a model's frames are drawn, where the model does not say so itself; 0 = all.
      blur_faces: ONNX file of the face detector, absolute; faces are blurred in all that is taken of a file. "" = not.
    """

    window_s: float = 10.0
    overlap_s: float = 5.0
    fps: float = 8.0
    blur_faces: str = ""

    def __post_init__(self):
        for flag, value in (("window", self.window_s), ("overlap", self.overlap_s), ("fps", self.fps)):
            if not 0 <= value < 1e5:
                raise UserError(f"--{flag} is {value:g}; wanted a number of at least 0")
        if not 0.1 <= self.window_s <= 500 or self.overlap_s > 0.9 * self.window_s:
            raise UserError(
                f"--window is {self.window_s:g} and --overlap {self.overlap_s:g} seconds; wanted a window of 0.1 to 500"
                " and an overlap of at most nine tenths of it"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelRow:
    """A model whose embeddings are in an index.

    Attributes:
      id: its number in the database.
      name: what it is called in this index.
      source: where it was loaded from.
      weights: SHA-256 of its parameters and of its input.
      width: E, of its embeddings.
      sides: what is embedded: "video", "audio", "transcript".
      generation: counts the times that its vectors were written anew.
      ann: the kinds of its approximate indexes by side, as JSON; "" = exact search.
    """

    id: int
    name: str
    source: str
    weights: str
    width: int
    sides: tuple[str, ...]
    generation: int = 0
    ann: str = ""


def exists(folder: Path) -> bool:
    """Whether there is an index in a folder."""
    return (folder / DATABASE).is_file()


def create(folder: Path, *, settings: Settings) -> None:
    """Write an empty database; it appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    if others := sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(".")):
        raise UserError(f"{folder} is no index and not empty (it holds {others[0]}); give an empty or a new folder")
    temporary = folder / f".{DATABASE}.tmp"
    temporary.unlink(missing_ok=True)
    connection = sqlite3.connect(temporary)
    connection.executescript(_SCHEMA)
    values = {"version": VERSION, **dataclasses.asdict(settings)}
    connection.executemany("INSERT INTO settings VALUES (?, ?)", [(k, json.dumps(v)) for k, v in values.items()])
    connection.commit()
    connection.close()
    temporary.replace(folder / DATABASE)


def connect(folder: Path, *, write: bool = False) -> sqlite3.Connection:
    """Open the database of an index.

    Raises:
      UserError: there is no index, it is damaged, or another version of twinreel wrote it.
    """
    if not exists(folder):
        hint = f"; `twinreel index FOLDER --out {folder} --model MODEL` makes one"
        raise UserError(f"there is no index at {str(folder)!r}{hint}")
    mode = "rw" if write else "ro"
    uri = f"{(folder / DATABASE).resolve().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, check_same_thread=False)
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        found = connection.execute("SELECT value FROM settings WHERE name = 'version'").fetchone()
    except sqlite3.Error as error:
        connection.close()
        raise UserError(
            f"{folder / DATABASE} cannot be read ({error}); delete the folder and run `twinreel index` again"
        ) from error
    if found is None or json.loads(found[0]) != VERSION:
        connection.close()
        raise UserError(
            f"{folder} is an index of version {found and found[0]}, this twinreel has version {VERSION}; make a new "
            "index in another folder"
        )
    return connection


def read_settings(connection: sqlite3.Connection) -> Settings:
    """Return the settings with which the index was made."""
    values = {name: json.loads(value) for name, value in connection.execute("SELECT name, value FROM settings")}
    return Settings(**{field.name: values[field.name] for field in dataclasses.fields(Settings)})


def write_setting(connection: sqlite3.Connection, name: str, value: float | str) -> None:
    """Replace a setting."""
    with connection:
        connection.execute("UPDATE settings SET value = ? WHERE name = ?", (json.dumps(value), name))


def read_models(connection: sqlite3.Connection) -> list[ModelRow]:
    """Return the models in the order in which they came."""
    fields = "id, name, source, weights, width, sides, generation, ann"
    return [
        ModelRow(
            id=row[0],
            name=row[1],
            source=row[2],
            weights=row[3],
            width=row[4],
            sides=tuple(json.loads(row[5])),
            generation=row[6],
            ann=row[7],
        )
        for row in connection.execute(f"SELECT {fields} FROM models ORDER BY id")
    ]


def model_named(connection: sqlite3.Connection, name: str, *, folder: Path) -> ModelRow:
    """Return the model of a name; "" = the only one, or the first of several.

    Raises:
      UserError: the index has no such model, or none at all.
    """
    models = read_models(connection)
    if not models:
        raise UserError(f"the index {folder} has no model yet; run `twinreel index` with --model MODEL")
    if not name:
        return models[0]
    for model in models:
        if name == model.name:
            return model
    raise unknown(f"model of the index {folder}", name, [model.name for model in models])
