"""Single pictures (JPEG, PNG, WebP, BMP) as clips of one frame (Pillow): upright, 8-bit sRGB, transparency on white."""

import io
import re
import warnings

import numpy as np
from PIL import Image, ImageCms, ImageOps

from ..paths import PathLike
from .alpha import ON_WHITE, on_white
from .pictures import check_size
from .place import DecodeError, open_bytes

SHOWN_S = 1 / 25  # duration of a picture as a clip, as libavformat shows series of pictures without a rate
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_HEAD = 4096  # bytes by which a file's format is recognised
_SEVERAL = (".mjpeg", ".mjpg")  # JPEGs one after another: a film


def is_still(path: PathLike) -> bool:
    """Return whether a file is a single picture, by its first bytes; an animated PNG is a film, read by libavformat."""
    with open_bytes(path) as file:
        head = file.read(_HEAD)
    if head.startswith(b"\xff\xd8\xff"):
        return not str(path).lower().endswith(_SEVERAL)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"acTL" not in head.split(b"IDAT")[0]
    if head.startswith(b"BM"):
        return str(path).lower().endswith(".bmp")
    return head.startswith(b"RIFF") and head[8:12] == b"WEBP"


def read_still(path: PathLike, *, short_side: int, max_pixels: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read a picture.

    Args:
      path: the file.
      short_side: pixels of the shorter side, 0 = as in the file; smaller pictures are not enlarged.
      max_pixels: larger pictures are refused before there is memory for them.

    Returns:
      uint8 [H,W,3], and notes on how it differs from the file.

    Raises:
      DecodeError: it cannot be used.
    """
    with open_bytes(path) as file:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels is checked below
                picture = Image.open(file, formats=_FORMATS)
            check_size(*picture.size, max_pixels=max_pixels)
            with picture:
                notes = ["animated picture, only its first frame taken"] if _moves(picture) else []
                rgb = _to_rgb(ImageOps.exif_transpose(picture), notes=notes)
                return np.asarray(scale_by_area(rgb, short_side=short_side)), tuple(notes)
        except (DecodeError, MemoryError):
            raise
        except Image.DecompressionBombError as error:
            pixels = re.search(r"\d+", str(error))
            raise DecodeError(
                f"pictures larger than max_pixels={max_pixels}", f"{pixels[0] if pixels else '?'} pixels"
            ) from error
        except Exception as error:  # Pillow's readers raise OSError, SyntaxError, ValueError, struct.error …
            raise DecodeError("picture cannot be decoded", " ".join(str(error).split())[:100]) from error


def _moves(picture: Image.Image) -> bool:
    return picture.format in ("WEBP", "PNG") and getattr(picture, "n_frames", 1) > 1


def _to_rgb(picture: Image.Image, *, notes: list[str]) -> Image.Image:
    """Return the picture as 8-bit sRGB on white; note transparency, and a colour profile that cannot be used."""
    if picture.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip or cut it
        grey = np.clip(np.asarray(picture, dtype=np.int64), 0, 65535)
        clear = grey == picture.info.get("transparency", -1)
        shown = Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
        return _on_white(shown, Image.fromarray(np.where(clear, 0, 255).astype(np.uint8)), notes=notes)
    alpha = picture.convert("RGBA").getchannel("A") if picture.has_transparency_data else None
    profile = picture.info.get("icc_profile")
    if picture.mode not in ("RGB", "L", "CMYK"):
        picture = picture.convert("RGB")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            picture = converted or picture
        except (ImageCms.PyCMSError, OSError, ValueError):
            notes.append("colour profile of a picture left out")
    picture = picture.convert("RGB")
    return picture if alpha is None else _on_white(picture, alpha, notes=notes)


def _on_white(picture: Image.Image, alpha: Image.Image, *, notes: list[str]) -> Image.Image:
    """Lay a picture on white, where its opacity is below 255 anywhere, and note that."""
    if alpha.getextrema() == (255, 255):
        return picture
    notes.append(ON_WHITE)
    return Image.fromarray(on_white(np.asarray(picture), alpha=np.asarray(alpha)))


def scale_by_area(picture: Image.Image, *, short_side: int) -> Image.Image:
    """Scale as the frames of a film to a shorter side of `short_side` pixels, 0 = as it is; nothing is enlarged."""
    shorter = min(picture.size)
    if not short_side or shorter <= short_side:
        return picture
    width, height = (max(1, round(side * short_side / shorter)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BOX)
