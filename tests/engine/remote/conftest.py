"""An S3 server for workdirs in object stores."""

import pytest


@pytest.fixture(scope="session")
def far_server():
    """A local S3 server, of these tests alone."""
    from object_store import Server

    server = Server()
    yield server
    server.close()


@pytest.fixture
def environment(far_server, monkeypatch, tmp_path):
    """Let every S3 client of this process, and of those it starts, find that server; stages lie below `tmp_path`."""
    import s3fs
    from object_store import DUMMY

    for key, value in DUMMY.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{far_server.port}")
    monkeypatch.setenv("TWINREEL_STAGE", str(tmp_path / "stages"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def bucket(environment, request):
    """A bucket of the test's own, as a URL."""
    import hashlib

    import fsspec

    name = "b" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"


@pytest.fixture
def proxy(far_server, environment, monkeypatch):
    """A proxy before the server that the test can make fail; S3 clients of this process use it."""
    import s3fs
    from object_store import Proxy

    proxy = Proxy(far_server.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    s3fs.S3FileSystem.clear_instance_cache()
    yield proxy
    proxy.close()
