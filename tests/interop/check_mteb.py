"""twinreel's adapter on MTEB's own mock tasks; `make test-interop` runs it.

mteb and torchcodec are in the Python that TWINREEL_MTEB_PYTHON names, beside twinreel. A library that is missing there
is a failure, never a skip.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from small_encoder import small_encoder

PYTHON = os.environ.get("TWINREEL_MTEB_PYTHON", sys.executable)
HERE = Path(__file__).parent


def test_mock_tasks_run_and_embeddings_are_those_of_files(tmp_path):
    bundle = small_encoder().save(tmp_path / "model")
    done = subprocess.run(
        [PYTHON, str(HERE / "run_mteb.py"), str(bundle), str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert len(scores) == 8 and all(0 <= value <= 1 for one in scores.values() for value in one.values()), scores
    found = np.load(tmp_path / "embeddings.npz")
    np.testing.assert_allclose(found["text"], found["text_of_strings"], atol=1e-6)
    # The clips are noise, decoded by two programs: their colours differ by a level or two.
    cosine = (found["video"] * found["video_of_files"]).sum(axis=1)
    assert (cosine > 1 - 1e-3).all(), cosine
    other = (found["video"] * found["video_of_files"][::-1]).sum(axis=1)
    assert (cosine > other).all(), "clips are in the order of the loader"
