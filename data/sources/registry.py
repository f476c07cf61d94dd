"""All benchmarks that `prepare` knows by name. A new one: write `data/sources/NAME.py`, add its SOURCES here."""

from ...configs.errors import unknown
from . import msrvtt
from .source import Source

SOURCES: dict[str, Source] = {source.name: source for source in (*msrvtt.SOURCES,)}


def get_source(name: str) -> Source:
    """Return the source of that name.

    Raises:
      UserError: there is none; names the nearest.
    """
    if name not in SOURCES:
        raise unknown("benchmark", name, SOURCES)
    return SOURCES[name]
