"""A folder of films and a picture for the tests of `serve`: grey levels and pitches that can be told apart."""

from pathlib import Path

import numpy as np
from media_files import grey, tone, write_media
from PIL import Image

from twinreel.serve.index.build import BuildOptions
from twinreel.serve.index.database import Settings

SETTINGS = Settings(window_s=4.0, overlap_s=2.0, fps=4.0)
LEVELS = (30, 70, 110, 150, 190, 230)
QUICK = BuildOptions(batch_size=4, workers=2)


def write_films(folder: Path) -> Path:
    """Six short films, each of one grey level and one pitch; a long one that becomes brighter; a picture."""
    for number, level in enumerate(LEVELS):
        sound = tone(2, hertz=300 + 200 * number)
        write_media(folder / "short" / f"grey{level}.mp4", grey(*[level] * 8), fps=4, sound=sound)
    levels = [10 * (i // 8) for i in range(8 * 24)]  # two seconds of each level, 48 seconds
    write_media(folder / "long" / "ramp.mp4", grey(*levels), fps=4)
    said = "1\n00:00:20,000 --> 00:00:21,500\n<i>half way</i> there\n\n2\n00:00:40,000 --> 00:00:43,000\ngrey 200\n"
    (folder / "long" / "ramp.en.srt").write_text(said)
    Image.fromarray(np.full((24, 32, 3), 128, np.uint8)).save(folder / "picture.png")
    (folder / "notes.txt").write_text("no film")
    return folder
