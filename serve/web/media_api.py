"""The part of the API that shows: films, pictures and thumbnails of the index by their numbers."""

import os
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query  # pyright: ignore[reportMissingImports]
from fastapi.responses import FileResponse, Response  # pyright: ignore[reportMissingImports]

from ...base.errors import UserError
from ...data.media.decode import DecodeError
from ..search.collection import FileInfo
from .blurred import LONGEST_S
from .service import Service

_TYPES = {
    **{
        ".mp4": "video/mp4",
        ".m4v": "video/mp4",
        ".mov": "video/mp4",
        ".webm": "video/webm",
        ".mkv": "video/x-matroska",
    },
    **{".ogv": "video/ogg", ".gif": "image/gif", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"},
    **{".webp": "image/webp", ".bmp": "image/bmp"},
}
"""What films and pictures are served as; everything else is bytes that a browser does not show."""

_CACHED = {"cache-control": "private, max-age=3600"}
_Seconds = Annotated[float, Query(ge=0, le=1e7)]


def add_media(app: FastAPI, service: Service) -> None:
    """Add the routes to an application."""

    @app.get("/media/{file}", summary="A film or picture of the index, with ranges", tags=["media"])
    def media(file: int) -> Response:
        if service.blurred is not None:
            raise HTTPException(403, f"faces are blurred in this index: ask for /stretches/{file}")
        info, found = _unchanged(service, file)
        path = Path(info.path)
        kind = _TYPES.get(path.suffix.lower(), "application/octet-stream")
        return FileResponse(path, media_type=kind, stat_result=found, headers=_CACHED)

    @app.get("/stretches/{file}", summary="A stretch of a film, or a picture, with faces blurred", tags=["media"])
    def stretch(file: int, start_s: _Seconds = 0.0, end_s: _Seconds = LONGEST_S) -> Response:
        if service.blurred is None:
            raise HTTPException(404, f"faces are not blurred in this index: ask for /media/{file}")
        if not 0 < end_s - start_s <= LONGEST_S:
            raise UserError(f"start_s is {start_s:g} and end_s {end_s:g}; wanted 0 to {LONGEST_S:g} s between them")
        info, found = _unchanged(service, file)
        span = None if info.fps is None else (start_s, end_s)
        try:
            made = service.blurred.made(Path(info.path), file=file, mtime_ns=found.st_mtime_ns, span=span)
        except DecodeError as error:
            raise HTTPException(422, str(error)) from error
        return FileResponse(made, media_type="image/jpeg" if span is None else "video/mp4", headers=_CACHED)

    @app.get("/thumbnails/{moment}", summary="A small picture of a moment (WebP)", tags=["media"])
    def thumbnail(moment: int) -> Response:
        found = service.thumbnail(moment) if 0 < moment < 2**62 else None
        if found is None:
            raise HTTPException(404, "no such picture")
        return Response(found, media_type="image/webp", headers=_CACHED)


def _unchanged(service: Service, file: int) -> tuple[FileInfo, os.stat_result]:
    """Return what is known of a file, and its state on the disk, if that is still the one that was indexed."""
    info = service.file(file) if 0 < file < 2**62 else None
    if info is None:
        raise HTTPException(404, "the index has no such file")
    try:
        found = Path(info.path).stat()
    except OSError as error:
        raise HTTPException(410, "the file is gone since it was indexed") from error
    if (found.st_mtime_ns, found.st_size) != (info.mtime_ns, service.size(file)):
        raise HTTPException(410, "the file has changed since it was indexed; run `twinreel index` again")
    return info, found
