"""The part of the API that embeds: texts and files of a request to float32 vectors, as JSON, base64 or npz."""

import base64
import io
import re
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, File, Form, Query, UploadFile  # pyright: ignore[reportMissingImports]
from fastapi.responses import JSONResponse, Response  # pyright: ignore[reportMissingImports]
from pydantic import BaseModel, ConfigDict, Field

from ...base.errors import UserError
from .service import LONGEST_TEXT, Service

MOST_TEXTS = 256
"""Texts of a request."""
MOST_FILES = 32
"""Files of a request."""

_BLOCK = 2**20

Text = Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]
Answer = Annotated[str, Query(alias="as", pattern="^(json|base64|npz)$", description="json, base64 or npz")]


class EncodeRequest(BaseModel):
    """Texts to embed."""

    model_config = ConfigDict(extra="forbid")
    texts: list[Text] = Field(min_length=1, max_length=MOST_TEXTS, description="each at most 1,000 characters")


class Row(BaseModel):
    """What a row of the embeddings stands for."""

    kind: str = Field(description="text, video or audio")
    item: int = Field(description="number of the text or file among those of its kind in the request, from 0")
    start_s: float | None = Field(default=None, description="of a moment of a film")
    end_s: float | None = None


class Encoded(BaseModel):
    """The embeddings of a request, rows of unit length."""

    model: str
    weights: str = Field(description="SHA-256 of the model's parameters: embeddings of other weights do not compare")
    width: int
    rows: list[Row]
    embeddings: list[list[float]] | None = Field(None, description="of as=json")
    base64: str | None = Field(None, description="of as=base64: little-endian float32 [rows,width] in base64")


_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Encoded,
        "description": "Embeddings; of as=npz the arrays embeddings, kind, item, start_s, end_s",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    413: {"description": "The request is too large"},
    503: {"description": "Too many rows wait; ask again after Retry-After seconds"},
}


def add_encode(app: FastAPI, service: Service) -> None:
    """Add the routes to an application."""

    @app.post("/api/encode", summary="Embed texts", tags=["encode"], responses=_ANSWERS)
    def encode(request: EncodeRequest, form: Answer = "json") -> Response:
        return _answer(service, list(request.texts), files=[], kind="like", form=form)

    @app.post("/api/encode/files", summary="Embed files, and texts beside them", tags=["encode"], responses=_ANSWERS)
    def encode_files(
        files: Annotated[list[UploadFile], File(description=f"at most {MOST_FILES} films, pictures or sounds")],
        texts: Annotated[list[Text] | None, Form(max_length=MOST_TEXTS)] = None,
        kind: Annotated[str, Query(pattern="^(like|sound)$", description="like: pictures; sound")] = "like",
        form: Answer = "json",
    ) -> Response:
        if len(files) > MOST_FILES:
            raise UserError(f"the request has {len(files)} files; wanted at most {MOST_FILES}")
        return _answer(service, texts or [], files=files, kind=kind, form=form)


def display_name(file: UploadFile) -> str:
    """Return what the client called an upload, for messages: no folders, no control characters."""
    return re.sub(r"[^\w. -]", "_", Path(file.filename or "upload").name)[-80:]


def keep(file: UploadFile, *, folder: str, number: int = 0) -> Path:
    """Write the content of an upload to a file of a folder; return its path."""
    suffix = Path(display_name(file)).suffix.lower()
    path = Path(folder) / f"{number}{suffix if suffix[1:].isalnum() else ''}"
    with path.open("wb") as copy:
        while block := file.file.read(_BLOCK):
            copy.write(block)
    return path


def _answer(service: Service, texts: list[str], *, files: list[UploadFile], kind: str, form: str) -> Response:
    """Embed, and write the answer."""
    rows = [Row(kind="text", item=number) for number in range(len(texts))]
    found = [service.encoding.texts(texts)] if texts else []
    with tempfile.TemporaryDirectory(prefix="twinreel-") as folder:
        kept = [(keep(file, folder=folder, number=i), display_name(file)) for i, file in enumerate(files)]
        encoded = service.encoding.files(kept, kind=kind) if kept else []
    for number, file in enumerate(encoded):
        spans = file.spans or [(None, None)] * len(file.vectors)
        rows += [Row(kind=file.side, item=number, start_s=start, end_s=end) for start, end in spans]
        found.append(file.vectors)
    vectors = np.concatenate(found).astype("<f4")
    if form == "npz":
        return _npz(rows, vectors)
    model = service.model
    answer: dict[str, Any] = {"model": model.name, "weights": model.weights, "width": vectors.shape[1]}
    answer["rows"] = [row.model_dump(exclude_none=True) for row in rows]
    if form == "json":
        return JSONResponse(answer | {"embeddings": vectors.tolist()})
    return JSONResponse(answer | {"base64": base64.b64encode(vectors.tobytes()).decode()})


def _npz(rows: list[Row], vectors: np.ndarray) -> Response:
    arrays: dict[str, Any] = {
        "embeddings": vectors,
        "kind": np.array([row.kind for row in rows]),
        "item": np.array([row.item for row in rows], np.int32),
        "start_s": np.array([np.nan if row.start_s is None else row.start_s for row in rows], np.float32),
        "end_s": np.array([np.nan if row.end_s is None else row.end_s for row in rows], np.float32),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    headers = {"content-disposition": 'attachment; filename="embeddings.npz"'}
    return Response(buffer.getvalue(), media_type="application/octet-stream", headers=headers)
