"""Prompt templates of zero-shot classification: sets that published work uses, and the user's own."""

import importlib.resources
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...base.errors import UserError, unknown

PLACE = "{}"
"""Where the class name goes in a template."""
DEFAULT = "plain"
_PACKAGE = __name__.rpartition(".")[0]


@dataclass(frozen=True, kw_only=True)
class Templates:
    """A set of templates.

    Attributes:
      name: of a shipped set, or the file.
      source: where the set comes from.
      templates: each with one `{}` for the class name.
    """

    name: str
    source: str
    templates: tuple[str, ...]

    def fill(self, text: str) -> list[str]:
        """Return one text per template for the name of a class.

        >>> Templates(name="", source="", templates=("a video of {}.", "{}, an action")).fill("archery")
        ['a video of archery.', 'archery, an action']
        """
        return [template.replace(PLACE, text) for template in self.templates]


def shipped() -> dict[str, Templates]:
    """Return the template sets that twinreel ships, by name.

    >>> {name: len(one.templates) for name, one in shipped().items()}
    {'clip_kinetics': 28, 'clip_ucf101': 48, 'actionclip': 16, 'plain': 1, 'name_only': 1}
    """
    text = importlib.resources.files(_PACKAGE).joinpath("templates.json").read_text(encoding="utf-8")
    return {
        name: Templates(name=name, source=one["source"], templates=tuple(one["templates"]))
        for name, one in json.loads(text).items()
    }


def load_templates(given: str) -> Templates:
    """Return a shipped set, or read a file.

    Args:
      given: the name of a shipped set; or a file, with one template per line (empty lines are ignored), or `.json` with
        a list of templates or `{"templates": [...]}`.

    Raises:
      UserError: neither a name nor a file; a file that cannot be read or has no template; a template without exactly
        one `{}`, or one that is there twice (the line is named).
    """
    known = shipped()
    if given in known:
        return known[given]
    path = Path(given)
    if not path.is_file():
        if path.suffix or "/" in given:
            raise UserError(f"--templates: file {given!r} does not exist; shipped sets: {', '.join(sorted(known))}")
        raise unknown("value of --templates (a file or a set)", given, known)
    numbered = _from_json(path) if path.suffix == ".json" else _from_lines(path)
    _check(numbered, path=path)
    return Templates(name=given, source=f"file {path.name}", templates=tuple(text for _, text in numbered))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--templates: {path} cannot be read as UTF-8 text: {error}") from error


def _from_lines(path: Path) -> list[tuple[str, str]]:
    lines = enumerate(_read(path).splitlines(), start=1)
    return [(f"line {number}", line.strip()) for number, line in lines if line.strip()]


def _from_json(path: Path) -> list[tuple[str, str]]:
    try:
        value: Any = json.loads(_read(path))
    except ValueError as error:
        raise UserError(f"--templates: {path} is no valid JSON: {error}") from error
    listed = value.get("templates") if isinstance(value, dict) else value
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise UserError(f'--templates: {path} must hold a list of texts, or {{"templates": [...]}}')
    return [(f"entry {number}", text) for number, text in enumerate(listed, start=1)]


def _check(numbered: Sequence[tuple[str, str]], *, path: Path) -> None:
    if not numbered:
        raise UserError(f"--templates: {path} has no template; write one per line, such as 'a video of {PLACE}.'")
    first: dict[str, str] = {}
    for place, text in numbered:
        if text.count(PLACE) != 1:
            raise UserError(
                f"--templates: {place} of {path}, {text!r}, has {text.count(PLACE) or 'no'} {PLACE}; wanted one, where "
                f"the class name goes, such as 'a video of {PLACE}.'"
            )
        if text in first:
            raise UserError(f"--templates: {place} of {path} repeats {first[text]}, {text!r}; remove one of them")
        first[text] = place
