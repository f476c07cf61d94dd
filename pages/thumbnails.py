"""Pictures of clips: animated thumbnails, strips of frames and contact sheets from JPEG frames."""

import base64
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .markup import Html, tag

LONGEST_S = 6.0
"""An animated thumbnail plays at most this long; longer clips are played faster."""

_MAX_FRAMES = 24
_LAST_FRAME_MS = 700
_COLUMNS, _WIDTH, _HEIGHT, _TEXT, _GAP = 6, 176, 120, 44, 10  # of a contact sheet; pixels
_PAPER, _INK, _MUTED, _SCREEN = "#fbfaf7", "#1d2021", "#6b7073", "#eceae4"
_LINES = 2  # of a caption
_LONGEST_TEXT = 400  # characters of it that are looked at: more than fit into these lines


def write_webp(path: Path, *, jpegs: Sequence[bytes], timestamps_s: np.ndarray, side: int = 192) -> None:
    """Write frames as an animated WebP that loops.

    Each frame is shown as long as its timestamps say, the last one a little longer; a clip of more than `LONGEST_S`
    seconds is played faster, in that time.

    Args:
      path: the file.
      jpegs: n encoded frames; at most 24 of them, evenly spread, are kept.
      timestamps_s: float [n], seconds, increasing.
      side: longer side of the picture in pixels; smaller frames are not enlarged.
    """
    kept = np.unique(np.linspace(0, len(jpegs) - 1, min(len(jpegs), _MAX_FRAMES)).round().astype(int))
    pictures = [_shrunk(jpegs[i], side=side) for i in kept]
    times = np.asarray(timestamps_s, dtype=np.float64)[kept]
    faster = min(1.0, LONGEST_S / max(times[-1] - times[0], 1e-3))
    durations = [max(20, round(1000 * faster * step)) for step in np.diff(times)] + [_LAST_FRAME_MS]
    first, *rest = pictures
    if not rest:
        first.save(path, "WEBP", quality=75)
        return
    # Method 2 of 6 takes a third of the default's time, for files a few percent larger.
    first.save(path, "WEBP", save_all=True, append_images=rest, duration=durations, loop=0, quality=70, method=2)


def write_strip(path: Path, *, jpegs: Sequence[bytes], count: int = 5, side: int = 112) -> None:
    """Write `count` frames, evenly spread from the first to the last, side by side as one WebP picture.

    Args:
      path: the file.
      jpegs: n encoded frames of one size, in order; a clip of fewer than `count` repeats some.
      count: how many frames.
      side: longer side of each in pixels; smaller frames are not enlarged.
    """
    gap = max(1, side // 28)
    pictures = [_shrunk(jpegs[i], side=side) for i in np.linspace(0, len(jpegs) - 1, count).round().astype(int)]
    width, height = pictures[0].size
    strip = Image.new("RGBA", (count * (width + gap) - gap, height))
    for place, picture in enumerate(pictures):
        strip.paste(picture, (place * (width + gap), 0))
    strip.save(path, "WEBP", quality=75)


def jpeg_uri(jpeg: bytes, *, side: int = 240) -> str:
    """Return a frame as a `data:` URI, at most `side` pixels on its longer side, to stand in the page itself."""
    out = io.BytesIO()
    _shrunk(jpeg, side=side).save(out, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def clip_figure(
    src: str | None, *, note: object, caption: str, alt: str | None = None, mark: str = "", text: object = None
) -> Html:
    """Return a clip as `<figure>`: its picture, a line about it, its caption (cut to a few lines, whole as a tooltip).

    Args:
      src: the picture, relative to the page, or a `data:` URI; None for an empty frame.
      note: the line; escaped unless `Html`.
      caption: of the clip.
      alt: describes the picture; the caption by default.
      mark: further classes: "right" or "wrong" (outlined), "strip" (frames side by side), "apart" (small).
      text: shown instead of the caption, which remains the tooltip; escaped unless `Html`.
    """
    picture = tag("span", class_="blank")
    if src is not None:
        picture = tag("img", src=src, alt=caption if alt is None else alt, loading="lazy", decoding="async")
    below = tag("span", caption if text is None else text, class_="own", title=caption)
    return tag(
        "figure",
        picture,
        tag("figcaption", tag("span", note, class_="note"), below if caption or text else ""),
        class_=f"clip {mark}".rstrip(),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SheetClip:
    """A clip of a contact sheet.

    Attributes:
      jpeg: one encoded frame; b"" for an empty field.
      group: stands before the caption, such as the split.
      caption: text below the frame.
    """

    jpeg: bytes
    group: str
    caption: str


def write_contact_sheet(path: Path, *, clips: Sequence[SheetClip]) -> None:
    """Write at least one clip as one JPEG picture, six to a line, each with its group and caption."""
    columns = min(_COLUMNS, len(clips))
    lines = -(-len(clips) // columns)
    size = (columns * (_WIDTH + _GAP) - _GAP, lines * (_HEIGHT + _TEXT + _GAP) - _GAP)
    sheet = Image.new("RGB", size, _PAPER)
    for place, clip in enumerate(clips):
        at = (place % columns * (_WIDTH + _GAP), place // columns * (_HEIGHT + _TEXT + _GAP))
        _draw_clip(sheet, clip, at=at)
    sheet.save(path, "JPEG", quality=88)


def _draw_clip(sheet: Image.Image, clip: SheetClip, *, at: tuple[int, int]) -> None:
    """Draw a frame and the text below it."""
    canvas = ImageDraw.Draw(sheet)
    x, y = at
    canvas.rectangle((x, y, x + _WIDTH - 1, y + _HEIGHT - 1), fill=_SCREEN)
    if clip.jpeg:
        with Image.open(io.BytesIO(clip.jpeg)) as picture:
            picture = picture.convert("RGB")
        picture.thumbnail((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS)
        sheet.paste(picture, (x + (_WIDTH - picture.width) // 2, y + (_HEIGHT - picture.height) // 2))
    font = _font()
    for number, line in enumerate(_wrapped(f"{clip.group}: {clip.caption}", font=font)):
        canvas.text((x, y + _HEIGHT + 4 + 16 * number), line, fill=_INK if number else _MUTED, font=font)


def _wrapped(text: str, *, font: Any) -> list[str]:
    """Break a text into at most `_LINES` lines that fit; the last one is cut short if need be."""
    lines, line = [], ""
    for word in text[:_LONGEST_TEXT].split():
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
    """Return the font that ships with matplotlib: it is on every machine, so a sheet is the same on all of them."""
    import matplotlib.font_manager

    return ImageFont.truetype(matplotlib.font_manager.findfont("DejaVu Sans"), 12)


def _shrunk(jpeg: bytes, *, side: int) -> Image.Image:
    with Image.open(io.BytesIO(jpeg)) as picture:
        picture.draft("RGB", (side, side))  # libjpeg decodes at a half, a quarter or an eighth where that suffices
        picture = picture.convert("RGB")
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture
