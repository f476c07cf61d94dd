"""All benchmarks that `prepare` knows by name. A new one: write `data/sources/NAME.py`, add its SOURCES here."""

from ...base.errors import unknown
from ..sources import (
    actions,
    activitynet,
    anomaly,
    choices,
    didemo,
    howto100m,
    images,
    lsmdc,
    moments,
    msrvtt,
    msvd,
    questions,
    something,
    summaries,
    vatex,
    youcook2,
    youtube8m,
)
from .source import Source

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        *msrvtt.SOURCES,
        *msvd.SOURCES,
        *didemo.SOURCES,
        *activitynet.SOURCES,
        *lsmdc.SOURCES,
        *vatex.SOURCES,
        *youcook2.SOURCES,
        *howto100m.SOURCES,
        *actions.SOURCES,
        *something.SOURCES,
        *choices.SOURCES,
        *questions.SOURCES,
        *moments.SOURCES,
        *summaries.SOURCES,
        *anomaly.SOURCES,
        *images.SOURCES,
        *youtube8m.SOURCES,
    )
}


def get_source(name: str) -> Source:
    """Return the source of that name.

    Raises:
      UserError: there is none; names the nearest.
    """
    if name not in SOURCES:
        raise unknown("benchmark", name, SOURCES)
    return SOURCES[name]
