"""Files that belong together by their names: a film with its texts, features and previews. For folders and archives.

The convention is that of WebDataset: files that share a key, `KEY.mp4`, `KEY.txt`, `KEY.json`, `KEY.rgb.npy`. There,
the key ends at the first dot of the name. But names of films have dots, too (`Song 2.0 (Clean).mp4`), so here the films
define the keys: the name of a film without its suffix. Names are compared in composed form (Unicode NFC), because a Mac
writes `é` as two characters.
"""

import collections
import dataclasses
import functools
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from ..subtitles import SUFFIXES as SUBTITLES
from ..subtitles import belongs
from .kinds import PICTURE_SUFFIXES, TEXT_SUFFIXES, VIDEO_SUFFIXES, is_hidden, left_out, suffix_of
from .notes import Notes

PREVIEWS = "pictures beside a video left out (previews; give a picture a .txt of its own to use it)"
FURTHER = "further media of one sample left out"
BARE_FEATURES = "rgb"  # the name of the features in KEY.npy, which clip-video-encode writes
_FEATURES = re.compile(r"(?:([a-z][a-z0-9_]*)\.)?npy")
_OF_A_FILM = re.compile(
    r"(.+?)[-_. ](?:thumb|thumbnail|preview|poster|cover|fanart|banner|screenshot)s?", re.IGNORECASE
)
_OF_A_FOLDER = frozenset(("banner", "cover", "fanart", "folder", "poster", "preview", "thumb", "thumbnail"))


@dataclasses.dataclass(kw_only=True)
class Sample:
    """The files of one clip.

    Attributes:
      key: what their names share.
      media: the file with the pictures, "" if there is none.
      texts: files with texts by suffix (`.txt`, `.cap`, `.cls`, `.json`, and `.srt` or `.vtt`).
      features: files with features by name.
      refused: why the sample cannot be used, "" if it can.
    """

    key: str
    media: str = ""
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    features: dict[str, str] = dataclasses.field(default_factory=dict)
    refused: str = ""


def group(names: Sequence[str], *, notes: Notes, one_film: bool) -> list[Sample]:
    """Put files together that belong to one clip.

    Args:
      names: paths of the files, each once, with forward slashes.
      notes: where the files are counted that belong to no clip.
      one_film: whether films that share a key are one sample, of which the first film is used (as in an archive); else
        each film is a clip.

    Returns:
      The samples, in order of their first files. Texts or features without a film are samples without `media`.
    """
    return _Grouping(notes=notes, one_film=one_film).run(names)


