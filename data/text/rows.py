"""Ragged token ids to padded rows, and the check that every tokenizer makes of its texts. No tensorflow."""

from collections.abc import Sequence

import numpy as np

from ...base.errors import UserError


def padded(rows: Sequence[Sequence[int]], *, context_length: int, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Write rows of ids into one array, padding on the right.

    Args:
      rows: n rows of at most `context_length` ids.
      context_length: the width L.
      pad_id: the id that fills the rest; it may also be a real token's, the mask tells them apart.

    Returns:
      ids int32 [n,L] and mask bool [n,L], True = real.
    """
    lengths = np.fromiter(map(len, rows), np.int64, count=len(rows))
    mask = np.arange(context_length) < lengths[:, None]
    ids = np.full((len(rows), context_length), pad_id, np.int32)
    ids[mask] = np.fromiter((i for row in rows for i in row), np.int32, count=int(lengths.sum()))
    return ids, mask


def check_room(context_length: int, *, around: int) -> None:
    """Refuse a context that has no room for the `around` tokens which stand around every text and one of its own.

    Raises:
      UserError: names the field and the least value.
    """
    least = max(2, around)
    if context_length < least:
        raise UserError(
            f"context_length={context_length} has no room for the begin and end tokens; "
            f"set config.data.context_length to {least} or more"
        )


def check_texts(strings: Sequence[str]) -> list[str]:
    """Return the texts as a list, if UTF-8 can hold them all.

    Raises:
      UserError: a text with half of a surrogate pair, which comes of bytes decoded with errors="surrogateescape" or of
        broken JSON; no tokenizer can spell it.
    """
    strings = list(strings)
    try:
        "".join(strings).encode("utf-8")
    except UnicodeEncodeError:
        for text in strings:  # each alone: two halves that meet at a seam are no pair
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise UserError(
                    f"text {ascii(text)[:80]} holds half of a surrogate pair at character {error.start}, which no "
                    "UTF-8 text can; read its source as UTF-8, or drop the character"
                ) from None
    return strings
