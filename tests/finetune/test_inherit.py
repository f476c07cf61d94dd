"""What a fine-tuning config takes from its checkpoint."""

import pytest

from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.finetune.inherit import complete, mismatches
from twinreel.finetune.task import TASKS, check_config, make_task

META = {
    "config": {
        "data": {"dir": "data/x", "num_frames": 8, "train_sampling": "uniform_jitter", "eval_sampling": "uniform"},
        "model": {"embed_dim": 4, "video": {"width": 8, "image_size": 48}, "text": {"width": 6}},
    },
    "data": {"prepare": {"fps": 8.0}},
}


def test_open_fields_come_from_the_checkpoint():
    config = {
        "seed": 3,
        "task": {"name": "classify"},
        "data": {"dir": None, "num_frames": 4, "batch_size": 2},
        "model": {"video": {"image_size": None, "dropout": None}},
    }
    whole = complete(config, meta=META, init={"checkpoint": "runs/a/1"})
    assert whole["data"] == META["config"]["data"] | {"num_frames": 4, "batch_size": 2}
    assert whole["model"] == META["config"]["model"]  # an open field that neither side has is left to its default
    assert whole["init"] == {"checkpoint": "runs/a/1"} and whole["seed"] == 3
    assert config["data"]["dir"] is None


def test_shipped_config_completes():
    config = load_config("demo_classify:linear", overrides=["--config.model.video.image_size=64"]).to_dict()
    whole = complete(config, meta=META, init={})
    assert whole["task"]["head"] == "linear"
    assert whole["model"]["video"] == {"width": 8, "image_size": 64}
    assert whole["data"]["num_frames"] == 8


def test_equal_sampling_needs_no_warning():
    whole = complete({"data": {}, "model": {}}, meta=META, init={})
    assert mismatches(whole, meta=META, prepare={"fps": 8.0}) == []


def test_each_mismatch_is_named():
    whole = complete({"data": {"num_frames": 4, "train_sampling": "window"}, "model": {}}, meta=META, init={})
    found = mismatches(whole, meta=META, prepare={"fps": None})
    assert len(found) == 4
    assert "num_frames=4" in found[0] and "with 8" in found[0]
    assert "train_sampling='window'" in found[1]
    assert "'window' but eval_sampling='uniform'" in found[2]
    assert "every frame" in found[3] and "8 frames/s" in found[3]


def test_config_without_a_task():
    with pytest.raises(UserError, match="no section `task`"):
        check_config(load_config("demo").to_dict())


def test_unknown_task():
    class Stub:
        config = {"task": {"name": "clasify"}}  # noqa: RUF012

    with pytest.raises(UserError, match="did you mean 'classify'"):
        make_task(Stub())  # pyright: ignore[reportArgumentType]


def test_table_of_tasks_names_modules():
    from importlib import import_module

    for module, _ in TASKS.values():
        assert callable(import_module(f"twinreel.finetune.{module}").make)
