"""The application over the index of the films, answered in this process and by a server."""

import importlib.util

import pytest
from brightness_model import brightness_model

MISSING = [
    name for name in ("fastapi", "uvicorn", "python_multipart", "httpx") if importlib.util.find_spec(name) is None
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
