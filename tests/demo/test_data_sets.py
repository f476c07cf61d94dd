"""The data sets that `twinreel demo --data NAME` makes."""

import importlib
import json

import pytest

from twinreel.base.config import load_config
from twinreel.demo.data_sets import DATA_SETS
from twinreel.demo.demo import main


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_data_set_has_a_module_a_section_and_a_config_that_trains_on_it(name):
    module = importlib.import_module(f"twinreel.demo.{name}")
    assert callable(module.write)
    assert name in load_config("demo")
    config = load_config(DATA_SETS[name].config)
    assert DATA_SETS[name].verb == ("finetune" if "task" in config else "pretrain")


def test_the_verb_makes_and_prepares_one(tmp_path, capsys):
    numbers = {"train": 2, "val": 0, "test": 1, "size": 16}
    flags = [f"--config.odd_films.{name}={value}" for name, value in numbers.items()]
    assert main(["--workdir", str(tmp_path), "--data", "odd_films", *flags]) == 0
    assert f"wrote {tmp_path / 'odd_films'}" in capsys.readouterr().out.replace("\n", "")
    assert json.loads((tmp_path / "odd" / "odd_films.json").read_text())["test"] == 1
    prepared = [json.loads(line) for line in (tmp_path / "odd_films" / "clips.jsonl").read_text().splitlines()]
    assert [clip["split"] for clip in prepared].count("train") == 2 and len(prepared) == 3
