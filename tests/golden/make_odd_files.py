"""Make odd_files.json: what becomes of each file of the folder of real odd files (TWINREEL_REAL/odd).

    python tests/golden/make_odd_files.py FOLDER_OF_REAL_FILES [CONTACT_SHEET.png]

The table is checked by eye against the contact sheet (first, middle and last frame of each accepted file) and against
what odd.jsonl says of the file; the test compares all files with it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from twinreel.data.media.decode import DecodedClip, DecodeError, DecodeOptions, decode_clip, read_rgb

OPTIONS = DecodeOptions(fps=None, short_side=64)
TABLE = Path(__file__).with_name("odd_files.json")
TILE = (200, 150)
COLUMNS = 9


def row(result: DecodedClip | DecodeError) -> dict[str, Any]:
    """Return the row of a file: what was decoded, or why it was refused."""
    if isinstance(result, DecodeError):
        return {"rejected": str(result)}
    return {
        "frames": len(result.encoded),
        "height": result.height,
        "width": result.width,
        "duration_s": round(result.duration_s, 3),
        "last_frame_s": round(float(result.timestamps_s[-1]), 3),
        "sound_samples": None if result.audio is None else len(result.audio),
        "silent": result.silent,
        "notes": list(result.notes),
    }


def outcome(path: Path) -> dict[str, Any]:
    """Decode a file and return its row."""
    try:
        return row(decode_clip(path, options=OPTIONS))
    except DecodeError as error:
        return row(error)


def sheet(folder: Path, table: dict[str, Any]) -> Image.Image:
    """Draw the first, middle and last frame of each accepted file."""
    tiles = []
    for name, row in table.items():
        if "rejected" in row:
            continue
        pictures = [rgb for _, rgb in read_rgb(folder / name, options=DecodeOptions(fps=None, short_side=140))]
        for place in (0, len(pictures) // 2, -1):
            tile = Image.new("RGB", TILE, "grey")
            picture = Image.fromarray(np.ascontiguousarray(pictures[place]))
            picture.thumbnail((TILE[0] - 4, TILE[1] - 20))
            tile.paste(picture, (2, 16))
            ImageDraw.Draw(tile).text((2, 2), name.split("__")[1][:30], fill="white")
            tiles.append(tile)
    whole = Image.new("RGB", (TILE[0] * COLUMNS, TILE[1] * -(-len(tiles) // COLUMNS)))
    for index, tile in enumerate(tiles):
        whole.paste(tile, (index % COLUMNS * TILE[0], index // COLUMNS * TILE[1]))
    return whole


def main() -> None:
    """Write the table, and the contact sheet if it is asked for."""
    folder = Path(sys.argv[1]) / "odd"
    table = {path.name: outcome(path) for path in sorted(folder.iterdir())}
    TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    if len(sys.argv) > 2:
        sheet(folder, table).save(sys.argv[2])


if __name__ == "__main__":
    main()
