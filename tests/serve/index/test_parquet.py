"""Embeddings as Parquet files, read back with pyarrow and compared with the index."""

import datetime
import json

import numpy as np
import pytest
from pyarrow import parquet

from twinreel.base.errors import UserError
from twinreel.serve.index import parquet as module
from twinreel.serve.index.command import main
from twinreel.serve.search.collection import Collection


def test_every_moment_with_its_vector(library, films, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 7)  # several row groups
    ticks = []
    written = module.export_parquet(library, out=tmp_path / "out", tick=lambda *one: ticks.append(one))
    assert {path.name: rows for path, rows in written.items()} == {
        **{"brightness-audio.parquet": 6, "brightness-transcript.parquet": 5, "brightness-video.parquet": 30}
    }
    assert ticks[-1] == (30, 30) and [one.suffix for one in (tmp_path / "out").iterdir()] == [".parquet"] * 3
    path = tmp_path / "out" / "brightness-video.parquet"
    table = parquet.read_table(path)
    assert parquet.ParquetFile(path).num_row_groups == 5 and len(set(table["moment"].to_pylist())) == 30
    assert table.schema.metadata[b"twinreel.weights"] == b"brightness 0.3"
    with Collection(library) as collection:
        for row in table.to_pylist():
            (info,) = collection.files([row["file"]]).values()
            assert (row["path"], row["duration_s"]) == (info.path, info.duration_s)
            assert (row["start_s"], row["end_s"]) == collection.moments(row["file"])[row["moment"]]
            wanted = collection.vector(row["moment"], side="video")[0]
            np.testing.assert_array_equal(np.array(row["vector"], np.float32), wanted)
            assert row["modified"].replace(tzinfo=None) <= datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    assert {type(one) for one in table["captions"].to_pylist()} == {list}
    said = parquet.read_table(tmp_path / "out" / "brightness-transcript.parquet")
    assert "half way there" in said["text"].to_pylist()


def test_the_flag(library, tmp_path, capsys):
    assert main(["--out", str(library), "--export", str(tmp_path), "--json"]) == 0
    assert sum(json.loads(capsys.readouterr().out).values()) == 41
    with pytest.raises(UserError, match="unknown model of the index"):
        main(["--out", str(library), "--export", str(tmp_path), "--name", "other"])
    with pytest.raises(UserError, match="no index"):
        main(["--out", str(tmp_path / "none"), "--export", str(tmp_path)])
