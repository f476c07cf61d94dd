"""Load an experiment's ConfigDict by file or by shipped name, and change its fields from the command line."""

import ast
import difflib
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import ml_collections

from .errors import UserError, nearest, unknown

# A config in signatures. To the type checker its fields can be anything: `section` checks them at run time.
if TYPE_CHECKING:
    Config = Any
else:
    Config = ml_collections.ConfigDict

CONFIGS = Path(__file__).parent.parent / "configs"
"""Folder of the shipped experiments."""
NOT_EXPERIMENTS = {"__init__", "common"}
"""Names of the files in that folder that hold no config."""


def shipped() -> list[str]:
    """Return the names of the configs that ship with twinreel."""
    return sorted(p.stem for p in CONFIGS.glob("*.py") if p.stem not in NOT_EXPERIMENTS)


def load_config(spec: str, *, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Load a config and apply overrides.

    Args:
      spec: a shipped name (`demo`) or the path of a Python file with `get_config`, either followed by `:args`,
        which is handed to `get_config(args)` as a string.
      overrides: `--config.KEY=VALUE` or `KEY=VALUE` strings; KEY is a dotted path to a field, VALUE a Python literal
        or, failing that, a string. The field's section must exist in the config; the field itself may be one that the
        config leaves to its default, and is then checked by `section`, where the section is used.

    Returns:
      A locked ConfigDict.

    Raises:
      UserError: no such config, no such section or top-level field (the nearest one is named), or a value of the
        wrong type.
    """
    path, _, arg = spec.partition(":")
    module = _module(path)
    if not hasattr(module, "get_config"):
        raise UserError(f"config {path!r} has no function get_config(arg) -> ConfigDict; add one")
    try:
        config = module.get_config(arg) if arg else module.get_config()
    except TypeError as error:
        raise UserError(f"config {path!r} refused its argument {arg!r}: {error}") from error
    config.lock()
    for item in overrides:
        _override(config, item)
    return config


def _module(path: str) -> ModuleType:
    file = Path(path) if path.endswith(".py") else CONFIGS / f"{path}.py"
    if not path.endswith(".py") and path not in shipped():
        raise unknown("config", path, shipped())
    if not file.is_file():
        raise UserError(f"config file {path!r} does not exist; give a .py file or one of: {', '.join(shipped())}")
    spec = importlib.util.spec_from_file_location(f"twinreel_config_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _override(config: ml_collections.ConfigDict, item: str) -> None:
    key, equals, text = item.removeprefix("--config.").partition("=")
    if not equals:
        raise UserError(f"override {item!r} has no value; write --config.{key}=VALUE")
    known = flatten(config)
    value = _literal(text)
    if key not in known:
        _add(config, key=key, value=value)
        return
    if isinstance(known[key], str) and not isinstance(value, str):
        value = text
    if isinstance(known[key], tuple) and isinstance(value, list):
        value = tuple(value)
    try:
        config.update_from_flattened_dict({key: value})
    except (TypeError, ValueError) as error:
        wanted = type(known[key]).__name__
        raise UserError(f"config field {key!r} is of type {wanted}, got {text!r}: {error}") from error


def _add(config: ml_collections.ConfigDict, *, key: str, value: Any) -> None:
    """Set a field that its section does not list; whether the section takes it is for `section` to say."""
    parent, _, field = key.rpartition(".")
    place = _subsection(config, parent) if parent and field else None
    if place is None or isinstance(place.get(field), ml_collections.ConfigDict):
        known = flatten(config)
        hint = nearest(key, known) or _same_ending(key, known)
        suggestion = f"; did you mean {hint!r}?" if hint else ""
        raise UserError(f"config has no field {key!r}{suggestion} (its fields: {', '.join(sorted(known))})")
    with place.unlocked():
        place[field] = value


def _subsection(config: ml_collections.ConfigDict, path: str) -> ml_collections.ConfigDict | None:
    for name in path.split("."):
        found = config.get(name)
        if not isinstance(found, ml_collections.ConfigDict):
            return None
        config = found
    return config


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _same_ending(key: str, known: dict[str, Any]) -> str | None:
    """The known field whose last part is nearest to the last part of `key` (`lr` finds `optimizer.lr`)."""
    by_ending = {name.split(".")[-1]: name for name in known}
    hint = difflib.get_close_matches(key.split(".")[-1], list(by_ending), n=1, cutoff=0.6)
    return by_ending[hint[0]] if hint else None


def flatten(config: ml_collections.ConfigDict | dict[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Return `{dotted key: value}` of all leaves of a config."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, (ml_collections.ConfigDict, dict)):
            leaves |= flatten(value, prefix=f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves


def to_json(config: Config) -> dict[str, Any]:
    """Return the config as a plain nested dict of JSON values (tuples become lists)."""
    return json.loads(config.to_json())


def difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return one line per field in which two configs (nested dicts) differ: `key: old -> new`."""
    a, b = flatten(old), flatten(new)
    missing = "(absent)"
    return [
        f"{key}: {a.get(key, missing)!r} -> {b.get(key, missing)!r}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key, missing) != b.get(key, missing)
    ]
