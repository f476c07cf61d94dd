"""An S3 server for the tests of the data folder."""

import pytest


@pytest.fixture(scope="session")
def s3_server():
    """A local S3 server with a bucket `bucket`; the environment lets every S3 client find it."""
    import fsspec
    from object_store import DUMMY, Server

    server = Server()
    with pytest.MonkeyPatch.context() as patch:
        for key, value in DUMMY.items():
            patch.setenv(key, value)
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
        fsspec.filesystem("s3").mkdir("bucket")
        yield server
    server.close()


@pytest.fixture
def s3(s3_server, request, tmp_path, monkeypatch):
    """An S3 folder of the test's own, as a URL; local copies go to `tmp_path / "cache"`."""
    import s3fs

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    s3fs.S3FileSystem.clear_instance_cache()  # none that knows the proxy of an earlier test
    return f"s3://bucket/{request.node.name.replace('[', '-').rstrip(']')}"


@pytest.fixture
def s3_proxy(s3_server):
    """A proxy before the S3 server that the test can make fail; S3 clients of this process use it."""
    import s3fs
    from object_store import Proxy

    proxy = Proxy(s3_server.port)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        s3fs.S3FileSystem.clear_instance_cache()
        yield proxy
    s3fs.S3FileSystem.clear_instance_cache()  # after the environment: a thread that still fetches may make a client
    proxy.close()
