"""A run that is killed at the worst moments, and the same command again."""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from brightness_model import brightness_model
from index_state import ask, same, state

from twinreel.encode.media import windows
from twinreel.serve.index import vectors
from twinreel.serve.index.store import Store

KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from brightness_model import brightness_model
from serve_films import SETTINGS
from twinreel.serve.index import build, store, vectors

def killing(function, calls, *, after):
    def run(*args, **kwargs):
        calls.append(0)
        if after:
            function(*args, **kwargs)
        if len(calls) == (4 if sys.argv[2] == "vectors" else 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if not after:
            return function(*args, **kwargs)
    return run

target, name = {"vectors": (vectors.VectorWriter, "sync"), "chunk": (store.Store, "add_moments")}[sys.argv[2]]
setattr(target, name, killing(getattr(target, name), [], after=True))
options = build.BuildOptions(batch_size=1, workers=1)
given = {"opened": brightness_model(), "settings": SETTINGS, "options": options}
build.build_index([sys.argv[3]], folder=Path(sys.argv[4]), **given)
"""


@pytest.mark.parametrize("moment", ["vectors", "chunk"])
def test_a_killed_run_is_continued(moment, films, library, update, tmp_path):
    """Between the vectors' way to the disk and a later transaction, and after the first transaction."""
    index, support = tmp_path / "index", Path(vectors.__file__).parents[2] / "tests" / "support"
    command = [sys.executable, "-c", KILLED, str(support), moment, str(films), str(index)]
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == -9
    before = state(index)
    assert 0 < len(before) < 30
    rows = dict(ask(index, "SELECT moment, row FROM vectors WHERE side = 'video'"))
    opened = brightness_model()
    assert update(films, opened=opened)["files"] == 8
    assert opened.encoder.clips == 30 - len(before)
    assert rows.items() <= dict(ask(index, "SELECT moment, row FROM vectors WHERE side = 'video'")).items()
    same(state(index), state(library))


def test_a_copy_that_was_stopped_has_each_moment_once(copied, update, tmp_path, monkeypatch):
    """Of a film in several chunks."""
    monkeypatch.setattr(windows, "_CHUNK_S", 10.0)
    update(copied)
    for suffix in ("mp4", "en.srt"):
        shutil.copy(copied / "long" / f"ramp.{suffix}", copied / "long" / f"again.{suffix}")
    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(Store, "finish", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        update(copied)
    assert update(copied)["moments"] == 30 + 23
    counts = "SELECT COUNT(*) FROM vectors WHERE side = 'video' GROUP BY moment"
    assert ask(tmp_path / "index", counts) == [(1,)] * (30 + 23)
