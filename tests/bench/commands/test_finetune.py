"""`twinreel bench finetune`: what it compares, and what it refuses."""

import json

import pytest
from colour_clips import config_of

from twinreel.base.errors import UserError
from twinreel.bench.commands.finetune import MODES, bench_finetune, main

OVERRIDES = ["--config.data.batch_size=8", "--config.task.min_count=1", "--config.optimizer.warmup_steps=1"]


def test_modes_are_measured(colours, capsys, monkeypatch):
    assert list(MODES) == ["cached", "encoded", "lora", "full"]
    monkeypatch.delitem(MODES, "lora")  # its parameters: tests/finetune/commands/test_adapt.py
    flags = ["--init", str(colours / "pretrained"), "--data", str(colours / "data"), "--config", "demo_classify:linear"]
    assert main([*flags, *OVERRIDES, "--batches", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    modes = result["modes"]
    assert list(modes) == list(MODES) and result["train_clips"] == 37 and result["batch_size"] == 8
    for one in modes.values():
        assert one["epoch_s"] == pytest.approx(37 / one["clips_per_s"]) and one["step_ms"] > 0
    assert result["speedup"] == pytest.approx(modes["encoded"]["epoch_s"] / modes["cached"]["epoch_s"])
    head = 16 * 4 + 4
    tower = modes["full"]["trained"] - head
    assert modes["cached"]["trained"] == modes["encoded"]["trained"] == head
    assert modes["full"]["parameters"] == modes["cached"]["parameters"] == head + tower
    assert modes["full"]["state_bytes"] - modes["cached"]["state_bytes"] == 2 * 4 * tower, "two moments in float32"
    assert modes["full"]["peak_bytes"] > modes["encoded"]["peak_bytes"]


def test_mistakes_are_named(colours):
    with pytest.raises(UserError, match="--batches must be at least 1, got 0"):
        main(["--init", "a", "--data", "b", "--batches", "0"])
    config = config_of(colours, "data.train_video=random_crop(16)", "task.heads=2")
    with pytest.raises(UserError, match="draws clips at random"):
        bench_finetune(config, init=colours / "pretrained", batches=1)
