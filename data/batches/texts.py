"""Which text a row of a batch gets, and its token ids: captions, transcript, prompts. No tensorflow."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...base.errors import UserError, unknown
from ..options import DataOptions
from ..said import within
from ..text.clean import text_cleaner
from ..text.tokenizer import Tokenizer
from .draws import below, numbers
from .foils import check_foils, draw_foils
from .table import Table
from .unique import Unique

TEXT_FROM = ("captions", "sentences", "transcript")
_COUNTED = 200_000  # texts whose length is looked at before training; more are thinned evenly
_CAPTION, _PROMPT, _FOIL = 1, 2, 16  # what a number is drawn for; of a foil, 16 and its place among the record's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chosen:
    """Whose text is wanted, for each row of a batch.

    Attributes:
      source: int32 [b].
      record: int64 [b].
      epoch: int64 [b].
      caption: int32 [b,C], numbers of the record's captions; -1 = none.
      window: float32 [b,2], start and end of the time window in seconds from the clip's start.
    """

    source: np.ndarray
    record: np.ndarray
    epoch: np.ndarray
    caption: np.ndarray
    window: np.ndarray


class Lengths(NamedTuple):
    """How long the texts of a run are.

    Attributes:
      total: number of texts whose length was looked at (all, or an even sample of very many).
      truncated: how many of them are longer than the context and will be cut.
      longest: tokens of the longest of them.
    """

    total: int
    truncated: int
    longest: int


class Texts:
    """The texts of one or several sources."""

    def __init__(self, rows: Sequence[Table], *, data: DataOptions, tokenizer: Tokenizer, seed: int):
        """Check the options.

        Args:
          rows: the lines of clips.jsonl of each source.
          data: `config.data`.
          tokenizer: turns strings into ids.
          seed: of the run; -1 = evaluation: first caption, first sentence, no prompt.

        Raises:
          UserError: options that do not fit, or a prompt without {}.
        """
        _check(data)
        self._rows, self._data, self._tokenizer, self._seed = rows, data, tokenizer, seed
        self._clean = text_cleaner(data.input.text)
        tokenizer.encode([""], context_length=data.input.context_length)  # refuses one that is too short
        self._foils = data.feed.foils_per_clip if seed >= 0 else 0
        if self._foils:
            check_foils(rows, weights=data.feed.foil_weights)

    def choose(self, source: np.ndarray, *, record: np.ndarray, epoch: np.ndarray) -> np.ndarray:
        """Return int32 [b,C]: numbers of different captions of each row's record, -1 where there are no more."""
        wanted = self._data.feed.captions_per_clip
        count = np.empty(len(record), np.int32)
        for i in np.unique(source):
            count[source == i] = self._rows[i].rows(record[source == i])["captions"]
        if self._seed < 0:
            first = np.zeros(len(record), np.int32)
        else:
            first = below(count, self._numbers(source, record=record, epoch=epoch, what=_CAPTION))
        # Candidates follow the drawn one, round the record's list.
        place = np.arange(wanted, dtype=np.int32)
        after = (first[:, None] + place) % np.maximum(count, 1)[:, None]
        return np.where(place < count[:, None], after, -1).astype(np.int32)

    def let_each_stand_once(self, source: np.ndarray, *, record: np.ndarray, caption: np.ndarray) -> np.ndarray:
        """Choose other captions where one stands in an earlier row of the global batch already; see `Unique.choose`."""
        unique = Unique(self._rows, clean=self._clean, cleaning=self._data.input.text)
        return unique.choose(source, record=record, caption=caption)

    def encode(self, chosen: Chosen) -> dict[str, np.ndarray]:
        """Return the texts of a batch as ids.

        Returns:
          `text int32 [b,L]`, `text_mask bool [b,L]` (with `captions_per_clip` C above 1: [b,C,L]) and `caption_index
          int32 [b]` or [b,C]: the number of the caption or sentence, 0 for a whole transcript, -1 = there is none; its
          text is the empty one. In training, with `foils_per_clip` n, also `foil int32 [b,n,L]`, `foil_mask bool
          [b,n,L]` and `foil_valid bool [b,n]`, which foils there are.
        """
        picked = [self._pick(chosen, i) for i in range(len(chosen.record))]
        numbers = [[number for number, _ in texts] for texts in picked]
        index = np.array(numbers, np.int32).reshape(len(picked), self._data.feed.captions_per_clip)
        strings = [text for texts in picked for _, text in texts]
        prompts = self._prompts(chosen)
        strings = [prompts[i // index.shape[1]](self._clean(text)) if text else "" for i, text in enumerate(strings)]
        ids, mask, _ = self._tokenizer.encode(strings, context_length=self._data.input.context_length)
        shape = (*index.shape, self._data.input.context_length)
        ids, mask = ids.reshape(shape), mask.reshape(shape)
        if self._data.feed.captions_per_clip == 1:
            ids, mask, index = ids[:, 0], mask[:, 0], index[:, 0]
        return {"text": ids, "text_mask": mask, "caption_index": index} | self._wrong(chosen, prompts=prompts)

    def _wrong(self, chosen: Chosen, *, prompts: list[Callable[[str], str]]) -> dict[str, np.ndarray]:
        """Return drawn foils, each in the prompt of its row, and which of them there are; {} if none are wanted."""
        if not self._foils:
            return {}
        foils = [self._rows[s][r].get("foils") or {} for s, r in zip(chosen.source, chosen.record, strict=True)]
        of = {name: getattr(chosen, name) for name in ("source", "record", "epoch")}
        numbers = [self._numbers(**of, what=_FOIL + place) for place in range(max(map(len, foils), default=0))]
        how, strings = {"count": self._foils, "weights": self._data.feed.foil_weights}, []
        for i, own in enumerate(foils):
            drawn = draw_foils(own, numbers=np.array([column[i] for column in numbers], np.uint64), **how)
            strings += [prompts[i](self._clean(text)) if text else "" for text in drawn]
        length = self._data.input.context_length
        ids, mask, _ = self._tokenizer.encode(strings, context_length=length)
        shape = (len(chosen.record), self._foils)
        there = np.array([bool(text) for text in strings]).reshape(shape)
        return {"foil": ids.reshape(*shape, length), "foil_mask": mask.reshape(*shape, length), "foil_valid": there}

    def _pick(self, chosen: Chosen, i: int) -> list[tuple[int, str]]:
        """Return (number, text) of each of the C texts of row i; (-1, "") where there is none."""
        row = self._rows[chosen.source[i]][chosen.record[i]]
        if self._data.feed.text_from == "captions":
            return [(int(c), row["captions"][c] if c >= 0 else "") for c in chosen.caption[i]]
        start, end = chosen.window[i].tolist()
        cut = (within(sentence, start_s=start, end_s=end) for sentence in row["sentences"])
        said = [(number, part["text"]) for number, part in enumerate(cut) if part is not None]
        if not row["sentences"] and row["transcript"]:
            said = [(0, row["transcript"])]
        if not said:
            return [(-1, "")]
        if self._data.feed.text_from == "transcript":
            return [(0, " ".join(text for _, text in said))]
        if self._seed < 0:
            return [said[0]]
        one = {name: getattr(chosen, name)[i : i + 1] for name in ("source", "record", "epoch")}
        return [said[int(below(np.array([len(said)]), self._numbers(**one, what=_CAPTION))[0])]]

    def _prompts(self, chosen: Chosen) -> list[Callable[[str], str]]:
        templates = self._data.augment.prompts
        if not templates or self._seed < 0:
            return [str] * len(chosen.record)
        drawn = self._numbers(chosen.source, record=chosen.record, epoch=chosen.epoch, what=_PROMPT)
        number = below(np.full(len(drawn), len(templates)), drawn)
        return [functools.partial(_fill, templates[n]) for n in number]

    def _numbers(self, source: np.ndarray, *, record: np.ndarray, epoch: np.ndarray, what: int) -> np.ndarray:
        return numbers(seed=self._seed, epoch=epoch, source=source, record=record, what=what)

    @functools.cached_property
    def lengths(self) -> Lengths:
        """How long the texts are; the first call tokenises them."""
        most = _COUNTED // len(self._rows)
        texts = [
            text
            for rows in self._rows
            for row in rows.sample(most)
            for text in texts_of(row, self._data.feed.text_from)
        ]
        texts = texts[:: -(-len(texts) // _COUNTED) or 1]
        longest = max(self._data.augment.prompts, key=len, default="{}")
        strings = [_fill(longest, self._clean(text)) for text in texts]
        lengths = self._tokenizer.lengths(strings)
        cut = int((lengths > self._data.input.context_length).sum())
        return Lengths(total=len(texts), truncated=cut, longest=int(lengths.max(initial=0)))


def _fill(template: str, text: str) -> str:
    return template.replace("{}", text)


def texts_of(row: dict[str, Any], text_from: str) -> list[str]:
    """Return all texts that a line of clips.jsonl can give, for a value of `config.data.text_from`."""
    if text_from == "captions":
        return row["captions"]
    said = [sentence["text"] for sentence in row["sentences"]] or [row["transcript"]]
    return said if text_from == "sentences" else [" ".join(said)]


def _check(data: DataOptions) -> None:
    if data.feed.text_from not in TEXT_FROM:
        raise unknown("value of config.data.text_from:", data.feed.text_from, TEXT_FROM)
    for prompt in data.augment.prompts:
        if prompt.count("{}") != 1:
            raise UserError(f"config.data.prompts: {prompt!r} must have one {{}} where the text goes")
    if data.feed.captions_per_clip < 1:
        raise UserError(
            f"captions_per_clip={data.feed.captions_per_clip} must be at least 1; set config.data.captions_per_clip"
        )
    for field, on in (
        ("captions_per_clip", data.feed.captions_per_clip > 1),
        ("unique_captions", data.feed.unique_captions),
    ):
        if on and data.feed.text_from != "captions":
            raise UserError(
                f"config.data.{field}={getattr(data.feed, field)} needs config.data.text_from='captions', "
                f"got {data.feed.text_from!r}"
            )
    if data.feed.unique_captions and data.feed.captions_per_clip > 1:
        raise UserError("config.data.unique_captions needs config.data.captions_per_clip=1: several candidates overlap")
