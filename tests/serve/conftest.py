"""Films, a model in NumPy and their index, for all tests of `serve`."""

import shutil
from pathlib import Path

import pytest
from brightness_model import brightness_model
from serve_films import QUICK, SETTINGS, write_films

from twinreel.serve.index.build import BuildOptions, build_index


@pytest.fixture(scope="session")
def films(tmp_path_factory):
    """The folder; tests that change it take a copy (`copied`)."""
    return write_films(tmp_path_factory.mktemp("films"))


@pytest.fixture
def copied(films, tmp_path):
    return Path(shutil.copytree(films, tmp_path / "films"))


@pytest.fixture(scope="session")
def library(films, tmp_path_factory):
    """The index of the folder, for tests that only read."""
    folder = tmp_path_factory.mktemp("library") / "index"
    build_index([str(films)], folder=folder, opened=brightness_model(), settings=SETTINGS, options=QUICK)
    return folder


@pytest.fixture
def update(tmp_path):
    """Brings an index in the test's own folder up to date; returns its summary."""

    def run(*sources, opened=None, folder=tmp_path / "index", settings=SETTINGS, **options):
        given = {"batch_size": 4, "workers": 2, **options}
        return build_index(
            [str(source) for source in sources],
            folder=folder,
            opened=opened or brightness_model(),
            settings=settings,
            options=BuildOptions(**given),
        )

    return run
