"""Generated clips as files: films, and pictures of them for pages."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ...base.errors import UserError
from ...data.media.write import write_film
from ...pages.markup import Html, tag
from ...pages.page import paragraph, section, write_page
from ...pages.tables import protocol_list
from ...pages.thumbnails import clip_figure, write_strip, write_webp

_SIDE = 144  # pixels of a picture on a page, at least
_STRIP = 8  # frames of a strip, at most


def check_seconds(seconds: float) -> None:
    """Raise UserError unless a clip may last so long."""
    if not 0 < seconds <= 3600:
        raise UserError(f"--seconds must be above 0 and at most 3600, got {seconds:g}")


def write_clip(path: Path, *, frames: UInt8[np.ndarray, "T H W 3"], seconds: float) -> None:
    """Write frames as an MP4 file that lasts `seconds`, each shown equally long."""
    step = seconds / len(frames)
    write_film(path, pictures=((i * step, (i + 1) * step, frame) for i, frame in enumerate(frames)))


def write_moving(path: Path, *, frames: UInt8[np.ndarray, "T H W 3"], seconds: float) -> None:
    """Write frames as an animated WebP, small ones enlarged."""
    times = np.arange(len(frames)) * seconds / len(frames)
    write_webp(path, jpegs=_jpegs(frames), timestamps_s=times, side=max(_SIDE, *frames.shape[1:3]))


def write_frames(path: Path, *, frames: UInt8[np.ndarray, "T H W 3"]) -> None:
    """Write frames side by side as one WebP picture."""
    write_strip(path, jpegs=_jpegs(frames), count=min(_STRIP, len(frames)), side=96)


def write_clips_page(
    out: Path,
    *,
    kind: str,
    title: str,
    clips: Sequence[tuple[str, str, UInt8[np.ndarray, "T H W 3"]]],
    protocol: dict[str, object],
    seconds: float,
) -> Path:
    """Write `index.html` with clips in motion; the folder opens from disk without a network.

    Args:
      out: the folder, which exists.
      kind: what is shown, such as "generated clips".
      title: of the page.
      clips: of each a note, its text and its frames.
      protocol: how they were made.
      seconds: length of a clip.
    """
    media = out / "media"
    media.mkdir(exist_ok=True)
    cards: list[Html] = []
    for number, (note, text, frames) in enumerate(clips):
        write_moving(media / f"{number:04d}.webp", frames=frames, seconds=seconds)
        cards.append(clip_figure(f"media/{number:04d}.webp", note=note, caption=text))
    return write_page(
        out / "index.html",
        kind=kind,
        title=title,
        subtitle=f"{len(clips):,} clips",
        sections=[
            section("Clips", tag("div", *cards, class_="grid")),
            section("Protocol", paragraph("The same command with the same seed makes the same clips."),
                    protocol_list(protocol)),
        ],
        footer="",
        variables={"shape": "1"},
    )  # fmt: skip


def _jpegs(frames: UInt8[np.ndarray, "T H W 3"]) -> list[bytes]:
    """Encode frames, small ones enlarged by a whole factor."""
    factor = max(1, -(-_SIDE // max(frames.shape[1:3])))
    found = []
    for frame in frames:
        picture, out = Image.fromarray(frame), io.BytesIO()
        size = (picture.width * factor, picture.height * factor)
        picture.resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=92)
        found.append(out.getvalue())
    return found
