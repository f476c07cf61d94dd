"""Configs by name, by file and by override; typos are named with the nearest field."""

import importlib.util

import ml_collections
import pytest

from twinreel.base.config import CONFIGS, difference, flatten, load_config, shipped, to_json
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
    scores = ("not yet run", "r@1", "accuracy", "auc", "f mean")
    assert any(score in record for score in scores), "and a score, or says that there is none"


def test_file_argument_and_overrides(file):
    config = load_config(
        f"{file}:7", overrides=["--config.optimizer.lr=0.5", "optimizer.name=lion", "optimizer.betas=[0.8, 0.9]"]
    )
    assert config.size == 7 and config.optimizer.lr == 0.5
    assert config.optimizer.name == "lion" and config.optimizer.betas == (0.8, 0.9)


def test_a_dict_takes_the_place_of_a_section_and_adds_one_to_a_section(file):
    config = load_config(file, overrides=["optimizer={'lr': 2}", "optimizer.name=lion"])
    assert config.optimizer.to_dict() == {"lr": 2, "name": "lion"} and config.is_locked
    config = load_config(file, overrides=["optimizer.extra={'a': 1}", "optimizer.extra.b=2"])
    assert config.optimizer.extra.to_dict() == {"a": 1, "b": 2} and config.optimizer.name == "adamw"


def test_an_integer_fits_a_float_and_text_that_looks_like_a_number_fits_a_string(file):
    config = load_config(file, overrides=["optimizer.lr=1", "optimizer.name=12"])
    assert config.optimizer.lr == 1.0 and config.optimizer.name == "12"


