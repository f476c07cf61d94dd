"""The page of captions: the figures, and examples from the worst to the best."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pages.markup import Html, join, tag
from ...pages.page import paragraph, section, write_page
from ...pages.tables import Tile, protocol_list, tiles
from ...pages.thumbnails import clip_figure, write_webp
from .pictures import clip_frames

if TYPE_CHECKING:
    from ...data.batches.records import Records

EXAMPLES = 24
"""How many the page shows."""
_REFERENCES = 2


def write_captions_page(out: Path, *, results: dict[str, Any], records: "Records") -> Path:
    """Write `index.html` and its pictures; the folder opens from disk without a network.

    Args:
      out: folder of the report, which exists; `captions.json` lies in it.
      results: of `evaluate.caption.caption_split`.
      records: the data set.

    Returns:
      The path of the page.
    """
    figures, protocol, clips = results["captions"], results["protocol"], results["clips"]
    order = np.argsort([one["ROUGE-L"] for one in clips], kind="stable")
    shown = [clips[i] for i in order[np.linspace(0, len(order) - 1, min(EXAMPLES, len(order))).round().astype(int)]]
    names = {
        "BLEU-4": "",
        "ROUGE-L": "",
        "CIDEr-D": "mean over clips, times 100",
        "exact": "equal to a reference, %",
    }
    top = tiles([Tile(name=name, value=f"{100 * figures[name]:.1f}", note=note) for name, note in names.items()])
    text = f"{len(shown)} of {len(clips):,} clips, evenly spread from the lowest to the highest ROUGE-L."
    cards = tag("div", *_cards(out / "media", shown, records=records, split=protocol["split"]), class_="grid")
    return write_page(
        out / "index.html",
        kind="captions",
        title=f"{protocol['dataset']} · {protocol['split']}",
        subtitle=f"{figures['n']:,} clips",
        sections=[top, section("Examples", paragraph(text), cards), section("Protocol", protocol_list(protocol))],
        footer=join(["The same figures are in ", tag("a", "captions.json", href="captions.json"), "."]),
    )


def _cards(folder: Path, shown: list[dict[str, Any]], *, records: "Records", split: str) -> list[Html]:
    """Write the pictures of clips; those of an earlier report are removed."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.webp"):
        old.unlink()
    number = {row["clip_id"]: i for i, row in enumerate(records.rows(split))}
    cards = []
    for place, one in enumerate(shown):
        jpegs, times = clip_frames(records, split=split, index=number[one["clip_id"]])
        path = folder / f"{place:02d}.webp"
        if jpegs:
            write_webp(path, jpegs=jpegs, timestamps_s=times)
        references = " / ".join(one["references"][:_REFERENCES])
        note = join([tag("b", one["caption"]), f" · ROUGE-L {100 * one['ROUGE-L']:.0f}"])
        picture = f"{folder.name}/{path.name}" if jpegs else None
        cards.append(clip_figure(picture, note=note, caption=references, alt=one["caption"]))
    return cards
