"""The shell that all reports share: one HTML file that opens from disk, without network, fonts or scripts."""

import importlib.resources
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template

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
    partial = path.with_name(path.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    return partial.replace(path)


def section(title: str, *parts: object) -> Html:
    """Return a section of the page: a heading and its content, escaped unless `Html`."""
    return tag("section", tag("h2", title), *parts)


def paragraph(*parts: object, class_: str = "") -> Html:
    """Return a paragraph. Classes: "aside" (small, muted), "bad" (a warning)."""
    return tag("p", *parts, class_=class_)


def details(summary: str, *parts: object) -> Html:
    """Return content that is folded until the reader opens it."""
    return tag("details", tag("summary", summary), *parts)


def _template(name: str) -> str:
    return importlib.resources.files(_PACKAGE).joinpath("templates", name).read_text(encoding="utf-8")
