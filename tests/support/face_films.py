"""Films with white squares with dots, which the networks of golden/faces take for faces (make_face_models.py)."""

from pathlib import Path

import numpy as np
from media_files import tone, write_media

FOLDER = Path(__file__).parents[1] / "golden" / "faces"
DETECTOR, RECOGNISER = FOLDER / "white_squares.onnx", FOLDER / "colours.onnx"
BACKGROUNDS = {"red": (200, 30, 20), "blue": (20, 30, 200), "green": (20, 160, 30)}
SQUARE = (slice(32, 48), slice(32, 48))


def picture(colour, *, face=True):
    """A plain picture, uint8 [96,96,3], with a white square of 16 pixels and dots in it."""
    made = np.full((96, 96, 3), colour, np.uint8)
    if face:
        made[SQUARE] = 255
        made[34:48:8, 34:48:8] = 90  # what there is to see in a face
    return made


def film(path: Path, colour, *, seconds=2, faces=lambda number: True) -> Path:
    """Four frames a second with sound."""
    frames = [picture(colour, face=faces(number)) for number in range(4 * seconds)]
    return write_media(path, frames, fps=4, sound=tone(seconds))


def shows_a_face(rgb) -> bool:
    """Whether there is any detail in the square."""
    grey = np.asarray(rgb, np.float64)[SQUARE].mean(axis=-1)[1:-1, 1:-1]
    return bool(np.abs(np.diff(grey, n=2, axis=1)).max() > 40)
