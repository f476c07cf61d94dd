"""The page of captions: the figures, and examples from the worst to the best."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pages.markup import Html, join, tag
from ...pages.page import paragraph, section, write_page
from ...pages.tables import Tile, protocol_list, tiles
from ...pages.thumbnails import clip_figure
from .pictures import evenly_spread, write_thumbnails

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
    shown = [clips[i] for i in evenly_spread(order, record=np.arange(len(clips)), count=EXAMPLES)]
    notes = {"CIDEr-D": "mean over clips, times 100", "exact": "equal to a reference, %"}
    names = [name for name in ("BLEU-4", "ROUGE-L", "CIDEr-D", "METEOR", "exact") if name in figures]
    top = tiles([Tile(name=name, value=f"{100 * figures[name]:.1f}", note=notes.get(name, "")) for name in names])
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
    """Write the pictures of clips, and return them with their captions."""
    number = {row["clip_id"]: i for i, row in enumerate(records.rows(split))}
    clips = {one["clip_id"]: number[one["clip_id"]] for one in shown}
    pictures = write_thumbnails(folder, records=records, split=split, clips=clips)
    cards = []
    for one in shown:
        references = " / ".join(one["references"][:_REFERENCES])
        note = join([tag("b", one["caption"]), f" · ROUGE-L {100 * one['ROUGE-L']:.0f}"])
        cards.append(clip_figure(pictures.get(one["clip_id"]), note=note, caption=references, alt=one["caption"]))
    return cards
