import json
from pathlib import Path

import pytest
from engine_toy import ToyObjective, batches, config

from twinreel.base.errors import UserError
from twinreel.engine.keeping.checkpoint import read_meta
from twinreel.engine.loop.train import train
from twinreel.engine.loop.workdir import check_workdir, checkpoint_content, claim_workdir, load_config_of


def test_a_new_workdir_belongs_to_nobody(tmp_path):
    assert check_workdir(tmp_path / "new", config=config()) == []
    assert not (tmp_path / "new").exists()
    claim_workdir(tmp_path / "new", config=config())
    assert json.loads((tmp_path / "new" / "config.json").read_text())["train"]["steps"] == 12
    assert check_workdir(tmp_path / "new", config=config()) == []


def test_another_config_is_refused_with_the_difference(tmp_path):
    claim_workdir(tmp_path, config=config())
    with pytest.raises(UserError) as caught:
        check_workdir(tmp_path, config=config(optimizer__lr=0.1, seed=4, train__steps=40))
    message = str(caught.value)
    assert "optimizer.lr: 0.05 -> 0.1" in message
    assert "seed: 0 -> 4" in message
    assert "train.steps" not in message
    assert "--overwrite_config" in message
    assert load_config_of(tmp_path).seed == 0


def test_fields_that_may_change_and_overwriting(tmp_path):
    claim_workdir(tmp_path, config=config())
    assert check_workdir(tmp_path, config=config(train__steps=40, train__log_every=5)) == [
        "train.log_every: 2 -> 5",
        "train.steps: 12 -> 40",
    ]
    assert check_workdir(tmp_path, config=config(seed=4), overwrite=True) == ["seed: 0 -> 4"]


def test_evaluations_come_go_and_are_rescheduled_but_stay_what_they_are(tmp_path):
    val = {"split": "val", "every": 5}
    claim_workdir(tmp_path, config=config(evaluations={"val": val}))
    more = {"val": val | {"every": 2}, "ucf": {"protocol": "zero_shot", "data": "data/ucf"}}
    assert len(check_workdir(tmp_path, config=config(evaluations=more))) == 3
    assert len(check_workdir(tmp_path, config=config())) == 2
    with pytest.raises(UserError, match=r"evaluations\.val\.split: 'val' -> 'test'"):
        check_workdir(tmp_path, config=config(evaluations={"val": val | {"split": "test"}}))


DATA = {"kind": "data set", "source_sha256": "ab12", "fps": 8.0, "clips": {"train": 8, "val": 2}}


def at(place, **changes):
    """A config whose data lie there, and what lies there."""
    return {"config": config(data={"dir": place}), "identity": {"data.dir": DATA | changes}}


def test_the_same_content_at_another_place_is_the_same(tmp_path):
    claim_workdir(tmp_path, **at("here/data"))
    assert check_workdir(tmp_path, **at("/mnt/there")) == ["data.dir: 'here/data' -> '/mnt/there'"]
    with pytest.raises(UserError, match=r"data\.dir: 'here/data' -> '/mnt/there'"):  # nothing is known of the content
        check_workdir(tmp_path, config=config(data={"dir": "/mnt/there"}))


def test_other_content_at_the_same_place_is_refused_and_named(tmp_path):
    claim_workdir(tmp_path, **at("data"))
    other = at("data", source_sha256="cd34", fps=4.0, clips={"train": 16, "val": 2})
    with pytest.raises(UserError) as caught:
        check_workdir(tmp_path, **other)
    assert str(caught.value).splitlines() == [
        "the data set of config.data.dir has changed since this run began "
        "(clips.train 8 -> 16, fps 8.0 -> 4.0, source_sha256 ab12 -> cd34)",
        "Choose another --workdir, or give --overwrite_config to continue here with the new data",
    ]
    [line] = check_workdir(tmp_path, **other, overwrite=True)
    assert "has changed since this run began" in line
    claim_workdir(tmp_path, **other)
    assert check_workdir(tmp_path, **other) == []


def test_content_that_is_not_known_now_is_not_compared_and_not_forgotten(tmp_path):
    claim_workdir(tmp_path, **at("data"))
    gone = {"config": config(data={"dir": "moved"}), "identity": {"data.dir": None}}
    assert check_workdir(tmp_path, **gone) == ["data.dir: 'data' -> 'moved'"]
    claim_workdir(tmp_path, **gone)
    with pytest.raises(UserError, match=r"fps 8\.0 -> 4\.0"):
        check_workdir(tmp_path, **at("moved", fps=4.0))


def test_a_workdir_without_its_files_is_known_by_its_newest_checkpoint(tmp_path):
    how = {"objective": ToyObjective(), "batches": batches, "workdir": tmp_path, "meta": {}}
    own = {"config": config(train__steps=2, data={"dir": "a"}), "identity": {"data.dir": DATA}}
    train(**how, **own)
    assert read_meta(tmp_path)["identity"] == {"data.dir": DATA}
    for name in ("config.json", "identity.json"):
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match=r"seed: 0 -> 4(.|\n)*data set of config.data.dir has changed .*fps 8.0 -> 4.0"):
        train(
            **how, config=config(train__steps=4, seed=4, data={"dir": "b"}), identity={"data.dir": DATA | {"fps": 4.0}}
        )
    moved = {"config": config(train__steps=4, data={"dir": "b"}), "identity": {"data.dir": DATA}}
    assert train(**how, **moved).step == 4


def test_a_checkpoint_is_known_by_its_run(tmp_path):
    how = {"objective": ToyObjective(), "batches": batches, "meta": {}}

    def begin(name, *, steps=2, place="a", **changes):
        own = {"config": config(train__steps=steps, data={"dir": place}, **changes), "identity": {"data.dir": DATA}}
        train(workdir=tmp_path / name, **how, **own)
        return checkpoint_content(tmp_path / name)

    first = begin("run")
    assert first["kind"] == "checkpoint"
    assert begin("run", steps=4, place="b") == first  # it was moved and went on
    (tmp_path / "run" / "checkpoints" / "4").rename(tmp_path / "copy")
    assert checkpoint_content(tmp_path / "copy") == first
    assert begin("other", seed=4) != first
    assert checkpoint_content(tmp_path / "nowhere") is None


def test_load_config_of(tmp_path):
    claim_workdir(tmp_path, config=config())
    loaded = load_config_of(tmp_path)
    assert loaded.optimizer.lr == 0.05
    with pytest.raises(AttributeError):
        loaded.optimizer.rate = 1.0
    with pytest.raises(UserError, match="no such folder"):
        load_config_of(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is not JSON"):
        load_config_of(tmp_path)


def test_a_folder_without_rights_is_named(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(UserError, match=r"run/config\.json cannot be read \(Permission denied\)"):
        check_workdir(tmp_path / "run", config=config())
