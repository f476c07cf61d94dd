"""Recognition by Whisper (Radford et al. 2022, arXiv:2212.04356) through faster-whisper, from a local folder."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UserError
from ..clip import Sentence, Word
from .recogniser import RecogniserOptions, sentence_of

_FILES = ("config.json", "model.bin", "tokenizer.json")
_SHORTEST_S = 0.001  # a word that begins and ends at once gets this length


class Whisper:
    """A recogniser of many languages, with word times from its attention."""

    def __init__(self, model: Any, *, language: str):
        """Wrap a `WhisperModel`; `language` "" = it finds out from the first 30 seconds of each clip."""
        self._model, self._language = model, language

    def listen(self, samples: np.ndarray) -> list[Sentence]:
        """Return what is said; see `Recogniser`."""
        sound = samples.astype(np.float32) / 32768
        parts, _ = self._model.transcribe(
            sound,
            language=self._language or None,
            word_timestamps=True,
            condition_on_previous_text=False,
            vad_filter=True,  # of silence it would make up words
        )
        end = len(samples) / 16_000
        return [sentence for part in parts if (sentence := _sentence(part, end=end)) is not None]


def open_model(options: RecogniserOptions) -> Whisper:
    """Load a model in the form of CTranslate2; nothing is fetched.

    Raises:
      UserError: no such folder, or it lacks a file.
    """
    folder = Path(options.model)
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if not options.model or missing:
        has = f"{options.model!r} lacks {', '.join(missing)}" if options.model else "is missing"
        raise UserError(
            f"--model {has}; give a folder with Whisper in the form of CTranslate2 ({', '.join(_FILES)}), as "
            "`ct2-transformers-converter --model openai/whisper-small --copy_files tokenizer.json "
            "preprocessor_config.json --output_dir FOLDER` writes it"
        )
    package: Any = importlib.import_module("faster_whisper")
    try:
        model = package.WhisperModel(str(folder), device="auto", cpu_threads=options.threads, local_files_only=True)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"--model {options.model!r} cannot be loaded ({error}); convert it again") from error
    return Whisper(model, language=options.language)


def _sentence(part: Any, *, end: float) -> Sentence | None:
    """The sentence of a segment; None if it has no word before the end of the sound."""
    words = []
    for word in part.words or ():
        start = max(float(word.start), 0.0)
        stop = max(min(float(word.end), end), start + _SHORTEST_S)
        if word.word.strip() and start < end:
            words.append(Word(start_s=round(start, 3), end_s=round(stop, 3), text=word.word.strip()))
    return sentence_of(words, text=part.text.strip()) if words else None
