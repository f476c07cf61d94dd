"""Write the manifest of the demo's clips again with other words for colours and shapes: a vocabulary that is new."""

import dataclasses
import os
import re
from pathlib import Path

from ..data.manifest import Clip, read_manifest, write_manifest

COLOURS = {
    **{"red": "rust", "orange": "amber", "yellow": "lemon", "green": "moss", "cyan": "teal", "blue": "sky"},
    **{"purple": "plum", "pink": "coral", "brown": "tan", "white": "snow", "grey": "slate"},
}
"""The demo's word -> the new one."""
SHAPES = {
    **{"disc": "coin", "circle": "ball", "ring": "loop", "hoop": "rim", "square": "tile", "box": "case"},
    **{"triangle": "wedge", "star": "spark", "cross": "mark", "plus sign": "net"},
}
SHORTER = {
    **{"to the left": "left", "to the right": "right", "turns around": "turns", "slowly vanishes": "vanishes"},
    **{"; next,": ", then", "; after that": ", then", ", after that": ", then", ", and at last": ", then"},
}
"""Shorter words for motions and order: a tokenizer that does not know the new words cuts them into more tokens, and
the texts still fit into the context of the demo's checkpoint."""
_WORDS = COLOURS | SHAPES
_FOUND = re.compile(rf"\b({'|'.join(sorted(map(re.escape, _WORDS), key=len, reverse=True))})\b")
_LONGER = re.compile("|".join(map(re.escape, SHORTER)))
_TONE = re.compile(r" while a .*$")


def write(out: Path, *, manifest: Path, seed: int = 0) -> Path:
    """Write the manifest; the clips stay where they are.

    Args:
      out: folder of the new manifest.
      manifest: of the demo's clips.
      seed: of the demo; the words do not depend on it.

    Returns:
      The new manifest.
    """
    del seed
    root = os.path.relpath(manifest.parent, out)
    clips = [renamed(clip, root=root) for clip in read_manifest(manifest)]
    out.mkdir(parents=True, exist_ok=True)
    write_manifest(out / "manifest.jsonl", clips=clips)
    return out / "manifest.jsonl"


def renamed(clip: Clip, *, root: str = ".") -> Clip:
    """Return a clip with the new words in captions, spans and foils, and without questions.

    Captions that are equal in the new words are one.

    Args:
      clip: of the demo.
      root: where its path begins.
    """
    foils = {name: new_words(text) for name, text in clip.foils.items()}
    spans = tuple(dataclasses.replace(span, text=new_words(span.text)) if span.text else span for span in clip.spans)
    meta = {key: value for key, value in clip.meta.items() if key not in ("foils", "attributes", "events")}
    return dataclasses.replace(
        clip,
        path=os.path.normpath(f"{root}/{clip.path}"),
        captions=tuple(dict.fromkeys(new_words(text) for text in clip.captions)),
        spans=spans,
        questions=(),
        labels=tuple(new_words(label) for label in clip.labels),
        meta=meta | ({"foils": foils} if foils else {}),
    )


def new_words(text: str) -> str:
    """Return a text in the new words for colours and shapes, with shorter ones elsewhere and without the tone."""
    text = _LONGER.sub(lambda found: SHORTER[found[0]], _TONE.sub("", text))
    return _FOUND.sub(lambda found: _WORDS[found[1]], text)
