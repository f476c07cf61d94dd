"""Which files of an index show the same person as an example: by their embeddings, or by their faces."""

import dataclasses
from collections.abc import Callable, Sequence
from collections.abc import Collection as Several

import numpy as np
import simplejpeg

from ...base.errors import UserError
from ...data.machine import cores
from ...data.media.decode import DecodedClip, DecodeError, DecodeOptions
from ...data.media.faces import FaceFeatures
from ...encode.media.chunks import Task, decode_chunks
from ...encode.media.windows import Windows
from ..index.listing import Entry
from ..index.models import VIDEO, Opened
from .collection import Collection
from .query import decode_moments

_LOOK = DecodeOptions(fps=1.0, short_side=720, audio=False)
_LOOK_EXAMPLE = dataclasses.replace(_LOOK, fps=4.0)
_WINDOWS = Windows(seconds=60.0, overlap=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alike:
    """A file that is near to an example.

    Attributes:
      file: its number in the index.
      path: of the file.
      score: the largest cosine of a moment, or of a face, with one of the examples.
      moments: how many moments the index has of it.
    """

    file: int
    path: str
    score: float
    moments: int


def alike_by_embedding(collection: Collection, *, examples: Sequence[str], opened: Opened, above: float) -> list[Alike]:
    """Return the files with a moment whose embedding is near to one of the examples', the nearest first.

    Args:
      collection: the index.
      examples: films or pictures.
      opened: the model of the index.
      above: least cosine.

    Raises:
      UserError: an example cannot be decoded.
    """
    side, found = collection.side(VIDEO), []
    for path in examples:
        moments = decode_moments(path, opened=opened, settings=collection.settings)
        found.append(opened.embed_video(moments.frames, sounds=moments.sounds, batch_size=8))
    scores = side.scores(np.ascontiguousarray(np.concatenate(found), np.float32))
    order = np.argsort(-scores, kind="stable")
    best = {}
    for place in order[scores[order] >= above].tolist():
        best.setdefault(int(side.files[place]), float(scores[place]))
    return _described(collection, best)


def alike_by_face(
    collection: Collection,
    *,
    examples: Sequence[str],
    faces: FaceFeatures,
    above: float,
    tick: Callable[[], object] = lambda: None,
) -> tuple[list[Alike], list[str]]:
    """Return the files with a face that is near to one of the examples', the nearest first; all files are decoded.

    One picture a second is looked at. Where the faces of the index are blurred, they are read from the files, too.

    Args:
      collection: the index.
      examples: films or pictures with the person alone: every face in them is looked for.
      faces: the networks.
      above: least cosine, see `faces.SAME_PERSON`.
      tick: called after each file.

    Returns:
      The files, and what was wrong with those that cannot be decoded any more.

    Raises:
      UserError: an example without a face, or that cannot be decoded.
    """
    wanted = np.concatenate([_faces_of_example(path, faces=faces) for path in examples])
    query = "SELECT id, path, start_s, end_s FROM files ORDER BY id"
    tasks = [
        Task(entry=Entry(key=path, root="", path=path, start_s=start, end_s=end), file=file)
        for file, path, start, end in collection.connection.execute(query)
    ]
    best, failed = dict.fromkeys((task.file for task in tasks), -1.0), []
    for chunk in decode_chunks(tasks, windows=_WINDOWS, options=_LOOK, workers=cores()):
        file = chunk.task.file
        if isinstance(chunk.clip, DecodeError):
            failed.append(f"{chunk.task.entry.path}: {chunk.clip}")
        elif chunk.clip is not None:
            seen = _faces(chunk.clip, faces=faces)
            best[file] = max([best[file], *(seen @ wanted.T).reshape(-1).tolist()] if len(seen) else [best[file]])
        if chunk.last or chunk.task.failed:
            tick()
    near = sorted((file for file, score in best.items() if score >= above), key=lambda file: -best[file])
    return _described(collection, {file: best[file] for file in near}), failed


def _faces_of_example(path: str, *, faces: FaceFeatures) -> np.ndarray:
    task = Task(entry=Entry(key=path, root="", path=path))
    found = []
    for chunk in decode_chunks([task], windows=_WINDOWS, options=_LOOK_EXAMPLE, workers=1):
        if isinstance(chunk.clip, DecodeError):
            raise UserError(f"{path} cannot be looked for: {chunk.clip}")
        if chunk.clip is not None:
            found.append(_faces(chunk.clip, faces=faces))
    found = [one for one in found if len(one)]
    if not found:
        raise UserError(f"no face was found in {path}; give a picture in which it is large and seen from the front")
    return np.concatenate(found)


def _faces(clip: DecodedClip, *, faces: FaceFeatures) -> np.ndarray:
    """Return the features of all faces of a clip's frames, float32 [n,D]; [0,0] if there are none."""
    found = [faces(simplejpeg.decode_jpeg(jpeg, colorspace="RGB")) for jpeg in clip.encoded]
    found = [one for one in found if len(one)]
    return np.concatenate(found) if found else np.zeros((0, 0), np.float32)


def _described(collection: Collection, scores: dict[int, float]) -> list[Alike]:
    """Return what is known of files, and of those with the same content, whichever model has embedded them."""
    copies = (
        "SELECT b.id FROM files a JOIN files b ON b.sha256 = a.sha256 WHERE a.id = ? AND a.sha256 != '' AND "
        "COALESCE(a.start_s, 0) < COALESCE(b.end_s, 1e300) AND COALESCE(b.start_s, 0) < COALESCE(a.end_s, 1e300)"
    )
    scores = dict(scores)
    for file, score in list(scores.items()):
        for (copy,) in collection.connection.execute(copies, (file,)).fetchall():
            scores.setdefault(copy, score)
    files = collection.files(scores)
    return [
        Alike(file=file, path=files[file].path, score=score, moments=len(collection.moments(file)))
        for file, score in scores.items()
        if file in files
    ]


def without(found: Sequence[Alike], *, kept: Several[str]) -> list[Alike]:
    """Leave out the files of some paths.

    Raises:
      UserError: a path that is not among them.
    """
    for path in kept:
        if path not in {one.path for one in found}:
            raise UserError(f"--keep {path}: this file is not among those that would be deleted")
    return [one for one in found if one.path not in kept]
