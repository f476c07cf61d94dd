"""Gathering evidence: a clip against banks of texts, against an index, and its speech."""

import dataclasses
from pathlib import Path

import numpy as np

from ...base.errors import UserError
from ...data.clip import Sentence
from ...data.language.recogniser import Recogniser
from ...data.media.listen import decode_sound
from ...data.media.place import DecodeError
from ...data.subtitles import SUFFIXES, belongs, read_subtitles
from ..index import database
from ..index.database import Settings
from ..index.models import VIDEO, Opened
from ..search.collection import Collection
from ..search.engine import SearchOptions, search
from ..search.filters import Filters
from ..search.opened import check_model
from ..search.query import Term, Wanted, embed_terms
from .bank import Bank
from .evidence import Evidence, Neighbour

NO_SOUND = ("no sound track", "no sound could be decoded")
"""Reasons of `decode_sound` for files in which nothing can be heard."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """Where evidence comes from.

    Attributes:
      opened: the model.
      settings: how clips are cut into moments.
      captions: bank of captions; None = none.
      labels: bank of class names; None = none.
      collection: an index that the model made; None = none.
      recogniser: listens to files without subtitles; None = nothing does.
      recogniser_name: what it is called.
      count: texts of each kind.
    """

    opened: Opened
    settings: Settings
    captions: Bank | None = None
    labels: Bank | None = None
    collection: Collection | None = None
    recogniser: Recogniser | None = None
    recogniser_name: str = ""
    count: int = 5

    def __post_init__(self):
        if self.count < 1:
            raise UserError(f"--top_k is {self.count}, wanted 1 or more")
        if self.captions is None and self.labels is None and self.collection is None:
            raise UserError(
                "nothing to compare clips with; give --captions FILE|DIR:SPLIT, --classes FILE or --index INDEX"
            )

    def gather(self, path: str) -> Evidence:
        """Return what is known of a media file.

        A film is cut into moments as for an index; a text scores by its cosine with the nearest one.

        Raises:
          UserError: it cannot be decoded.
        """
        term = Term(kind="like", value=path, side=VIDEO)
        [wanted] = embed_terms([term], opened=self.opened, settings=self.settings)
        speech, origin = self._speech(path)
        return Evidence(
            path=path,
            captions=self.captions.nearest(wanted.vectors, count=self.count) if self.captions else (),
            labels=self.labels.nearest(wanted.vectors, count=self.count) if self.labels else (),
            neighbours=self._neighbours(wanted, path=path),
            speech=speech,
            speech_from=origin,
        )

    def _neighbours(self, wanted: Wanted, *, path: str) -> tuple[Neighbour, ...]:
        """The files of the index that look like a clip, without itself."""
        if self.collection is None:
            return ()
        options = SearchOptions(limit=self.count + 1, per_file=1)
        found = search(self.collection, [wanted], filters=Filters(), options=options)
        others = [hit for hit in found.hits if not _is_same(hit.file.path, path)][: self.count]
        return tuple(
            Neighbour(
                path=hit.file.path,
                score=round(hit.score, 4),
                start_s=round(hit.spans[0].start_s, 3),
                end_s=round(hit.spans[0].end_s, 3),
                texts=(*hit.file.captions, *hit.file.labels),
            )
            for hit in others
        )

    def _speech(self, path: str) -> tuple[tuple[Sentence, ...], str]:
        """What is said in a file, and who says so: its subtitles, or else the recogniser."""
        file = Path(path)
        names = sorted(one.name for one in file.parent.iterdir() if one.suffix.lower() in SUFFIXES)
        own = [name for name in names if belongs(name, to=file.name)]
        if own:
            return read_subtitles(file.parent / own[0]), "subtitles"
        if self.recogniser is None:
            return (), ""
        try:
            samples = decode_sound(path, start_s=0.0, max_seconds=3600.0)
        except DecodeError as error:
            if error.reason in NO_SOUND:
                return (), self.recogniser_name
            raise UserError(f"{path} cannot be heard: {error}") from error
        heard = self.recogniser.listen(samples) if np.any(samples) else []
        return tuple(heard), self.recogniser_name


def _is_same(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def open_index(folder: Path, *, opened: Opened) -> Collection:
    """Open an index for the model that is loaded: that of its models which has the same weights.

    Raises:
      UserError: the model made none of its embeddings.
    """
    first = Collection(folder)
    models = database.read_models(first.connection)
    same = [model.name for model in models if model.weights == opened.row.weights]
    if not same:
        check_model(opened, collection=first)
    first.close()
    return Collection(folder, model=same[0])
