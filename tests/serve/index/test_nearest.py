"""Nearest embeddings against a loop in float64: exact by NumPy and by FAISS, approximate, filtered, with holes."""

import importlib.util

import numpy as np
import pytest
from serve_films import SETTINGS

from twinreel.base.errors import UserError
from twinreel.encode.media.windows import Moment
from twinreel.serve.index import approximate, nearest
from twinreel.serve.index.database import ModelRow, connect
from twinreel.serve.index.listing import Entry
from twinreel.serve.index.nearest import Side
from twinreel.serve.index.store import FileFacts, NewMoment, Store

FAISS = importlib.util.find_spec("faiss") is not None
needs_faiss = pytest.mark.skipif(not FAISS, reason="FAISS is not installed (extra `serve`)")
WIDTH = 8
FACTS = FileFacts(sha256="0", duration_s=1.0, height=1, width=1, fps=None, has_audio=False)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def vectors_of(count, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(count, WIDTH)))


def store_of(folder, files, *, first=0):
    """An index in which each file has moments with the given vectors."""
    store = Store(folder, settings=SETTINGS)
    row = ModelRow(id=0, name="m", source="m", weights="w", width=WIDTH, sides=("video",))
    model = store.claim_model(row, about={})
    for number, vectors in enumerate(files, start=first):
        file = store.add_file(Entry(key=str(number), root="r", path=f"/r/{number}"), facts=FACTS)
        moments = [
            NewMoment(moment=Moment(number=i, start_s=i, end_s=i + 1.0), vectors={"video": vector})
            for i, vector in enumerate(vectors)
        ]
        store.add_moments(model, chunks=[(file, 0, moments)])
        store.finish(model, file=file)
    return store, model


def side_of(folder, model):
    connection = connect(folder)
    try:
        return Side(connection, folder=folder, model=model, side="video")
    finally:
        connection.close()


def nearest_loop(rows, queries, *, count, allowed):
    """The places of the `count` largest cosines of each query."""
    found = set()
    for query in queries.astype(np.float64):
        scores = [(-float(query @ row), place) for place, row in enumerate(rows.astype(np.float64)) if allowed[place]]
        found |= {place for _, place in sorted(scores)[:count]}
    return sorted(found)


@pytest.mark.parametrize("faiss", [pytest.param(True, marks=needs_faiss), False])
@pytest.mark.parametrize("holes", [False, True])
def test_exact_search_is_that_of_a_loop(tmp_path, monkeypatch, faiss, holes):
    monkeypatch.setattr(nearest, "has_faiss", lambda: faiss)
    monkeypatch.setattr(nearest, "_BLOCK", 7)
    files = [vectors_of(n, seed=n) for n in (3, 1, 20, 9, 17)]
    store, model = store_of(tmp_path / "i", files)
    if holes:
        store.remove_files([2, 4])
        files = [files[0], files[2], files[4]]
    store.close()
    side, rows, queries = side_of(tmp_path / "i", model), np.concatenate(files), vectors_of(3, seed=99)
    assert len(side) == len(rows) and side.exact and side.kind == ("FAISS flat (exact)" if faiss else "NumPy (exact)")
    everything = np.arange(len(rows))
    np.testing.assert_array_equal(side.vectors(everything), rows)
    np.testing.assert_allclose(side.scores(queries), (rows.astype(np.float64) @ queries.T).max(axis=1), atol=1e-6)
    for allowed in (np.ones(len(rows), bool), everything % 3 == 1, everything == 5, everything < 0):
        for count in (1, 6, 999):
            found = side.nearest(queries, count=count, allowed=None if allowed.all() else allowed)
            assert found.tolist() == nearest_loop(rows, queries, count=count, allowed=allowed)
    assert side.find(np.array([side.moments[4], 10**9])).tolist() == [4, -1]
    with pytest.raises(UserError, match="width 8; search with the model"):
        side.nearest(queries[:, :5], count=1)


@needs_faiss
@pytest.mark.parametrize(("kind", "count"), [("hnsw", 3000), ("ivfpq", 10_500)])
def test_approximate_search_finds_most(tmp_path, kind, count):
    """What was added after the index was built is found exactly, what was removed is not found."""
    rows = vectors_of(count)
    store, model = store_of(tmp_path / "i", [rows[:100], rows[100:]])
    assert approximate.build_approximate(store, model=model, kind=kind) == {"video": kind}
    path = approximate.approximate_file(tmp_path / "i", model=model, side="video")
    before = path.stat().st_mtime_ns
    store.close()
    later = vectors_of(50, seed=7)
    store, model = store_of(tmp_path / "i", [later], first=2)
    assert approximate.build_approximate(store, model=model, kind=kind) == {"video": kind}
    assert path.stat().st_mtime_ns == before  # it still covers nearly all
    store.remove_files([1])
    store.close()
    side, queries = side_of(tmp_path / "i", model), vectors_of(20, seed=5)
    rows = np.concatenate([rows[100:], later])
    assert not side.exact and len(side) == len(rows)
    allowed = np.arange(len(rows)) % 2 == 0
    for choice in (None, allowed):
        kept = np.ones(len(rows), bool) if choice is None else choice
        hits = 0
        for query in queries:
            exact = np.where(kept, rows.astype(np.float64) @ query, -2)
            want = set(np.argsort(-exact)[:10].tolist())
            found = side.nearest(query[None], count=100, allowed=choice)
            assert kept[found].all()
            best = found[np.argsort(-side.scores(query[None], places=found))[:10]]
            hits += len(want & set(best.tolist()))
        assert hits / 200 > 0.95
    newest = len(rows) - 1
    assert newest in side.nearest(later[-1:], count=1)


def test_the_kind_of_search_is_chosen_by_size(monkeypatch):
    monkeypatch.setattr(approximate, "has_faiss", lambda: True)
    monkeypatch.setattr(approximate.psutil, "virtual_memory", lambda: type("Memory", (), {"total": 16 * 2**30}))
    for count, width, kind in ((10**6, 512, "flat"), (2 * 10**6, 512, "hnsw"), (10**8, 512, "ivfpq")):
        assert approximate.choose("auto", count=count, width=width) == kind
    assert approximate.choose("hnsw", count=5, width=4) == "hnsw"
    with pytest.raises(UserError, match="trained on at least 9,984"):
        approximate.choose("ivfpq", count=5000, width=4)
    with pytest.raises(UserError, match="did you mean 'hnsw'"):
        approximate.choose("hnws", count=5, width=4)
    monkeypatch.setattr(approximate, "has_faiss", lambda: False)
    assert approximate.choose("auto", count=10**8, width=512) == "flat"
    with pytest.raises(UserError, match=r"needs FAISS: pip install 'twinreel\[serve\]'"):
        approximate.choose("hnsw", count=10**8, width=512)


def test_damaged_indexes_are_refused(tmp_path):
    store, model = store_of(tmp_path / "i", [vectors_of(9)])
    store.close()
    with pytest.raises(UserError, match="there is no index at"):
        connect(tmp_path / "elsewhere")
    (path,) = (tmp_path / "i" / "vectors").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"287 bytes, but the index says 9 vectors of width 8 \(288 bytes\)"):
        side_of(tmp_path / "i", model)
    with Store(tmp_path / "i", settings=SETTINGS) as store, pytest.raises(UserError, match="287 bytes"):
        new = NewMoment(moment=Moment(number=9, start_s=0, end_s=1), vectors={"video": vectors_of(1)[0]})
        store.add_moments(model, chunks=[(1, 0, [new])])
    database = tmp_path / "i" / "index.sqlite"
    database.write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match="cannot be read"):
        connect(tmp_path / "i")
