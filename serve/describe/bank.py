"""Banks of texts that clips are compared with: captions of a file or of a prepared split, and class names."""

import dataclasses
from pathlib import Path

import numpy as np

from ...base.errors import UserError, unknown
from ...base.text_lines import text_lines
from ...encode.embed.encoder import Encoder
from ...evaluate.measures.zero_shot_rules import class_weights
from ...evaluate.protocols.class_names import read_classes
from ...evaluate.protocols.templates import load_templates
from .evidence import Scored


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bank:
    """Texts with their embeddings.

    Attributes:
      texts: what is found.
      vectors: float [n,E], rows of unit length.
      origin: where they come from.
    """

    texts: tuple[str, ...]
    vectors: np.ndarray
    origin: str

    def nearest(self, moments: np.ndarray, *, count: int) -> tuple[Scored, ...]:
        """Return the texts nearest to a clip, best first, each with its cosine with the nearest moment.

        Args:
          moments: float [q,E], embeddings of the clip's moments, rows of unit length.
          count: how many texts.
        """
        cosines = (self.vectors @ moments.T).max(axis=1)
        order = np.argsort(-cosines, kind="stable")[:count]
        return tuple(Scored(text=self.texts[i], score=round(float(cosines[i]), 4)) for i in order)


def caption_bank(given: str, *, encoder: Encoder) -> Bank:
    """Embed captions; each different one counts once.

    Args:
      given: a text file (UTF-8) with one caption per line, or `DIR` or `DIR:SPLIT` of a prepared folder; without a
        split its train captions.
      encoder: of the model.

    Raises:
      UserError: no such file or split, or no caption in it.
    """
    texts = _of_file(Path(given)) if Path(given).is_file() else _of_split(given)
    if not texts:
        raise UserError(f"--captions {given} has no caption; give a text file with one per line, or another split")
    return Bank(texts=tuple(texts), vectors=encoder.encode_text(texts), origin=given)


def class_bank(given: Path, *, templates: str, encoder: Encoder) -> Bank:
    """Embed class names: of each, the unit mean over the templates, as in zero-shot classification.

    Raises:
      UserError: no class in the file, or no such templates.
    """
    classes, filled = read_classes(given, names="as_is"), load_templates(templates)
    texts = [text for name in classes.texts for text in filled.fill(name)]
    vectors = encoder.encode_text(texts).reshape(len(classes.texts), -1, encoder.embed_dim)
    return Bank(texts=classes.texts, vectors=class_weights(vectors), origin=f"{given}, templates {filled.name}")


def _of_file(path: Path) -> list[str]:
    lines = text_lines(path, flag="--captions")
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def _of_split(given: str) -> list[str]:
    folder, colon, split = given.rpartition(":")
    folder, split = (folder, split) if colon and not Path(given).exists() else (given, "train")
    if not Path(folder).is_dir():
        raise UserError(f"--captions {given!r} does not exist; give a text file, or DIR:SPLIT of a prepared folder")
    from ...data.batches.records import Records

    records = Records(folder)
    if split not in records.splits:
        raise unknown("split (--captions DIR:SPLIT)", split, records.splits)
    captions = (caption for row in records.rows(split) for caption in row["captions"])
    return list(dict.fromkeys(caption for caption in captions if caption.strip()))
