"""The embeddings of an index as Parquet files, for vector databases and for programs of your own."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from ...base.errors import UserError
from . import database
from .database import ModelRow
from .vectors import map_vectors, vector_file

_ROWS = 16_384  # of a row group; bounds the memory
_QUERY = """
SELECT v.row, m.id, m.file, f.path, m.start_s, m.end_s, f.duration_s, m.text, f.captions, f.sha256, f.mtime_ns
FROM vectors v JOIN moments m ON m.id = v.moment JOIN files f ON f.id = m.file
WHERE v.model = ? AND v.side = ? ORDER BY v.row
"""


def schema_of(model: ModelRow, *, side: str) -> pa.Schema:
    """Return the columns of a file; `vector` is float32 [E] of unit length, `moment` differs in every row."""
    about = {"model": model.name, "source": model.source, "weights": model.weights, "side": side}
    return pa.schema(
        [
            ("moment", pa.int64()),
            ("file", pa.int64()),
            ("path", pa.string()),
            ("start_s", pa.float64()),
            ("end_s", pa.float64()),
            ("duration_s", pa.float64()),
            ("text", pa.string()),
            ("captions", pa.list_(pa.string())),
            ("labels", pa.list_(pa.string())),
            ("sha256", pa.string()),
            ("modified", pa.timestamp("us", tz="UTC")),
            ("vector", pa.list_(pa.float32(), model.width)),
        ],
        metadata={f"twinreel.{name}": value for name, value in about.items()},
    )


def export_parquet(
    folder: Path, *, out: Path, model: str = "", tick: Callable[[int, int], None] = lambda done, total: None
) -> dict[Path, int]:
    """Write a Parquet file for each side of a model, `MODEL-SIDE.parquet`.

    Args:
      folder: the index.
      out: where; made if it is not there. Files of these names are replaced, each whole or not at all.
      model: name of a model of the index; "" = the first one.
      tick: called with the rows that are written and those of the side.

    Returns:
      Path -> number of rows.

    Raises:
      UserError: no index, no such model, or nothing embedded by it.
    """
    connection = database.connect(folder)
    try:
        row = database.model_named(connection, model, folder=folder)
        query = "SELECT side, COUNT(*), MAX(row) + 1 FROM vectors WHERE model = ? GROUP BY side ORDER BY side"
        sides = connection.execute(query, (row.id,)).fetchall()
        if not sides:
            raise UserError(f"the index {folder} has no embeddings of {row.name!r}; run `twinreel index` first")
        out.mkdir(parents=True, exist_ok=True)
        found = {}
        for side, count, total in sides:
            path = out / f"{row.name.replace('/', '_')}-{side}.parquet"
            source = vector_file(folder, model=row.id, side=side, generation=row.generation)
            vectors = map_vectors(source, width=row.width, rows=total)
            _write(connection, path, model=row, side=side, vectors=vectors, tick=lambda n, total=count: tick(n, total))
            found[path] = count
        return found
    finally:
        connection.close()


def _write(
    connection: sqlite3.Connection,
    path: Path,
    *,
    model: ModelRow,
    side: str,
    vectors: np.ndarray,
    tick: Callable[[int], None],
) -> None:
    labels: dict[int, list[str]] = {}
    for file, label in connection.execute("SELECT file, label FROM labels ORDER BY file, label"):
        labels.setdefault(file, []).append(label)
    temporary, schema, done = path.with_suffix(".tmp"), schema_of(model, side=side), 0
    cursor = connection.execute(_QUERY, (model.id, side))
    with parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
        while rows := cursor.fetchmany(_ROWS):
            writer.write_batch(_batch(rows, schema=schema, vectors=vectors, labels=labels))
            done += len(rows)
            tick(done)
    temporary.replace(path)


def _batch(rows: list[Any], *, schema: pa.Schema, vectors: np.ndarray, labels: dict[int, list[str]]) -> pa.RecordBatch:
    places, moments, files, paths, starts, ends, durations, texts, captions, digests, times = zip(*rows, strict=True)
    flat = np.ascontiguousarray(vectors[list(places)], np.float32).reshape(-1)
    columns = [moments, files, paths, starts, ends, durations, texts, [json.loads(one) for one in captions]]
    columns += [[labels.get(file, []) for file in files], digests, [time // 1000 for time in times]]
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, schema, strict=False)]
    return pa.RecordBatch.from_arrays(
        [*arrays, pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])], schema=schema
    )
