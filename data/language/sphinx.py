"""Recognition by CMU Sphinx (Huggins-Daines et al. 2006, "PocketSphinx"), with the English model of its package."""

import importlib
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UserError
from ..clip import Sentence, Word
from .recogniser import RATE, RecogniserOptions, sentence_of

_FRAME_S = 0.01  # of its features: word times count in them
_LONGEST_S = 30.0  # speech without a pause is cut after this
_VARIANT = re.compile(r"\(\d+\)$")  # been(2): the second pronunciation of a word


class PocketSphinx:
    """A recogniser that listens to one stretch of speech after the other, as the pauses between them divide it."""

    def __init__(self, decoder: Any):
        """Wrap a decoder of pocketsphinx."""
        self._decoder = decoder

    def listen(self, samples: np.ndarray) -> list[Sentence]:
        """Return what is said; see `Recogniser`."""
        found = []
        for start, speech in _stretches(samples):
            self._decoder.start_utt()
            self._decoder.process_raw(speech, no_search=False, full_utt=True)
            self._decoder.end_utt()
            words = list(_words(self._decoder.seg() or (), start=start, end=len(samples) / RATE))
            if words:
                found.append(sentence_of(words))
        return found


def open_model(options: RecogniserOptions) -> PocketSphinx:
    """Load the acoustic model, the language model and the dictionary.

    Raises:
      UserError: the folder of `options.model` lacks one of them, or the language is not that of the model.
    """
    if options.language not in ("", "en") and not options.model:
        raise UserError(
            f"--language {options.language}: the model of pocketsphinx is English; give --model FOLDER with a model of "
            "that language, or --recogniser faster_whisper --model FOLDER"
        )
    try:
        return PocketSphinx(_package().Decoder(samprate=float(RATE), loglevel="FATAL", **_files(options.model)))
    except RuntimeError as error:
        raise UserError(f"--model {options.model!r} is no model of pocketsphinx ({error})") from error


def _package() -> Any:
    """The extra, which only those who recognise with it have installed."""
    return importlib.import_module("pocketsphinx")


def _files(folder: str) -> dict[str, str]:
    """The three parts of a model of one's own: DIR/hmm/, DIR/*.lm.bin (or .lm), DIR/*.dict."""
    if not folder:
        return {}
    path = Path(folder)
    hmm = next((file.parent for file in sorted(path.rglob("mdef"))), None)
    lm = next(iter([*sorted(path.glob("*.lm.bin")), *sorted(path.glob("*.lm"))]), None)
    dictionary = next(iter(sorted(path.glob("*.dict"))), None)
    if hmm is None or lm is None or dictionary is None:
        raise UserError(
            f"--model {folder!r} is no model of pocketsphinx; wanted a folder with a language model (*.lm.bin), a "
            "dictionary (*.dict), and a folder with the acoustic model (mdef, means, ...)"
        )
    return {"hmm": str(hmm), "lm": str(lm), "dict": str(dictionary)}


def _stretches(samples: np.ndarray) -> Iterator[tuple[float, bytes]]:
    """Yield the stretches in which somebody speaks: their starts in seconds, and their samples."""
    most = int(_LONGEST_S * RATE)
    for part in _package().Segmenter(sample_rate=RATE).segment(io.BytesIO(samples.astype("<i2").tobytes())):
        for at in range(0, len(part.pcm) // 2, most):
            yield part.start_time + at / RATE, part.pcm[2 * at : 2 * (at + most)]


def _words(segments: Iterable[Any], *, start: float, end: float) -> Iterator[Word]:
    """Yield the words among the segments of a stretch: no silence, no noise (`<sil>`, `[SPEECH]`, `++UM++`)."""
    for one in segments:
        text = _VARIANT.sub("", one.word)
        if text[:1] in "<[+":
            continue
        first, last = start + one.start_frame * _FRAME_S, start + (one.end_frame + 1) * _FRAME_S
        if min(last, end) > first:
            yield Word(start_s=round(first, 3), end_s=round(min(last, end), 3), text=text)
