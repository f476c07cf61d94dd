"""The application over the index of the films, answered in this process and by a server."""

import importlib.util
import threading
import time

import pytest
from brightness_model import brightness_model

MISSING = [
    name
    for name in ("fastapi", "uvicorn", "python_multipart", "httpx", "prometheus_client")
    if importlib.util.find_spec(name) is None
]
collect_ignore_glob = ["test_*.py"] if MISSING else []


@pytest.fixture(scope="session")
def service(library):
    from twinreel.serve.web.service import Service

    made = Service(library, model="", opened=brightness_model())
    yield made
    made.close()


@pytest.fixture
def client(service):
    """A client of the application with default limits, or others: `client(per_minute=3)`."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the test client about the library that it is built on
        from starlette.testclient import TestClient

    from twinreel.serve.web.app import create_app
    from twinreel.serve.web.guard import GuardOptions

    def make(**options):
        app = create_app(service, options=GuardOptions(**options))
        return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=True)

    return make


@pytest.fixture(scope="session")
def address(service):
    """A server on a port of this machine, in a thread."""
    import uvicorn

    from twinreel.serve.web.app import create_app
    from twinreel.serve.web.guard import GuardOptions
    from twinreel.serve.web.protocol import TimedProtocol

    app = create_app(service, options=GuardOptions(per_minute=6000, body_seconds=1.0))
    given = {"host": "127.0.0.1", "port": 0, "log_level": "error", "ws": "none", "http": TimedProtocol}
    server = uvicorn.Server(uvicorn.Config(app, server_header=False, **given))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < end and thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join(30)
