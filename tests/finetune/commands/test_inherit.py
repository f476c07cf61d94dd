"""What a fine-tuning run takes from its checkpoint: the input spec and the towers, and nothing else."""

import dataclasses
from importlib import import_module

import pytest
from dual_towers import input_of

from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.options import DataOptions
from twinreel.finetune.commands.inherit import INHERITED, Source, complete, mismatches, model_changes, run_spec
from twinreel.finetune.tasks import TASKS, check_config, make_task
from twinreel.zoo.spec import ModelOptions

INPUT = input_of(num_frames=8, eval_video="center_crop(48)", text="lower", decode={"fps": 8.0})
OPTIONS = ModelOptions(embed_dim=4, video={"width": 8, "image_size": 48, "dropout": 0.1}, text={"width": 6})
SOURCE = Source(
    spec=OPTIONS.spec(input=INPUT, vocab_size=11).replace(tokenizer={"kind": "x"}),
    origin={"name": "pre", "step": 6, "sha256": "abc"},
)


def completed(**data):
    return complete({"data": {"dir": "data/y", "batch_size": 2, **data}, "model": {}}, source=SOURCE)


def test_open_fields_of_the_input_come_from_the_checkpoint():
    whole = completed(num_frames=4, eval_sampling=None)
    assert whole["data"] == {
        "dir": "data/y",
        "batch_size": 2,
        "num_frames": 4,
        **{name: getattr(INPUT, name) for name in INHERITED if name != "num_frames"},
    }
    assert whole["init"] == SOURCE.origin


def test_nothing_but_the_input_is_inherited():
    assert set(INHERITED) == {field.name for field in dataclasses.fields(INPUT)} - {"decode"}
    data = DataOptions.of(completed()["data"])
    assert data.feed.dir == "data/y" and not data.feed.mixture and not data.feed.features
    assert data.augment.train_video == "" and data.augment.prompts == () and data.feed.window_seconds == 0


def test_the_data_must_be_named_and_is_one_folder():
    with pytest.raises(UserError, match=r"config\.data\.dir is empty.*not taken from the checkpoint"):
        completed(dir=None)
    with pytest.raises(UserError, match=r"config\.data\.mixture: fine-tuning trains on one prepared folder"):
        completed(mixture={"a": {"dir": "x"}})


def test_towers_take_the_changes_of_the_config():
    whole = complete(
        {"data": {"dir": "d", "batch_size": 2}, "model": {"video": {"dropout": 0.3, "image_size": None}}},
        source=SOURCE,
    )
    data = DataOptions.of(whole["data"])
    prepared = {"fps": 4.0, "source": "s"}
    spec = run_spec(SOURCE, model=model_changes(whole), data=data, prepare=prepared, seed=3)
    assert spec.towers["video"] == SOURCE.spec.towers["video"] | {"dropout": 0.3}
    assert spec.input == dataclasses.replace(INPUT, decode={"fps": 4.0})
    assert spec.origin == {"made_by": "finetune", "init": SOURCE.origin, "seed": 3}
    assert spec.embed_dim is None and spec.tokenizer == {"kind": "x"}
    with pytest.raises(UserError, match=r"config\.model\.audio changes a tower that the checkpoint lacks"):
        run_spec(SOURCE, model=model_changes({"model": {"audio": {"width": 3}}}), data=data, prepare=prepared, seed=3)


def test_sections_of_a_tower_are_changed_field_by_field():
    image = {"patch": 8, "pool": "cls", "block": {"qkv_bias": True, "norm_epsilon": 1e-6}}
    source = dataclasses.replace(
        SOURCE, spec=SOURCE.spec.replace(towers={"video": {"family": "frames", "image": image}})
    )
    changes = model_changes({"model": {"video": {"image": {"pool": "cls_mean", "block": {"norm_epsilon": 1e-5}}}}})
    spec = run_spec(source, model=changes, data=DataOptions.of(completed()["data"]), prepare={}, seed=0)
    block = {"qkv_bias": True, "norm_epsilon": 1e-5}
    assert spec.towers["video"] == {"family": "frames", "image": {"patch": 8, "pool": "cls_mean", "block": block}}
    assert image["pool"] == "cls", "the checkpoint's own stays"


def test_shipped_config_completes():
    config = load_config("demo_classify:linear", overrides=["data.dir=d"]).to_dict()
    whole = complete(config, source=SOURCE)
    assert whole["task"]["head"] == "linear"
    assert whole["data"]["num_frames"] == 8 and whole["data"]["eval_video"] == "center_crop(48)"


def test_each_mismatch_is_named():
    assert mismatches(DataOptions.of(completed()["data"]), source=SOURCE, prepare={"fps": 8.0}) == []
    data = DataOptions.of(completed(num_frames=4, train_sampling="dense(2)")["data"])
    found = mismatches(data, source=SOURCE, prepare={"fps": None})
    assert len(found) == 3
    assert "num_frames=4" in found[0] and "with 8" in found[0]
    assert "train_sampling='dense(2)' but eval_sampling='uniform'" in found[1]
    assert "every frame" in found[2] and "8 frames/s" in found[2]


def test_config_without_a_task():
    with pytest.raises(UserError, match="no section `task`"):
        check_config(load_config("demo").to_dict())


def test_unknown_task():
    class Stub:
        config = {"task": {"name": "clasify"}}  # noqa: RUF012

    with pytest.raises(UserError, match="did you mean 'classify'"):
        make_task(Stub())  # pyright: ignore[reportArgumentType]


def test_table_of_tasks_names_modules():
    for name in TASKS:
        assert callable(import_module(f"twinreel.finetune.tasks.{name}").make)
