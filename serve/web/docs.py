"""The description of the API as a page, made of its OpenAPI schema, without a request to anywhere else."""

from typing import Any

from ... import __version__
from ...pages.markup import Html, join, tag


def docs_page(schema: dict[str, Any]) -> str:
    """Return the page of an OpenAPI schema: a section for each operation with its parameters and fields."""
    sections = [
        _operation(method.upper(), path, about, schema=schema)
        for path, methods in schema["paths"].items()
        for method, about in methods.items()
    ]
    link = tag("a", "openapi.json", href="/api/openapi.json")
    head = Html(
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>twinreel: API</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="stylesheet" href="/static/base.css"></head><body><main>'
    )
    top = tag("header", tag("h1", "HTTP API"), tag("p", f"twinreel {__version__} · ", link), class_="top")
    return f"{head}{top}{join(sections)}</main></body></html>"


def _operation(method: str, path: str, about: dict[str, Any], *, schema: dict[str, Any]) -> Html:
    rows = [
        _row(one["name"], one["schema"], f"in the {one['in']}. {one.get('description', '')}")
        for one in about.get("parameters", ())
    ]
    for kind, content in about.get("requestBody", {}).get("content", {}).items():
        name = content["schema"].get("$ref", "").rsplit("/", 1)[-1]
        fields = schema.get("components", {}).get("schemas", {}).get(name, {}).get("properties", {})
        rows += [_row(field, value, f"{kind}. {value.get('description', '')}") for field, value in fields.items()]
    table = tag("div", tag("table", tag("tbody", *rows)), class_="wide") if rows else Html("")
    return tag("section", tag("h2", tag("code", f"{method} {path}")), tag("p", about.get("summary", "")), table)


def _row(name: str, schema: dict[str, Any], note: str) -> Html:
    kind = schema.get("type") or " or ".join(one.get("type", "") for one in schema.get("anyOf", ()))
    limits = {key: schema[key] for key in ("pattern", "minimum", "maximum", "maxLength") if key in schema}
    text = ", ".join([str(kind), *(f"{key} {value}" for key, value in limits.items())])
    return tag("tr", tag("th", name), tag("td", text, class_="text"), tag("td", note, class_="text"))
