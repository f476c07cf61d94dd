"""What all tests of `prepare` share."""

import pytest

from twinreel.data.prepare import inputs


@pytest.fixture(scope="session", autouse=True)
def no_file_is_recent():
    """Rely on the times of files made a moment ago, so that nothing depends on how fast a test runs."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(inputs, "_RECENT_S", 0.0)
        yield
