"""Word vectors in the text form of Word2Vec, GloVe and fastText, as a text tower with its own list of words."""

import numpy as np

from ...data.options import InputSpec
from ...data.text.words import WordTokenizer
from ..spec import ModelSpec
from .family import Conversion, Family
from .files import VECTORS, SourceFiles
from .rules import rule
from .transforms import Transform

_LENGTH = 32
"""Words of a text; longer ones are cut and counted."""


def _conversion(files: SourceFiles) -> Conversion:
    words, width = files.tensors.words(), files.tensors["vectors"].shape[1]
    tokenizer = WordTokenizer(words)
    text = {"vocab_size": tokenizer.vocab_size, "width": width, "pool": "mean"}
    spec = ModelSpec(
        towers={"text": {"family": "words", **text}},
        input=InputSpec(num_frames=0, context_length=_LENGTH),
        tokenizer=tokenizer.to_meta(),
    )
    padding_first = Transform(lambda x: np.pad(x, ((1, 0), (0, 0))), lambda x: (x[1:],))
    return Conversion(spec=spec, rules=[rule("vectors", "text/embedding", padding_first)])


FAMILY = Family(
    name="word_vectors",
    models=("files of vectors as text: *.vec, glove*.txt",),
    licence="as the file's publisher states it",
    matches=lambda files: not files.config and any(any(files.folder.glob(pattern)) for pattern in VECTORS),
    conversion=_conversion,
)
