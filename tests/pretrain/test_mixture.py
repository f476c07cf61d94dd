"""Pretraining on several sources at once."""

import pytest
from files import lines

from twinreel.base.config import load_config
from twinreel.pretrain.pretrain import pretrain


def mixed_config(tiny_overrides, tiny_data, **train):
    config = load_config("demo", overrides=[*tiny_overrides, "train.eval_every=0", "evaluations={}"])
    with config.unlocked():
        config.data.dir = ""
        config.data.mixture = {
            "large": {"dir": str(tiny_data), "weight": 3.0},
            "small": {"dir": str(tiny_data), "weight": 1.0, "split": "val"},
        }
        config.train.update(train)
    return config


def test_a_mixture_trains_and_its_epochs_are_logged(tmp_path, tiny_overrides, tiny_data):
    pretrain(mixed_config(tiny_overrides, tiny_data, steps=4), workdir=tmp_path / "run")
    train = [line for line in lines(tmp_path / "run") if line["kind"] == "train"]
    assert [line["step"] for line in train] == [1, 2, 3, 4]
    for line in train:  # 8 rows a batch: 6 of 24 clips and 2 of 8
        assert line["epoch/large"] == pytest.approx(line["step"] * 6 / 24)
        assert line["epoch/small"] == pytest.approx(line["step"] * 2 / 8)
