"""The part of the API that writes a collection, stretches that a user has kept, in the forms of `search --out`."""

from typing import Annotated

from fastapi import FastAPI, Query  # pyright: ignore[reportMissingImports]
from fastapi.responses import Response  # pyright: ignore[reportMissingImports]
from pydantic import BaseModel, ConfigDict, Field

from ...base.errors import UserError
from ..search.engine import Hit, Results, Span
from ..search.outputs import results_text
from ..search.query import Term
from .service import Service


class Stretch(BaseModel):
    """A stretch of a file of the index."""

    model_config = ConfigDict(extra="forbid")
    file: int = Field(ge=1, lt=2**62)
    start_s: float = Field(ge=0, le=1e7)
    end_s: float = Field(ge=0, le=1e7)
    score: float = Field(default=0.0, ge=-1000, le=1000)


class CutList(BaseModel):
    """A collection."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=100, description="title of the cut list")
    stretches: list[Stretch] = Field(min_length=1, max_length=400)


Form = Annotated[str, Query(pattern="^(json|csv|m3u|edl|otio)$")]
"""In which form hits are written."""


def add_cutlist(app: FastAPI, service: Service) -> None:
    """Add the route to an application."""

    @app.post("/api/cutlist", summary="Write chosen stretches of files as a playlist or a cut list", tags=["search"])
    def cutlist(request: CutList, form: Form) -> Response:
        text = results_text(
            f".{form}", results=_results(service, request), terms=[Term(kind="text", value=request.name)]
        )
        return attachment(text, form=form)


def attachment(text: str, *, form: str) -> Response:
    """Return an answer that browsers save as a file."""
    headers = {"content-disposition": f'attachment; filename="twinreel.{form}"'}
    return Response(text, media_type="text/plain; charset=utf-8", headers=headers)


def _results(service: Service, request: CutList) -> Results:
    """Return the stretches as hits, in the order in which they were given."""
    hits = []
    for one in request.stretches:
        info = service.file(one.file)
        if info is None:
            raise UserError(
                f"the index has no file {one.file} any more; remove it from the collection {request.name!r}"
            )
        if one.end_s < one.start_s:
            raise UserError(f"a stretch of {info.path.rpartition('/')[2]} ends before it starts")
        span = Span(start_s=one.start_s, end_s=one.end_s, score=one.score)
        hits.append(Hit(file=info, moment=0, score=one.score, spans=(span,), strip=()))
    return Results(hits=tuple(hits), unit="cosine", search="chosen by hand", moments=len(hits), seconds=0.0)
