"""The benchmark of checkpoints measures something, says it, and cleans up."""

import json
import subprocess
import sys

import jax
import pytest

from twinreel.base.errors import UserError
from twinreel.bench.commands.checkpoint import main, raw_rates

SMALL = [
    "--config.data.batch_size=8",
    "--config.data.num_frames=2",
    "--config.model.video.width=32",
    "--config.model.text.width=32",
]


def test_figures_and_table(tmp_path, capsys):
    assert main(["--config", "demo", "--dir", str(tmp_path), "--saves", "1", "--json", *SMALL]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["devices"] == len(jax.devices())
    assert result["size_bytes"] > 0.5 * result["state_bytes"] > 0
    for name in ("step_time_s", "blocked_s", "save_s", "restore_s", "raw_write_mb_per_s", "raw_read_mb_per_s"):
        assert result[name] > 0, name
    assert result["blocked_s"] <= result["save_s"]
    assert result["blocked_steps"] == pytest.approx(result["blocked_s"] / result["step_time_s"])
    assert result["save_mb_per_s"] == pytest.approx(result["size_bytes"] / result["save_s"] / 1e6)
    assert not list(tmp_path.iterdir())


def test_raw_rates_are_of_a_file_of_that_size(tmp_path):
    written, read = raw_rates(tmp_path / "raw", size=3_000_001)
    assert written > 0 and read > 0
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"--dir=.*is no folder"):
        main(["--config", "demo", "--dir", str(tmp_path / "none")])


@pytest.mark.slow
def test_it_runs_without_tensorflow(tmp_path):
    code = "import sys; from twinreel.__main__ import main; main(sys.argv[1:]); print('tensorflow' in sys.modules)"
    words = ["bench", "checkpoint", "--config", "demo", "--dir", str(tmp_path), "--saves", "1", *SMALL]
    found = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert "a save blocks the loop" in found.stdout
    assert found.stdout.splitlines()[-1] == "False"
