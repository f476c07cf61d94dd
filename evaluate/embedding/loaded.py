"""A split's rows and texts, read and tokenised once however often the split is embedded."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...base.errors import UserError, unknown
from ...encode.devices.rows import shares
from ..progress import track
from ..protocols.minimal_pairs import list_foils

if TYPE_CHECKING:
    from ...data.batches.records import Records
    from ...encode.embed.encoder import Encoder

CAPTIONS = ("all", "first")
PLAIN = "{}"
"""The prompt that leaves texts as they are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    """Texts as token ids; equal ones stand once: in two places of a batch a device may round one differently.

    Attributes:
      ids: int32 [u,L].
      mask: bool [u,L], True = a real token.
      place: int64 [n], the row of each text.
      truncated: how many of the n texts are longer than the context.
    """

    ids: np.ndarray
    mask: np.ndarray
    place: np.ndarray
    truncated: int

    @classmethod
    def of(cls, encoder: "Encoder", *, texts: list[str], prompt: str = PLAIN) -> "Tokens":
        """Clean and tokenise n texts as the model's input has it, each put into the prompt."""
        from ...data.text.clean import text_cleaner

        clean = text_cleaner(encoder.input.text)
        cleaned = [prompt.replace("{}", clean(text)) for text in texts]
        ids, mask, truncated = encoder.tokenizer.encode(cleaned, context_length=encoder.input.context_length)
        _, first, place = np.unique(ids, axis=0, return_index=True, return_inverse=True)
        return cls(ids=ids[first], mask=mask[first], place=place.reshape(-1), truncated=truncated)

    def embed(self, encoder: "Encoder", *, what: str, batch_size: int, progress: bool) -> np.ndarray:
        """Embed the texts, float32 [n,E], each process its share; all processes must call this.

        Args:
          encoder: the model.
          what: name of the progress bar.
          batch_size: rows of a global batch, a multiple of the devices.
          progress: draw a progress bar.
        """
        total, parts = len(self.ids), []
        batches = list(shares(total, batch_size=batch_size))
        for _, own in track(batches, what=what, total=total, batch_size=batch_size, progress=progress):
            # The last batch is filled up by starting again from the first text, so that the model compiles once.
            rows = np.arange(own.start, own.stop) % total
            found = encoder.embed_local({"text": self.ids[rows], "text_mask": self.mask[rows]}, side="text")
            parts.append(found["embedding"])
        return np.concatenate(parts)[:total][self.place]


class LoadedSplit:
    """The clips of a split that are embedded, with their captions and foils.

    Attributes:
      records: the opened folder.
      split: the split's name.
      only: int64 [m], the records that take part, rising; None = all.
      rows: the m lines of `clips.jsonl`.
      captions: "all" of each clip, or its "first".
      prompt: template that the captions and foils are put into before they become tokens.
      texts: n captions.
      video_of_text: int64 [n], each caption's row.
      foils: the texts of the foils, the caption of each, and their names, see `minimal_pairs.list_foils`.
    """

    def __init__(
        self,
        records: "Records",
        *,
        split: str,
        captions: str = "all",
        only: np.ndarray | None = None,
        prompt: str = PLAIN,
    ):
        """Read the rows.

        Raises:
          UserError: no such split, no caption in it, an unknown value of `captions`, or a prompt without a place for
            the text.
        """
        if captions not in CAPTIONS:
            raise unknown("value of captions", captions, CAPTIONS)
        if split not in records.splits:
            raise unknown("split", split, records.splits)
        self.records, self.split, self.captions, self.only = records, split, captions, only
        self.prompt = check_prompt(prompt)
        every = records.rows(split)
        self.rows: list[dict[str, Any]] = list(every) if only is None else [every[int(i)] for i in only]
        self.texts, self.video_of_text = _texts(self.rows, captions=captions, folder=records.folder)
        self.foils = list_foils(self.rows, video_of_text=self.video_of_text)
        self._tokens: dict[str, Tokens] = {}

    def tokens(self, encoder: "Encoder") -> Tokens:
        """Return the captions as tokens; made at the first call and kept, for encoders of one tokenizer and input."""
        return self._kept("captions", encoder, self.texts)

    def foil_tokens(self, encoder: "Encoder") -> Tokens:
        """Return the foils as tokens, as `tokens`."""
        return self._kept("foils", encoder, self.foils[0])

    def _kept(self, name: str, encoder: "Encoder", texts: list[str]) -> Tokens:
        if name not in self._tokens:
            self._tokens[name] = Tokens.of(encoder, texts=texts, prompt=self.prompt)
        return self._tokens[name]


def check_prompt(prompt: str) -> str:
    """Return a prompt, or raise a UserError if it has no single place for the text.

    >>> check_prompt("a video of {}")
    'a video of {}'
    """
    if prompt.count("{}") != 1:
        raise UserError(f"--prompt {prompt!r} must have one {{}} where the text goes, such as 'a video of {{}}'")
    return prompt


def _texts(rows: list[dict[str, Any]], *, captions: str, folder: Path) -> tuple[list[str], np.ndarray]:
    if not rows:
        raise UserError(f"the split is empty in {folder}; prepare it again with clips in that split")
    if not any(row["captions"] for row in rows):
        raise UserError(
            f"none of the {len(rows)} clips of the split has a caption in {folder}, so there is nothing to retrieve "
            "them by; give captions in the manifest and prepare again"
        )
    chosen = [row["captions"] if captions == "all" else row["captions"][:1] for row in rows]
    index = np.repeat(np.arange(len(rows)), [len(texts) for texts in chosen])
    return [text for texts in chosen for text in texts], index
