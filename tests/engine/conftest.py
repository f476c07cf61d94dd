"""Starts the workers of the engine's tests."""

import pytest


@pytest.fixture
def start_all(tmp_path):
    """Start a run of one or several processes; those that a failed test leaves running are killed."""
    from processes import launch

    started = []

    def begin(workdir, **flags):
        processes = launch(tmp_path / workdir, **flags)
        started.extend(processes)
        return processes

    yield begin
    for process in started:
        process.kill()
        process.communicate()
