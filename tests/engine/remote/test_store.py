"""Requests to a store: conditional writes, repeats, verified copies."""

import fsspec
import pytest

from twinreel.base.errors import UserError
from twinreel.engine.remote import store as module
from twinreel.engine.remote.store import Conflict, DamagedError, Store


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr(module, "_WAIT_S", 0.001)


def test_only_the_object_that_was_read_is_replaced(bucket):
    store = Store(f"{bucket}/run")
    assert store.read("a") is None
    first = store.replace("a", b"1", tag=None)
    with pytest.raises(Conflict):
        store.replace("a", b"2", tag=None)
    second = store.replace("a", b"3", tag=first)
    with pytest.raises(Conflict):
        store.replace("a", b"4", tag=first)
    assert store.read("a") == (b"3", second)
    assert fsspec.filesystem("s3").cat(f"{bucket}/run/a") == b"3"


def test_throttled_requests_are_repeated_and_forbidden_ones_are_not(bucket, proxy, tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 1000)
    store, refused = Store(f"{bucket}/run"), []

    def fault(method, path):
        refused.append(path)
        return 503 if method == "PUT" and len(refused) < 12 else None  # boto itself repeats five times

    proxy.fault = fault
    store.upload({"file": tmp_path / "file"})
    assert store.retried >= 1 and len(refused) >= 12
    proxy.fault = lambda method, path: 403
    before = store.retried
    with pytest.raises(UserError, match="may not be read or written"):
        store.write("other", b"")
    assert store.retried == before


def test_what_came_damaged_is_refused(bucket, tmp_path):
    store = Store(f"{bucket}/run")
    (tmp_path / "file").write_bytes(b"x" * 1000)
    known = store.upload({"file": tmp_path / "file"})
    store.download({"file": tmp_path / "copy" / "file"}, known=known)
    assert (tmp_path / "copy" / "file").read_bytes() == b"x" * 1000
    store.write("file", b"x" * 999 + b"y")
    with pytest.raises(DamagedError, match="SHA-256"):
        store.download({"file": tmp_path / "again" / "file"}, known=known)
    assert not list((tmp_path / "again").iterdir())
    store.delete(["file", "absent"])
    with pytest.raises(DamagedError, match="missing"):
        store.download({"file": tmp_path / "again" / "file"}, known=known)


def test_stores_without_conditional_writes_are_refused():
    with pytest.raises(UserError, match=r"s3:// and gs:// only"):
        Store("https://example.org/run")
