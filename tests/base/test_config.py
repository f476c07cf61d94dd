"""Configs by name, by file and by override; typos are named with the nearest field."""

import importlib.util

import ml_collections
import pytest

from twinreel.base.config import difference, flatten, load_config, shipped, to_json
from twinreel.base.errors import UserError
from twinreel.base.section import section

FILE = """
import ml_collections

def get_config(arg="4"):
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.size = int(arg)
    c.optimizer = dict(lr=1e-3, name="adamw", betas=(0.9, 0.99))
    return c
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return str(path)


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_config_loads_is_locked_and_has_a_lab_record(name):
    config = load_config(name)
    assert isinstance(config, ml_collections.ConfigDict) and config.is_locked
    assert isinstance(config.seed, int)
    spec = importlib.util.find_spec(f"twinreel.configs.{name}")
    assert spec is not None and spec.loader is not None
    source = spec.loader.get_data(spec.origin).decode()
    record = source.split('"""')[1].lower()
    assert "twinreel " in record, "the docstring gives the exact command"
    assert "not yet run" in record or "r@1" in record or "accuracy" in record, "and a score, or says that there is none"


def test_file_argument_and_overrides(file):
    config = load_config(
        f"{file}:7", overrides=["--config.optimizer.lr=0.5", "optimizer.name=lion", "optimizer.betas=[0.8, 0.9]"]
    )
    assert config.size == 7 and config.optimizer.lr == 0.5
    assert config.optimizer.name == "lion" and config.optimizer.betas == (0.8, 0.9)


def test_an_integer_fits_a_float_and_text_that_looks_like_a_number_fits_a_string(file):
    config = load_config(file, overrides=["optimizer.lr=1", "optimizer.name=12"])
    assert config.optimizer.lr == 1.0 and config.optimizer.name == "12"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.lr=1", r"no field 'optimiser\.lr'; did you mean 'optimizer\.lr'"),
        ("optimizer.lr.x=1", r"no field 'optimizer\.lr\.x'; did you mean 'optimizer\.lr'"),
        ("optimizer=1", r"no field 'optimizer'"),
        ("optimizer.=1", r"no field 'optimizer\.'"),
        ("lr=1", r"no field 'lr'; did you mean 'optimizer\.lr'"),
        ("optimizer.lr=fast", r"'optimizer\.lr' is of type float, got 'fast'"),
        ("size", r"no value; write --config\.size=VALUE"),
    ],
)
def test_bad_overrides_are_explained(file, override, message):
    with pytest.raises(UserError, match=message):
        load_config(file, overrides=[override])


def test_a_field_that_the_file_leaves_to_its_default_can_be_set_and_its_section_names_typos(file):
    def optimizer(*, lr: float, name: str, betas: tuple, ema_decay: float = 0.0, frozen: tuple[str, ...] = ()):
        return ema_decay, frozen

    config = load_config(file, overrides=["optimizer.ema_decay=0.99", "optimizer.frozen=('^video/',)"])
    assert config.is_locked and config.optimizer.is_locked
    assert section(optimizer, config.optimizer, name="optimizer") == (0.99, ("^video/",))
    config = load_config(file, overrides=["optimizer.ema_decy=0.99"])
    with pytest.raises(UserError, match=r"field of config\.optimizer 'ema_decy'; did you mean 'ema_decay'"):
        section(optimizer, config.optimizer, name="optimizer")
    config = load_config(file, overrides=["optimizer.ema_decay=much"])
    with pytest.raises(UserError, match=r"config\.optimizer\.ema_decay must be a number, got 'much'"):
        section(optimizer, config.optimizer, name="optimizer")


def test_unknown_configs_are_explained(tmp_path):
    with pytest.raises(UserError, match=r"unknown config 'dmo'; did you mean 'demo'"):
        load_config("dmo")
    with pytest.raises(UserError, match="does not exist"):
        load_config(str(tmp_path / "absent.py"))
    empty = tmp_path / "empty.py"
    empty.write_text("")
    with pytest.raises(UserError, match="has no function get_config"):
        load_config(str(empty))


def test_difference_names_each_changed_field(file):
    old, new = load_config(file), load_config(file, overrides=["size=9", "optimizer.lr=0.1"])
    assert difference(to_json(old), to_json(new)) == ["optimizer.lr: 0.001 -> 0.1", "size: 4 -> 9"]
    assert flatten(old)["optimizer.lr"] == 0.001
