"""Load an experiment's ConfigDict by file or by shipped name, and change its fields from the command line."""

import ast
import difflib
import inspect
import json
import re
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_collections

from .errors import UserError, nearest, unknown
from .fields import fit, fits
from .python_file import module_of, naming_errors_in

# The type of a config in signatures. Type checkers accept every field of it: `section` checks them at run time.
if TYPE_CHECKING:
    Config = Any
else:
    Config = ml_collections.ConfigDict

CONFIGS = Path(__file__).parent.parent / "configs"
"""Folder of the shipped experiments."""
NOT_EXPERIMENTS = {"__init__", "common"}
"""Names of the files in that folder that hold no config."""
OPTIONAL_SECTIONS = {"adapt"}
"""Sections that overrides may add to a config."""


def shipped() -> list[str]:
    """Return the names of the configs that ship with twinreel."""
    return sorted(p.stem for p in CONFIGS.glob("*.py") if p.stem not in NOT_EXPERIMENTS)


def load_config(spec: str, *, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Load a config and apply overrides.

    Args:
      spec: a shipped name (`demo`) or the path of a Python file with `get_config`, either followed by `:ARG`, which is
        passed to the first parameter of `get_config` as the type that the parameter declares (a string by default).
      overrides: `--config.KEY=VALUE` or `KEY=VALUE` strings; KEY is a dotted path to a field, VALUE a Python literal
        or, failing that, a string. The field's section must exist in the config or lie in one of `OPTIONAL_SECTIONS`;
        the field itself may be one that the config leaves to its default, and is then checked by `section`, where the
        section is used. A dict takes the place of a whole section: `--config.evaluations={}`.

    Returns:
      A locked ConfigDict.

    Raises:
      UserError: no such config, an argument that it does not take, an error inside its file (with the line), no such
        section or top-level field (the nearest one is named), or a value of the wrong type.
    """
    path, arg = _split(spec)
    file = _file(path)
    with naming_errors_in(file, what=f"config {spec!r}"):
        module = module_of(file, kind="config")
    if not callable(getattr(module, "get_config", None)):
        raise UserError(f"config {path!r} has no function get_config(arg) -> ConfigDict; add one to {file}")
    arguments = _arguments(module.get_config, arg=arg, config=path)
    with naming_errors_in(file, what=f"config {spec!r}"):
        config = module.get_config(*arguments)
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(
            f"get_config in {file} must return an ml_collections.ConfigDict, got {type(config).__name__}"
            + ("; end it with `return c`" if config is None else "")
        )
    config.lock()
    for item in overrides:
        _override(config, item)
    return config


def with_overrides(config: Config, overrides: Sequence[str]) -> Config:
    """Return a copy of a config with overrides, which are those of `load_config`."""
    made = config.copy_and_resolve_references()
    made.lock()
    for item in overrides:
        _override(made, item)
    return made


def _split(spec: str) -> tuple[str, str]:
    """Split "demo:arg" or "folder/file.py:arg" into the config and its argument; a path may hold a colon itself."""
    file = re.fullmatch(r"(.+?\.py)(?::(.*))?", spec, re.DOTALL)
    if file:
        return file[1], file[2] or ""
    path, _, arg = spec.partition(":")
    return path, arg


def _file(path: str) -> Path:
    if not path.endswith(".py"):
        if path not in shipped():
            raise unknown("config", path, shipped())
        return CONFIGS / f"{path}.py"
    if not Path(path).is_file():
        raise UserError(f"config file {path!r} does not exist; give a .py file or one of: {', '.join(shipped())}")
    return Path(path)


def _arguments(function: Callable[..., Any], *, arg: str, config: str) -> tuple[Any, ...]:
    """Return the positional arguments for `get_config`: none, or the one after the colon.

    Raises:
      UserError: it takes no argument, lacks one, or declares another type than the argument has.
    """
    parameters = inspect.signature(function).parameters
    needed = [
        name
        for name, one in parameters.items()
        if one.default is one.empty and one.kind is not one.VAR_KEYWORD and one.kind is not one.VAR_POSITIONAL
    ]
    first = next((one for one in parameters.values() if one.kind not in (one.KEYWORD_ONLY, one.VAR_KEYWORD)), None)
    if not arg and needed:
        raise UserError(f"config {config!r} needs an argument ({', '.join(needed)}); write --config {config}:VALUE")
    if not arg:
        return ()
    if first is None:
        raise UserError(f"config {config!r} takes no argument, got {arg!r}; write --config {config}")
    if lacking := [name for name in needed if name != first.name]:
        raise UserError(f"get_config of config {config!r} takes one argument; give {lacking[0]!r} a default value")
    hint = typing.get_type_hints(function).get(first.name, str)
    value = arg if fits(arg, hint) else _literal(arg)
    return (fit(value, hint, field=f"{first.name} (the argument in --config {config}:{arg})"),)


def _override(config: ml_collections.ConfigDict, item: str) -> None:
    key, equals, text = item.removeprefix("--config.").partition("=")
    if not equals:
        raise UserError(f"override {item!r} has no value; write --config.{key}=VALUE")
    _make_optional(config, key=key)
    known = flatten(config)
    value = _literal(text)
    if isinstance(value, dict) and _subsection(config, key) is not None:
        _replace(config, key=key, section=value)
        return
    if key not in known:
        _add(config, key=key, value=value)
        return
    parent, _, field = key.rpartition(".")
    place = (_subsection(config, parent) if parent else None) or config
    declared = place.get_type(field)
    if declared is str and not isinstance(value, str):
        value = text
    if known[key] in ((), []):  # it does not show the type of its elements: `section` checks them
        with place.ignore_type():
            place[field] = tuple(value) if isinstance(value, list) else value
        return
    if declared in _CHECKED:
        value = fit(value, declared | None if known[key] is None else declared, field=f"config.{key}")
    try:
        place[field] = value
    except (TypeError, ValueError) as error:
        raise UserError(f"config.{key} is of type {declared.__name__}, got {text!r}: {error}") from error


def _make_optional(config: ml_collections.ConfigDict, *, key: str) -> None:
    """Add the sections of an optional one that the field needs and the config lacks."""
    first, *parents = key.split(".")
    if first not in OPTIONAL_SECTIONS:
        return
    place: Any = config
    for name in (first, *parents[:-1]):
        with place.unlocked():
            if not isinstance(place.get(name), ml_collections.ConfigDict):
                place[name] = ml_collections.ConfigDict()
        place = place[name]


_CHECKED = {int, float, bool, str, tuple, list}
"""Types of fields that are checked by the value in the config file."""


def _add(config: ml_collections.ConfigDict, *, key: str, value: Any) -> None:
    """Set a field that its section does not list; `section` rejects it later if nothing takes it."""
    parent, _, field = key.rpartition(".")
    place = _subsection(config, parent) if parent and field else None
    if place is None or isinstance(place.get(field), ml_collections.ConfigDict):
        known = flatten(config)
        hint = nearest(key, known) or _same_ending(key, known)
        suggestion = f"; did you mean {hint!r}?" if hint else ""
        raise UserError(f"config has no field {key!r}{suggestion} (its fields: {', '.join(sorted(known))})")
    with place.unlocked():
        place[field] = value


def _replace(config: ml_collections.ConfigDict, *, key: str, section: dict[str, Any]) -> None:
    """Put another section in the place of one."""
    parent, _, name = key.rpartition(".")
    place = (_subsection(config, parent) if parent else None) or config
    with place.unlocked():
        del place[name]
        place[name] = section


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
