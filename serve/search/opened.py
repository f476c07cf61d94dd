"""The model with which an index was made, loaded to embed queries."""

import dataclasses

from ...base.errors import UserError
from ..index import database
from ..index.models import Opened, open_model
from .collection import Collection


def open_for(collection: Collection, *, given: str = "") -> Opened:
    """Load the model of an index, and check that it is the one that made its embeddings.

    Args:
      collection: the index.
      given: where the model lies now; "" = where it lay when the index was made.

    Raises:
      UserError: nothing readable there, or other weights.
    """
    row = collection.model
    source = given or row.source
    try:
        settings = collection.settings
        opened = open_model(source, name=row.name, fps=settings.fps, blur_faces=settings.blur_faces)
    except UserError as error:
        if given:
            raise
        raise UserError(
            f"the model {row.name!r} of the index cannot be loaded from {row.source} ({error}); give --model with "
            "where it lies now"
        ) from error
    check_model(opened, collection=collection)
    return dataclasses.replace(opened, row=row)


def check_model(opened: Opened, *, collection: Collection) -> None:
    """Raise UserError if a model is not the one that made the embeddings of an index."""
    row = collection.model
    if opened.row.weights == row.weights:
        return
    known = ", ".join(f"{model.name} ({model.source})" for model in database.read_models(collection.connection))
    raise UserError(
        f"{opened.row.source} (weights {opened.row.weights[:12]}, width {opened.row.width}) did not make the "
        f"embeddings of {row.name!r} in the index {collection.folder} (weights {row.weights[:12]}, width {row.width}); "
        f"its models: {known}. `twinreel index --out {collection.folder} --model {opened.row.source}` adds this one"
    )
