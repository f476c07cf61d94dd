"""Speech recognition: the interface, and the recognisers by name. A new one is a class here and a row in the table."""

import dataclasses
import importlib
import importlib.metadata
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ...base.errors import UserError, unknown
from ..clip import Sentence, Word

RATE = 16_000
"""Hz of the sound that recognisers take."""


class Recogniser(Protocol):
    """Sound to sentences."""

    def listen(self, samples: np.ndarray) -> list[Sentence]:
        """Return what is said.

        Args:
          samples: int16 [S], mono, 16 kHz.

        Returns:
          In order of time, in seconds from the first sample, each with its words.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecogniserOptions:
    """Which recogniser listens.

    Attributes:
      name: a key of `RECOGNISERS`.
      model: folder of its model; "" = the one that comes with it.
      language: two letters, "en"; "" = it finds out, or its model has one.
      threads: of a recogniser that has several; 0 = as it likes.
    """

    name: str = "pocketsphinx"
    model: str = ""
    language: str = ""
    threads: int = 0

    def __post_init__(self):
        if self.name not in RECOGNISERS:
            raise unknown("recogniser (--recogniser)", self.name, RECOGNISERS)
        if self.threads < 0:
            raise UserError(f"--threads is {self.threads}, wanted 0 (as the recogniser likes) or more")
        if self.language and not (self.language.isascii() and self.language.isalpha() and self.language.islower()):
            raise UserError(f"--language is {self.language!r}, wanted a code such as en or de")

    def version(self) -> str:
        """Return the version of the package that recognises, "" if it is not installed."""
        try:
            return importlib.metadata.version(RECOGNISERS[self.name].package)
        except importlib.metadata.PackageNotFoundError:
            return ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A row of the table.

    Attributes:
      package: what to install.
      extra: the extra of twinreel that has it.
      module: where its class is, beside this file.
      about: one line.
    """

    package: str
    extra: str
    module: str
    about: str


RECOGNISERS = {
    "pocketsphinx": Entry(
        package="pocketsphinx",
        extra="pocketsphinx",
        module="sphinx",
        about="CMU Sphinx; its small English model is part of the package. Fast, and right about clear speech only",
    ),
    "faster_whisper": Entry(
        package="faster-whisper",
        extra="whisper",
        module="whisper",
        about="Whisper by CTranslate2; --model FOLDER is a local one (config.json, model.bin, tokenizer.json)",
    ),
}


def open_recogniser(options: RecogniserOptions) -> Recogniser:
    """Load a recogniser and its model.

    Raises:
      UserError: its package is not installed, or its model cannot be used.
    """
    entry = RECOGNISERS[options.name]
    make: Callable[[RecogniserOptions], Any] = importlib.import_module(f".{entry.module}", __package__).open_model
    if not options.version():
        raise UserError(
            f"--recogniser {options.name} needs the package {entry.package}: pip install 'twinreel[{entry.extra}]'"
        )
    return make(options)


def sentence_of(words: list[Word], *, text: str = "") -> Sentence:
    """Return the sentence of at least one word; `text` = the words joined by blanks."""
    joined = text or " ".join(word.text for word in words)
    return Sentence(start_s=words[0].start_s, end_s=words[-1].end_s, text=joined, words=tuple(words))
