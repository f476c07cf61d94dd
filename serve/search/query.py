"""What is looked for: texts, clips, pictures and sounds with weights, and their embeddings."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from ...base.errors import UserError
from ...data.media.decode import DecodeError
from ...data.media.workers import Decoders, Job, Limits
from ...encode.media.chunks import Task, decode_chunks
from ...encode.media.windows import Windows
from ..index.database import Settings
from ..index.listing import Entry
from ..index.models import AUDIO, TRANSCRIPT, VIDEO, Opened

MINUS = 0.5
"""Weight of a term that is to be avoided, unless it has its own."""

_TOKEN = re.compile(
    r'(?P<minus>-(?=["\w]))?(?:"(?P<phrase>[^"]*)"|(?P<word>[^\s"]+?))(?:\^(?P<weight>\d*\.?\d+))?(?=\s|$)'
)
_WEIGHT = re.compile(r"(?P<value>.+)\^(?P<weight>\d*\.?\d+)", re.S)
_CHUNKS = 5  # of a long clip that is looked for; each is a minute or one window


@dataclasses.dataclass(frozen=True, kw_only=True)
class Term:
    """One thing that is looked for, or to be avoided.

    Attributes:
      kind: "text"; "like", a media file; "sound", the sound of a file; "moment", one of the index.
      value: the text, the path, or the number of the moment.
      weight: how much it counts; below 0 = to be avoided.
      side: where it is looked for: "video", "audio" or "transcript".
    """

    kind: str
    value: str
    weight: float = 1.0
    side: str = VIDEO

    def shown(self) -> str:
        """Return the term as a person would write it."""
        text = f'"{self.value}"' if self.kind == "text" else f"{self.kind} {self.value}"
        sign, size = ("-" if self.weight < 0 else ""), abs(self.weight)
        return f"{sign}{text}" + (f"^{size:g}" if size != (MINUS if sign else 1.0) else "")


def parse_text(query: str, *, side: str = VIDEO) -> list[Term]:
    """Split a query into terms: words that belong together, words or phrases with weights, and those to avoid.

    >>> [term.shown() for term in parse_text('beach at night -people -"a dog"^2 waves^3')]
    ['"beach at night"', '-"people"', '-"a dog"^2', '"waves"^3']

    Raises:
      UserError: a weight of 0, or a quotation mark without its other one.
    """
    together: list[str] = []
    terms: list[Term] = []
    place = 0
    while place < len(query):
        if query[place].isspace():
            place += 1
            continue
        found = _TOKEN.match(query, place)
        if found is None:
            raise UserError(f"the query {query!r} cannot be read from {query[place:][:30]!r} on; check its quotes")
        place = found.end()
        text = found["phrase"] if found["phrase"] is not None else found["word"]
        if not found["minus"] and found["weight"] is None:
            together.append(text)
        else:
            size = MINUS if found["weight"] is None else float(found["weight"])
            terms.append(Term(kind="text", value=text, weight=-size if found["minus"] else size, side=side))
    whole = " ".join(together).strip()
    return checked([*([Term(kind="text", value=whole, side=side)] if whole else []), *terms])


def weighted(value: str, *, kind: str, side: str, sign: float = 1.0) -> Term:
    """Return a term of a flag: `VALUE`, or `VALUE^WEIGHT`.

    >>> weighted("clip.mp4^0.5", kind="like", side="video").weight
    0.5
    """
    found = _WEIGHT.fullmatch(value)
    weight = float(found["weight"]) if found else (1.0 if sign > 0 else MINUS)
    return checked([Term(kind=kind, value=found["value"] if found else value, weight=sign * weight, side=side)])[0]


def checked(terms: list[Term]) -> list[Term]:
    """Return the terms.

    Raises:
      UserError: one is empty or has the weight 0.
    """
    for term in terms:
        if not term.value.strip() or not term.weight:
            raise UserError(f"the term {term.shown()} of the query is empty or has the weight 0; leave it out")
    return terms


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """A term with its embeddings.

    Attributes:
      term: the term.
      vectors: float32 [q,E], rows of unit length; a moment scores by the nearest of them.
    """

    term: Term
    vectors: np.ndarray


def embed_terms(terms: Sequence[Term], *, opened: Opened, settings: Settings) -> list[Wanted]:
    """Embed texts, clips and sounds with the model of an index.

    A clip is cut into moments as the files of the index are; each of them is looked for. Of a long one, the first
    minutes count.

    Raises:
      UserError: the model has no tower for a term, or a file cannot be decoded.
    """
    found = []
    for term in terms:
        if term.kind == "text":
            vectors = opened.encoder.encode_text([term.value])
        elif term.kind == "sound":
            vectors = opened.embed_sound([decode_sound(term.value, opened=opened)], batch_size=1)
        elif term.kind == "like":
            moments = decode_moments(term.value, opened=opened, settings=settings)
            vectors = opened.embed_video(moments.frames, sounds=moments.sounds, batch_size=8)
        else:
            raise AssertionError(term.kind)
        found.append(Wanted(term=term, vectors=np.ascontiguousarray(vectors, np.float32)))
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodedMoments:
    """The moments of a file that is looked for, as the model takes them.

    Attributes:
      frames: of each moment, uint8 [T,H,W,3] or [V,T,H,W,3].
      sounds: likewise, int16 [S']; empty where there is none.
      spans: start and end of each in seconds of the file.
    """

    frames: list[np.ndarray] = dataclasses.field(default_factory=list)
    sounds: list[np.ndarray] = dataclasses.field(default_factory=list)
    spans: list[tuple[float, float]] = dataclasses.field(default_factory=list)


def decode_moments(path: str, *, opened: Opened, settings: Settings, limits: Limits | None = None) -> DecodedMoments:
    """Decode a film or a picture, cut into moments as the files of the index are; of a long one the first minutes.

    Raises:
      UserError: it cannot be decoded.
    """
    windows, found = Windows(seconds=settings.window_s, overlap=settings.overlap_s), DecodedMoments()
    task = Task(entry=Entry(key=path, root="", path=path))
    chunks = decode_chunks([task], windows=windows, options=opened.decode, workers=1, limits=limits, in_order=True)
    try:
        for number, chunk in enumerate(chunks, start=1):
            if isinstance(chunk.clip, DecodeError):
                if not found.frames:
                    raise UserError(f"{path} cannot be looked for: {chunk.clip}")
                break
            if chunk.clip is not None:
                moments = windows.moments(chunk.number, decoded_s=chunk.clip.duration_s, origin=0.0)
                for part, moment in zip(windows.cut(chunk.clip), moments, strict=False):
                    found.frames.append(opened.frames(part))
                    found.sounds.append(opened.sound(part))
                    found.spans.append((moment.start_s, moment.end_s))
            if number == _CHUNKS:
                break
    finally:
        chunks.close()
    return found


def decode_sound(path: str, *, opened: Opened, limits: Limits | None = None) -> np.ndarray:
    """Decode the middle `audio_seconds` of a file's sound, int16 [S'].

    Raises:
      UserError: the model has no audio tower, or the file has no sound or cannot be decoded.
    """
    if AUDIO not in opened.row.sides:
        raise UserError(f"model {opened.row.name} has no audio tower and cannot look for sound; use --like or text")
    with Decoders(workers=1, limits=limits) as decoders:
        found = decoders.submit(Job(path=path, options=opened.decode, sound_only=True)).result()
    if isinstance(found, DecodeError):
        raise UserError(f"{path} cannot be looked for: {found}")
    return opened.sound(found)


def side_of(kind: str, *, within: str, sides: Sequence[str], name: str) -> str:
    """Return where a term is looked for.

    Args:
      kind: of the term.
      within: what the user asked for; "" = the kind's own: sound by "audio", everything else by "video".
      sides: those that the index has.
      name: of the model, for the message.

    Raises:
      UserError: the index has nothing there.
    """
    side = within or (AUDIO if kind == "sound" else VIDEO)
    if side not in sides:
        why = {TRANSCRIPT: "no transcript or subtitle file was indexed", AUDIO: "nothing to hear was indexed"}
        raise UserError(
            f"the index has no {side!r} of model {name} ({why.get(side, 'nothing was indexed')}); it has: "
            f"{', '.join(sides) or 'nothing'}"
        )
    return side
