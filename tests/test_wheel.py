"""`pip install .` gives one top-level package and the console command."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_holds_twinreel_only(tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "twinreel = twinreel.__main__:main" in archive.read(entry_points).decode()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"twinreel"}
    assert not [name for name in names if "/tests/" in name]
    templates = {path.name for path in (ROOT / "pages" / "templates").iterdir() if path.is_file()}
    assert templates and {f"twinreel/pages/templates/{name}" for name in templates} <= set(names)
    assert "twinreel/evaluate/protocols/templates.json" in names
    assert {"twinreel/py.typed", "twinreel/configs/demo.py", "twinreel/engine/loop/train.py"} <= set(names)
