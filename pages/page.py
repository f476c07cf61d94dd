"""The shell that all reports share: an HTML file that opens from disk, without network and fonts.

Scripts only add to a page: without them everything that it states can be read.
"""

import importlib.resources
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template
from typing import Any

from .. import __version__
from .markup import Html, escape, join, tag

_PACKAGE = __name__.rpartition(".")[0]


def write_page(
    path: Path,
    *,
    kind: str,
    title: str,
    subtitle: str,
    sections: Iterable[Html],
    footer: object,
    variables: Mapping[str, str] | None = None,
) -> Path:
    """Write a report's page in UTF-8. The file is whole or absent: it is written under another name and renamed.

    Args:
      path: the file, `index.html` of the report's folder; the folder exists.
      kind: what the page reports, such as "zero-shot retrieval"; stands above the title and in the window's title.
      title: the heading.
      subtitle: one line below it.
      sections: the blocks of the page in their order; empty ones are left out.
      footer: follows "Made by twinreel VERSION."; escaped unless `Html`.
      variables: custom properties of the style sheet without their hyphens, such as `{"shape": "4 / 3"}`.

    Returns:
      The path.
    """
    page = Template(_template("page.html")).substitute(
        kind=escape(kind),
        title=escape(title),
        subtitle=escape(subtitle),
        style=_template("style.css"),
        variables="".join(f" --{name}: {value};" for name, value in (variables or {}).items()),
        body=join((section for section in sections if section), by="\n"),
        version=escape(__version__),
        footer=escape(footer),
    )
    return _write(path, text=page)


def section(title: str, *parts: object) -> Html:
    """Return a section of the page: a heading and its content, escaped unless `Html`."""
    return tag("section", tag("h2", title), *parts)


def paragraph(*parts: object, class_: str = "") -> Html:
    """Return a paragraph. Classes: "aside" (small, muted), "bad" (a warning)."""
    return tag("p", *parts, class_=class_)


def details(summary: str, *parts: object) -> Html:
    """Return content that is folded until the reader opens it."""
    return tag("details", tag("summary", summary), *parts)


def style_sheet() -> str:
    """Return the style sheet that all pages share."""
    return _template("style.css")


def script(name: str) -> Html:
    """Return a script of `templates/` as an element of the page."""
    return tag("script", Html(_template(name)))


def write_data(path: Path, *, name: str, value: Any) -> Path:
    """Write JSON values as a script that sets `window.NAME`: a page from disk may load scripts, but no other files.

    Args:
      path: the file; it is whole or absent.
      name: of the variable.
      value: JSON values; finite numbers only.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return _write(path, text=f"window.{name} = {text};\n")


def _write(path: Path, *, text: str) -> Path:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    return partial.replace(path)


def _template(name: str) -> str:
    return importlib.resources.files(_PACKAGE).joinpath("templates", name).read_text(encoding="utf-8")
