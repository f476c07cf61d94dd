"""`twinreel bench retrieval`: what it reports, and what it refuses."""

import json

import jax
import numpy as np
import pytest

from twinreel.__main__ import main
from twinreel.base.errors import UserError
from twinreel.bench.commands.retrieval import Retrieval, bench_retrieval

SMALL = [
    "--queries",
    "120",
    "--gallery",
    "100",
    "--dim",
    "16",
    "--captions",
    "2",
    "--rounds",
    "1",
    "--tile_mib",
    "0.01",
]


@pytest.fixture(autouse=True)
def eight_devices():
    """Start jax with the devices of all tests: the verb would start it with its own."""
    assert len(jax.devices()) == 8


def test_json_has_rates_ratios_and_memory(capsys):
    assert main(["bench", "retrieval", *SMALL, "--devices", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["queries"], result["devices"], result["tile"]) == (120, 2, [16, 128])
    assert result["ratio"] == pytest.approx(result["pairs_per_s"] / result["matmul_pairs_per_s"])
    assert result["tile_ratio"] == pytest.approx(result["tile_pairs_per_s"] / result["matmul_pairs_per_s"])
    assert 1 < result["mean_rank"] < 50 and result["open_per_query"] >= 1.5  # each text's own pair, each video's group
    assert 4 * 128 * 16 < result["argument_bytes"] < 4 * 128 * 16 + 8192


def test_the_table_names_both_rates(capsys):
    assert main(["bench", "retrieval", *SMALL]) == 0
    printed = capsys.readouterr().out
    assert "count of all ranks" in printed and "bare matrix products" in printed


@pytest.mark.parametrize(
    ("field", "value"), [("queries", 0), ("dim", 0), ("rounds", 0), ("devices", 99), ("queries", 40_000)]
)
def test_a_wrong_value_is_named(field, value):
    with pytest.raises(UserError, match=f"--{field}"):
        bench_retrieval(Retrieval(**{field: value}))


def test_the_rank_that_is_reported_is_that_of_the_cosines():
    options = Retrieval(queries=60, gallery=50, dim=8, captions=2, noise=2.0, rounds=1)
    rng = np.random.default_rng(0)
    video = rng.standard_normal((50, 8), np.float32)
    text = video[np.arange(60) // 2] + np.float32(2.0) * rng.standard_normal((60, 8), np.float32)
    scores = (text @ video.T) / np.linalg.norm(video, axis=1)
    own = scores[np.arange(60), np.arange(60) // 2]
    assert bench_retrieval(options)["mean_rank"] == pytest.approx(1 + (scores > own[:, None]).sum(axis=1).mean())
