import json
from pathlib import Path

import pytest
from engine_toy import config

from twinreel.base.errors import UserError
from twinreel.engine.loop.workdir import check_workdir, claim_workdir, load_config_of


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