class _Grouping:
    """The work of `group`; all names are looked up in composed form."""

    def __init__(self, *, notes: Notes, one_film: bool):
        self._notes, self._one_film = notes, one_film
        self._films: dict[str, list[str]] = {}  # key -> names
        self._pictures: dict[str, list[str]] = {}
        self._others: list[str] = []  # texts, features, and what is of no use
        self._with_text: set[str] = set()  # keys of texts
        self._samples: dict[str, list[Sample]] = {}  # key -> one sample, or one for each of several films

    def run(self, names: Sequence[str]) -> list[Sample]:
        for name in names:
            self._sort(name)
        for key in self._films | self._pictures:
            self._place_media(key)
        rest = list(itertools.filterfalse(self._place_text, self._others))
        self._share_texts()
        subtitles = [name for name in rest if suffix_of(name) in SUBTITLES]
        self._place_subtitles(subtitles)
        for name in rest:
            if name not in subtitles:
                self._place_features(name)
        order = {name: number for number, name in enumerate(names)}
        samples = [sample for made in self._samples.values() for sample in made]
        return sorted(samples, key=lambda sample: min(order[name] for name in _files(sample)))

    def _sort(self, name: str) -> None:
        suffix, key = suffix_of(name), _composed(name)[: len(_composed(name)) - len(suffix_of(name))]
        if is_hidden(name):
            self._notes.add("hidden files left out", name=name)
        elif suffix in VIDEO_SUFFIXES:
            self._films.setdefault(key, []).append(name)
        elif suffix in PICTURE_SUFFIXES:
            self._pictures.setdefault(key, []).append(name)
        else:
            self._others.append(name)
            if suffix in TEXT_SUFFIXES:
                self._with_text.add(key)

    # --- films and pictures ---

    def _place_media(self, key: str) -> None:
        films, pictures = self._films.get(key, []), self._pictures.get(key, [])
        moving = [name for name in films if suffix_of(name) != ".gif"]
        if moving and len(moving) < len(films):  # an animated preview
            pictures, films = [*pictures, *(name for name in films if name not in moving)], moving
        if films or self._is_preview(key):
            for name in pictures:
                self._notes.add(PREVIEWS, name=name)
            pictures = []
        media = films or pictures
        if self._one_film and media:
            above = self._films if films else self._films | self._pictures
            part = key not in self._with_text and any(prefix in above for prefix in _prefixes(key))
            for name in media if part else media[1:]:
                self._notes.add(FURTHER, name=name)
            media = [] if part else media[:1]
        if media:
            self._samples[key] = [Sample(key=_without_suffix(name), media=name) for name in media]

    def _is_preview(self, key: str) -> bool:
        """Whether a picture shows a film beside it: `KEY.jpg`, `KEY.x.jpg`, `KEY_thumb.jpg`, `poster.jpg`."""
        if key in self._with_text:
            return False
        folder, slash, last = key.rpartition("/")
        found = _OF_A_FILM.fullmatch(last)
        if found and f"{folder}{slash}{found[1]}" in self._films:
            return True
        if last.lower() in _OF_A_FOLDER and folder in self._folders_of_films:
            return True
        return any(prefix in self._films for prefix in _prefixes(key))

    @functools.cached_property
    def _folders_of_films(self) -> set[str]:
        return {key.rpartition("/")[0] for key in self._films}

    # --- texts ---

    def _place_text(self, name: str) -> bool:
        """Put a text to the sample with the longest key that its name begins with; return whether it is one."""
        suffix, composed = suffix_of(name), _composed(name)
        if suffix not in TEXT_SUFFIXES:
            return False
        key = composed[: len(composed) - len(suffix)]
        for prefix in (key, *_prefixes(key)):
            samples = self._samples.get(prefix)
            if samples:
                rest = key[len(prefix) :].lower()
                if rest in ("", *(suffix_of(sample.media) for sample in samples)):  # KEY.txt, or KEY.mp4.txt
                    self._add_text(samples, suffix, name)
                else:
                    self._notes.add(left_out(name), name=name)
                return True
        if any(prefix in self._with_text for prefix in _prefixes(key)):  # KEY.info.json beside KEY.txt
            self._notes.add(left_out(name), name=name)
        else:
            self._add_text(self._samples.setdefault(key, [Sample(key=_without_suffix(name))]), suffix, name)
        return True

    def _add_text(self, samples: Iterable[Sample], suffix: str, name: str) -> None:
        for sample in samples:
            if sample.texts.setdefault(suffix, name) != name:
                self._notes.add(left_out(name), name=name)

    def _share_texts(self) -> None:
        """Give the texts of a key that has no film to the film whose key begins with it: `KEY.txt`, `KEY.1080p.mp4`."""
        takers: dict[str, list[Sample]] = collections.defaultdict(list)
        alone = {key for key, samples in self._samples.items() if not samples[0].media}
        for key, samples in self._samples.items():
            shorter = next((prefix for prefix in _prefixes(key) if prefix in alone), None)
            if shorter is not None:
                takers[shorter] += [sample for sample in samples if sample.media and not sample.texts]
        for key, samples in takers.items():
            if not samples:
                continue
            [texts] = self._samples.pop(key)
            for sample in samples:
                sample.texts = dict(texts.texts)
                if len(samples) > 1:
                    sample.refused = (
                        f"{len(samples)} films share the key {texts.key!r}: give each film texts of its own name"
                    )

    def _place_subtitles(self, names: list[str]) -> None:
        """Put a subtitle file to each film: `KEY.srt` before `KEY.en.srt`, English before other languages."""
        order = lambda name: (_composed(name).count("."), ".en." not in name.lower(), name)  # noqa: E731
        for name in sorted(names, key=order):
            composed = _composed(name)
            key = composed[: len(composed) - len(suffix_of(name))]
            films = [one for prefix in (key, *_prefixes(key)) for one in self._samples.get(prefix, []) if one.media]
            own = [one for one in films if belongs(composed, to=_composed(one.media))]
            if not own or any(set(SUBTITLES) & set(sample.texts) for sample in own):
                self._notes.add(left_out(name), name=name)
                continue
            for sample in own:
                sample.texts[suffix_of(name)] = name

    # --- features ---

    def _place_features(self, name: str) -> None:
        """Put features to the sample with the longest key that their name begins with, or make one of them."""
        composed = _composed(name)
        if suffix_of(name) != ".npy":
            self._notes.add(left_out(name), name=name)
            return
        known = next((prefix for prefix in _prefixes(composed) if prefix in self._samples), None)
        candidates = [known] if known is not None else reversed(list(_prefixes(composed)))
        for key in candidates:
            found = _FEATURES.fullmatch(composed[len(key) + 1 :].lower())
            if found:
                made = Sample(key=name[: len(key)] if composed == name else key)
                for sample in self._samples.setdefault(key, [made]):
                    if sample.features.setdefault(found[1] or BARE_FEATURES, name) != name:
                        self._notes.add(left_out(name), name=name)
                return
        self._notes.add(left_out(name), name=name)


def _files(sample: Sample) -> Iterator[str]:
    yield from (name for name in (sample.media, *sample.texts.values(), *sample.features.values()) if name)


def _composed(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _without_suffix(name: str) -> str:
    return name[: len(name) - len(suffix_of(name))]


def _prefixes(name: str) -> Iterator[str]:
    """The parts of a name up to a dot that are not all of it, the longest first; folders stay whole."""
    start = name.rfind("/") + 1
    at = name.rfind(".", start + 1)
    while at > start:
        yield name[:at]
        at = name.rfind(".", start + 1, at)