def test_overrides_add_an_optional_section_with_the_sections_in_it(file):
    """Few configs name `adapt`; its fields are checked where it is read."""
    config = load_config(file, overrides=["--config.adapt.lora.rank=4", "adapt.bitfit={}", "adapt.lora.layers=up$"])
    assert config.adapt.to_dict() == {"lora": {"rank": 4, "layers": "up$"}, "bitfit": {}}
    config = load_config(file, overrides=["adapt.lora.rank=4", "adapt={'dora': {}}", "adapt.dora.rank=2"])
    assert config.adapt.to_dict() == {"dora": {"rank": 2}}
    assert "adapt" not in load_config(file)
    with pytest.raises(UserError, match=r"config has no field 'adpat\.lora'"):
        load_config(file, overrides=["adpat.lora={}"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.lr=1", r"no field 'optimiser\.lr'; did you mean 'optimizer\.lr'"),
        ("optimizer.lr.x=1", r"no field 'optimizer\.lr\.x'; did you mean 'optimizer\.lr'"),
        ("optimizer=1", r"no field 'optimizer'"),
        ("optimizer.=1", r"no field 'optimizer\.'"),
        ("lr=1", r"no field 'lr'; did you mean 'optimizer\.lr'"),
        ("optimizer.lr=fast", r"config\.optimizer\.lr must be a number, got 'fast'$"),
        ("optimizer.lr='0.1'", r"config\.optimizer\.lr must be a number, got '0\.1'; write 0\.1"),
        ("size=5.0", r"config\.size must be an integer, got 5\.0; write 5"),
        ("size=True", r"config\.size must be an integer, got True"),
        ("optimizer.betas=0.9", r"config\.optimizer\.betas must be a tuple, got 0\.9; write \(0\.9,\)"),
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


def test_one_string_for_a_tuple_is_refused_whether_the_file_lists_the_field_or_not(tmp_path):
    def optimizer(*, frozen: tuple[str, ...] = ()):
        return frozen

    for listed in ("frozen=()", ""):
        path = tmp_path / "mine.py"
        path.write_text(f"""
import ml_collections

def get_config():
    return ml_collections.ConfigDict(dict(optimizer=dict({listed})))
""")
        config = load_config(str(path), overrides=["optimizer.frozen=['^text/']"])
        assert section(optimizer, config.optimizer, name="optimizer") == ("^text/",)
        for text in ("'^text/'", "('^text/')", "^text/"):
            with pytest.raises(
                UserError, match=r"frozen must be a tuple of strings, got '\^text/'; write \('\^text/',\)"
            ):
                config = load_config(str(path), overrides=[f"optimizer.frozen={text}"])
                section(optimizer, config.optimizer, name="optimizer")


ARGUMENTS = """
import ml_collections

def get_config({parameters}):
    return ml_collections.ConfigDict(dict(got={name}))
"""


@pytest.mark.parametrize(
    ("parameters", "given", "got"),
    [
        ("size: int = 4", "", 4),
        ("size: int = 4", ":7", 7),
        ("rate: float = 1.0", ":2", 2.0),
        ("name: str = 'a'", ":7", "7"),
        ("name='a'", ":b:c", "b:c"),
        ("on: bool = False", ":True", True),
        ("name: int | str = ''", ":7", "7"),
        ("*names", ":b", ("b",)),
    ],
)
def test_the_argument_is_what_the_signature_declares(tmp_path, parameters, given, got):
    path = tmp_path / "mine.py"
    name = parameters.strip("*").split(":")[0].split("=")[0]
    path.write_text(ARGUMENTS.format(parameters=parameters, name=name))
    assert load_config(f"{path}{given}").got == got


@pytest.mark.parametrize(
    ("parameters", "given", "message"),
    [
        ("size: int = 4", ":abc", r"size \(the argument in --config .*:abc\) must be an integer, got 'abc'"),
        ("size: int = 4", ":0.5", "must be an integer, got 0.5"),
        ("on: bool = False", ":maybe", "must be True or False, got 'maybe'"),
        ("", ":abc", "takes no argument, got 'abc'"),
        ("*, size=1", ":abc", "takes no argument, got 'abc'"),
        ("size", "", r"needs an argument \(size\); write --config .*:VALUE"),
        ("size, depth", ":3", "takes one argument; give 'depth' a default value"),
    ],
)
def test_an_argument_that_does_not_fit_the_signature_is_explained(tmp_path, parameters, given, message):
    path = tmp_path / "mine.py"
    path.write_text(ARGUMENTS.format(parameters=parameters, name="1"))
    with pytest.raises(UserError, match=message):
        load_config(f"{path}{given}")


@pytest.mark.parametrize("name", shipped())
def test_shipped_configs_explain_an_argument_that_they_do_not_take(name):
    with pytest.raises(UserError, match=r"(must be an integer|takes no argument), got 'abc'|unknown argument .*'abc'"):
        load_config(f"{name}:abc")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    return int('x' + arg)", r"failed at .*mine\.py:3: `return int\('x' \+ arg\)`: ValueError: invalid"),
        ("    return len(5)", r"failed at .*mine\.py:3: .*TypeError: object of type 'int'"),
        ("    return helper(arg)\n\ndef helper(arg):\n    return {}[arg]", r"mine\.py:6: .*KeyError"),
        ("    import json\n    return json.loads(arg)", r"mine\.py:4: `return json\.loads\(arg\)`: JSONDecodeError"),
        ("    return (", r"is not valid Python: .*mine\.py:3: '\(' was never closed"),
        ("    return 3\n\nimport no_such_module", r"mine\.py:5: .*No module named 'no_such_module'"),
        ("    arg = 3", r"must return an ml_collections\.ConfigDict, got NoneType; end it with `return c`"),
        ("    return dict(a=1)", r"must return an ml_collections\.ConfigDict, got dict"),
    ],
)
def test_an_error_inside_a_config_names_the_file_and_the_line(tmp_path, body, message):
    path = tmp_path / "mine.py"
    path.write_text(f"\ndef get_config(arg='a'):\n{body}\n")
    with pytest.raises(UserError, match=message):
        load_config(str(path))


def test_a_path_may_hold_a_colon(tmp_path):
    (tmp_path / "a:b").mkdir()
    path = tmp_path / "a:b" / "mine.py"
    path.write_text(FILE)
    assert load_config(str(path)).size == 4 and load_config(f"{path}:5").size == 5


def test_no_shipped_config_copies_lines_of_another():
    seen = {}
    for name in shipped():
        code = (CONFIGS / f"{name}.py").read_text().split("def get_config")[1].split('"""')[-1]
        lines = [line.strip() for line in code.splitlines() if line.strip()]
        for four in zip(*(lines[i:] for i in range(4)), strict=False):
            assert seen.setdefault(four, name) == name, f"{name} repeats {four}"


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
