"""Stages before a run: each begins with the parameters of the one before, at its own number of frames."""

import shutil

import numpy as np
import pytest

from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.pretrain.begin import curriculum
from twinreel.pretrain.pretrain import pretrain_stages
from twinreel.zoo.load import locate

STAGES = (("data.num_frames=2", "train.steps=1"), ("data.num_frames=4", "train.steps=2"))


def config_of(tiny_overrides, stages=STAGES):
    config = load_config(
        "demo",
        overrides=[
            *tiny_overrides,
            "train.eval_every=0",
            "evaluations={}",
            "train.steps=1",
            "optimizer.warmup_steps=0",
        ],
    )
    with config.unlocked():
        config.curriculum = stages
    return config


def test_stages_are_the_config_with_overrides(tiny_overrides):
    config = config_of(tiny_overrides)
    first, second = curriculum(config)
    assert (first.data.num_frames, second.data.num_frames, config.data.num_frames) == (2, 4, 8)
    assert (first.train.steps, second.train.steps) == (1, 2) and "curriculum" not in first
    assert curriculum(load_config("demo")) == []


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (("data.num_frames=2",), r"config\.curriculum: stage 1 is 'data\.num_frames=2'; wanted a list of overrides"),
        ([[], [3]], r"config\.curriculum: stage 2 is \[3\]"),
        ([["dta.num_frames=2"]], r"config\.curriculum, stage 1: .*'dta\.num_frames'; did you mean 'data\.num_frames'"),
    ],
)
def test_stages_that_do_not_fit(stages, message, tiny_overrides):
    with pytest.raises(UserError, match=message):
        curriculum(config_of(tiny_overrides, stages))


def test_each_stage_begins_with_the_one_before(tiny_overrides, tmp_path, capsys):
    config = config_of(tiny_overrides)
    _, place = pretrain_stages(config, workdir=tmp_path)
    assert place == tmp_path
    told = capsys.readouterr().err
    assert "stage 1 of 2" in told and "stage 2 of 2" in told and "resized" in told
    places = [tmp_path / "stages" / "1", tmp_path / "stages" / "2", tmp_path]
    shapes = [locate(place).params()["video/time_position"].shape[0] for place in places]
    assert shapes == [1, 2, 4]  # tubelets of two frames
    before, after = (locate(place).params()["text/embedding"] for place in places[1:])
    assert 0 < np.abs(after - before).max() < 0.01  # one step apart
    assert locate(tmp_path).meta["init"]["checkpoint"] == str(places[1])
    # killed before its first checkpoint: the run begins with the last stage again
    shutil.rmtree(tmp_path / "checkpoints")
    pretrain_stages(config, workdir=tmp_path)
    np.testing.assert_array_equal(locate(tmp_path).params()["text/embedding"], after)
    assert locate(tmp_path).meta["init"]["checkpoint"] == str(places[1])
    capsys.readouterr()
    # the same command again: the run has ended, and no stage is entered again
    pretrain_stages(config, workdir=tmp_path)
    assert "stage 1" not in capsys.readouterr().err
