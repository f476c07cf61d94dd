"""The contact sheet: the middle frames of some clips with their captions, as one JPEG."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.font_manager
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .verify import read_frames

_COLUMNS, _WIDTH, _HEIGHT, _TEXT, _GAP = 6, 176, 120, 44, 10  # pixels
_PAPER, _INK, _MUTED, _SCREEN = "#fbfaf7", "#1d2021", "#6b7073", "#eceae4"
_LINES = 2  # of a caption


def write_sheet(
    path: Path,
    *,
    folder: Path,
    shards: Sequence[dict[str, Any]],
    rows: dict[str, list[dict[str, Any]]],
    count: int,
    seed: int,
) -> int:
    """Draw up to `count` clips at random, an equal share of each split where it has as many; return their number."""
    chosen = draw({split: len(members) for split, members in rows.items()}, count=count, seed=seed)
    total = sum(map(len, chosen.values()))
    columns = min(_COLUMNS, total)
    lines = -(-total // columns)
    size = (columns * (_WIDTH + _GAP) - _GAP, lines * (_HEIGHT + _TEXT + _GAP) - _GAP)
    sheet = Image.new("RGB", size, _PAPER)
    place = 0
    for split, indices in chosen.items():
        for index, jpeg in zip(indices, read_frames(folder, shards=shards, split=split, indices=indices), strict=True):
            at = (place % columns * (_WIDTH + _GAP), place // columns * (_HEIGHT + _TEXT + _GAP))
            _put(sheet, at, jpeg=jpeg, split=split, caption=next(iter(rows[split][index]["captions"]), ""))
            place += 1
    sheet.save(path, "JPEG", quality=88)
    return total


def draw(sizes: dict[str, int], *, count: int, seed: int) -> dict[str, list[int]]:
    """Draw indices of clips by split, in order; splits share `count` as evenly as their sizes allow.

    >>> {split: len(indices) for split, indices in draw({"train": 100, "val": 2, "test": 9}, count=12, seed=0).items()}
    {'train': 5, 'val': 2, 'test': 5}
    """
    given = dict.fromkeys(sizes, 0)
    while sum(given.values()) < min(count, sum(sizes.values())):
        open_ = [split for split in sizes if given[split] < sizes[split]]
        given[min(open_, key=lambda split: given[split])] += 1
    rng = np.random.default_rng(seed)
    return {split: sorted(rng.permutation(sizes[split])[: given[split]].tolist()) for split in sizes}


def _put(sheet: Image.Image, at: tuple[int, int], *, jpeg: bytes, split: str, caption: str) -> None:
    """Put a frame and what stands below it."""
    canvas = ImageDraw.Draw(sheet)
    x, y = at
    canvas.rectangle((x, y, x + _WIDTH - 1, y + _HEIGHT - 1), fill=_SCREEN)
    if jpeg:
        with Image.open(io.BytesIO(jpeg)) as picture:
            picture = picture.convert("RGB")
        picture.thumbnail((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS)
        sheet.paste(picture, (x + (_WIDTH - picture.width) // 2, y + (_HEIGHT - picture.height) // 2))
    font = _font()
    for number, line in enumerate(_wrapped(f"{split}: {caption}", font=font)):
        canvas.text((x, y + _HEIGHT + 4 + 16 * number), line, fill=_INK if number else _MUTED, font=font)


def _wrapped(text: str, *, font: Any) -> list[str]:
    """Break a text into at most `_LINES` lines that fit, the last one cut short if need be."""
    lines, line = [], ""
    for word in text.split():
        if line and font.getlength(f"{line} {word}") > _WIDTH:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    lines.append(line)
    kept = lines[:_LINES]
    if len(lines) > _LINES:
        kept[-1] += " …"
    return [_cut(one, font=font) for one in kept]


def _cut(line: str, *, font: Any) -> str:
    while font.getlength(line) > _WIDTH and len(line) > 1:
        line = line.rstrip("…").rstrip()[:-1] + "…"
    return line


def _font() -> Any:
    """The font that matplotlib brings along: there on every machine, so the sheet is the same on all."""
    return ImageFont.truetype(matplotlib.font_manager.findfont("DejaVu Sans"), 12)
