"""The application: the page, the API, and films and pictures of the index by their ids (FastAPI)."""

import importlib.resources
import tempfile
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, UploadFile  # pyright: ignore[reportMissingImports]
from fastapi.exceptions import RequestValidationError  # pyright: ignore[reportMissingImports]
from fastapi.responses import (  # pyright: ignore[reportMissingImports]
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
)
from pydantic import BaseModel, ConfigDict, Field

from ... import __version__
from ...base.errors import UserError
from ...pages.page import style_sheet
from ..search.engine import SearchOptions
from ..search.filters import Filters
from ..search.outputs import results_text
from .batching import Busy
from .cutlist_api import Form, add_cutlist, attachment
from .docs import docs_page
from .encode_api import add_encode, display_name, keep
from .guard import COOKIE, HEALTH, Guard, GuardOptions
from .media_api import add_media
from .metrics import CONTENT_TYPE, Measured
from .service import LONGEST_TEXT, Asked, Service, hit_for_page

_SCRIPTS = ("app.js", "collections.js", "common.js", "map.js", "player.js", "record.js")
_STATIC = {**dict.fromkeys(_SCRIPTS, "text/javascript"), "app.css": "text/css", "icon.svg": "image/svg+xml"}


class SearchRequest(BaseModel):
    """What is looked for, and where."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field("", max_length=LONGEST_TEXT, description='words, "phrases", -what to avoid, ^weights')
    within: str = Field("", pattern="^(video|audio|transcript)?$", description="where texts are looked for")
    moments: dict[int, float] = Field({}, max_length=16, description="moments that are looked for, with weights")
    uploads: dict[str, float] = Field({}, max_length=16, description="uploads that are looked for, with weights")
    limit: int = Field(24, ge=1, le=200)
    fold: float = Field(0.0, ge=0, le=1, description="cosine from which on files count as nearly the same; 0 = never")
    labels: list[str] = Field([], max_length=50)
    after: str = Field("", max_length=30, description="last written on this day or later, YYYY-MM-DD")
    before: str = Field("", max_length=30)
    min_duration: float | None = Field(None, ge=0)
    max_duration: float | None = Field(None, ge=0)

    def asked(self) -> Asked:
        """Return it as the service takes it."""
        names = ("after", "before", "min_duration", "max_duration")
        return Asked(
            text=self.text,
            within=self.within,
            moments=self.moments,
            uploads=self.uploads,
            filters=Filters(labels=tuple(self.labels), **{name: getattr(self, name) for name in names}),
            options=SearchOptions(limit=self.limit, fold=self.fold),
        )


class MapAnswer(BaseModel):
    """Moments as points in the plane; those that look alike are near each other."""

    method: str = Field(description="PCA, or t-SNE once it is computed")
    final: bool = Field(description="false: ask again in some seconds for a better map")
    of: int = Field(description="moments of the index; a map has at most 5,000 of them")
    points: list[tuple[float, float, int, int]] = Field(description="x and y from 0 to 1, moment, file")
    names: dict[int, str] = Field(description="file -> name")


def create_app(service: Service, *, options: GuardOptions) -> Measured:
    """Return the application, with its guard around it, and what counts the answers of both.

    Args:
      service: what answers.
      options: limits of requests.
    """
    app = FastAPI(
        title="twinreel",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        redirect_slashes=False,  # a redirection would repeat the Host that a client names
    )
    app.add_exception_handler(UserError, _user_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Busy, _busy)
    _add_page(app, options=options)
    _add_service(app, service)
    _add_api(app, service)
    add_cutlist(app, service)
    add_encode(app, service)
    add_media(app, service)
    return Measured(Guard(app, options=options), metrics=service.metrics)


async def _user_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, status_code=422)


async def _busy(request: Request, error: Any) -> Response:
    return JSONResponse({"detail": error.detail}, status_code=503, headers={"retry-after": str(error.retry_s)})


async def _invalid(request: Request, error: Any) -> Response:
    """Say which field is wrong, without repeating what was sent."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or "the body"
    return JSONResponse({"detail": f"{field}: {first['msg']}"}, status_code=422)


def _add_page(app: FastAPI, *, options: GuardOptions) -> None:
    files = importlib.resources.files(__package__ or "").joinpath("static")
    texts = {name: files.joinpath(name).read_bytes() for name in ("index.html", *_STATIC)}
    texts["base.css"] = style_sheet().encode()
    types = _STATIC | {"base.css": "text/css"}

    @app.get("/", include_in_schema=False)
    def page(token: str = "") -> Response:
        if token and options.token:  # the guard has compared it; from now on the cookie carries it
            answer = RedirectResponse("/", status_code=303)
            answer.set_cookie(COOKIE, options.token, httponly=True, samesite="strict", max_age=30 * 86_400)
            return answer
        return HTMLResponse(texts["index.html"], headers={"cache-control": "no-cache"})

    @app.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        if name not in types:
            raise HTTPException(404, "no such file")
        return Response(texts[name], media_type=types[name], headers={"cache-control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        return HTMLResponse(docs_page(app.openapi()))


def _add_service(app: FastAPI, service: Service) -> None:
    async def health() -> JSONResponse:
        well = service.encoding.alive
        body = {"status": "ok" if well else "the model's threads have ended", "version": __version__}
        return JSONResponse(body, status_code=200 if well else 503)

    for path in HEALTH:
        app.get(path, summary="Whether the server answers (no token needed)", tags=["service"])(health)

    @app.get("/metrics", summary="Metrics in the text format of Prometheus", tags=["service"])
    def metrics() -> Response:
        return Response(service.metrics.text(service.facts()), media_type=CONTENT_TYPE)


def _add_api(app: FastAPI, service: Service) -> None:
    @app.get("/api/collection", summary="What is in the index", tags=["search"])
    def collection() -> dict[str, Any]:
        return service.facts() | {"hears": service.hears, "blurred": service.blurred is not None}

    @app.get("/api/map", summary="A map of the collection: moments as points", tags=["search"])
    def collection_map() -> MapAnswer:
        return MapAnswer(**service.map())

    @app.post("/api/search", summary="Find moments", tags=["search"])
    def find(request: SearchRequest) -> dict[str, Any]:
        results, terms = service.search(request.asked())
        return {
            "query": [term.shown() for term in terms],
            "unit": results.unit,
            "search": results.search,
            "moments": results.moments,
            "seconds": round(results.seconds, 4),
            "hits": [hit_for_page(hit) for hit in results.hits],
        }

    @app.post("/api/export", summary="Find moments and return them as a file", tags=["search"])
    def export(request: SearchRequest, form: Form) -> Response:
        results, terms = service.search(request.asked())
        return attachment(results_text(f".{form}", results=results, terms=terms), form=form)

    @app.post("/api/uploads", summary="Embed a clip, a picture or a sound to look for", tags=["search"])
    def upload(file: UploadFile, kind: Annotated[str, Query(pattern="^(like|sound)$")] = "like") -> dict[str, str]:
        with tempfile.TemporaryDirectory(prefix="twinreel-") as folder:
            return service.upload(keep(file, folder=folder), name=display_name(file), kind=kind)
