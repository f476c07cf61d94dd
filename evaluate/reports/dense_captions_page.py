"""The page of dense captions: the figures by threshold, and clips with their events beside the references."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pages.markup import Html, join, tag
from ...pages.page import paragraph, section, write_page
from ...pages.tables import Row, Tile, protocol_list, table, tiles
from ...pages.timelines import Lane, clock, timeline
from ..measures.captions import ptb_tokens
from ..measures.dense_captions import caption_matrix, matched_in_order, overlap_of
from .pictures import evenly_spread, write_strips

if TYPE_CHECKING:
    from ...data.batches.records import Records

EXAMPLES = 16
"""How many clips the page shows."""
_FIGURES = ("BLEU-4", "ROUGE-L", "CIDEr-D", "METEOR", "precision", "recall")


def write_dense_captions_page(out: Path, *, results: dict[str, Any], records: "Records") -> Path:
    """Write `index.html` and its pictures; the folder opens from disk without a network.

    Args:
      out: folder of the report, which exists; `captions.json` lies in it.
      results: of `evaluate.dense_caption.caption_events_of_split`.
      records: the data set.

    Returns:
      The path of the page.
    """
    figures, protocol, clips = results["events"], results["protocol"], results["clips"]
    order = np.argsort([one["SODA"] for one in clips], kind="stable")
    shown = [clips[i] for i in evenly_spread(order, record=np.arange(len(clips)), count=EXAMPLES)]
    text = f"{len(shown)} of {len(clips):,} clips, evenly spread from the lowest to the highest SODA."
    examples = tag(
        "div", *_examples(out / "media", shown, records=records, split=protocol["split"]), class_="timelines"
    )
    counted = f"{figures['predicted']:,} events found, {figures['references']:,} in the references"
    return write_page(
        out / "index.html",
        kind="events with captions",
        title=f"{protocol['dataset']} · {protocol['split']}",
        subtitle=f"{figures['films']:,} clips · {counted}",
        sections=[
            _tiles(figures),
            section("By threshold of overlap", _by_threshold(figures)),
            section("Examples", paragraph(text), examples),
            section("Protocol", protocol_list(protocol)),
        ],
        footer=join(["The same figures are in ", tag("a", "captions.json", href="captions.json"), "."]),
    )


def _tiles(figures: dict[str, Any]) -> Html:
    notes = {"CIDEr-D": "times 100", "precision": "found events, %", "recall": "reference events, %"}
    shown = [
        Tile(name=f"SODA, {name}", value=f"{100 * one['F1']:.1f}", note="in the order of time, F1")
        for name, one in figures["SODA"].items()
    ]
    names = [name for name in _FIGURES if name in figures]
    return tiles(
        [*shown, *(Tile(name=name, value=f"{100 * figures[name]:.1f}", note=notes.get(name, "")) for name in names)]
    )


def _by_threshold(figures: dict[str, Any]) -> Html:
    """Return a table of the figures at each threshold, and their means."""
    names = [name for name in _FIGURES if name in figures]

    def row(name: str, one: dict[str, float], mark: str = "") -> Row:
        return Row(name=name, cells=[f"{100 * one[key]:.1f}" for key in names], mark=mark)

    rows = [row(f"tIoU ≥ {limit}", one) for limit, one in figures["at"].items()]
    return table(names, rows=[*rows, row("mean", figures, "main")])


def _examples(folder: Path, shown: list[dict[str, Any]], *, records: "Records", split: str) -> list[Html]:
    """Write frames of clips, and return each clip with its events on a line of time and in a list."""
    number = {row["clip_id"]: i for i, row in enumerate(records.rows(split))}
    clips = {one["clip_id"]: number[one["clip_id"]] for one in shown}
    strips = write_strips(folder, records=records, split=split, clips=clips)
    made = []
    for one in shown:
        seconds = one["duration_s"]
        lanes = [
            Lane(name=name, spans=_spans(one[key], duration_s=seconds), mark=mark)
            for name, key, mark in (("found", "events", ""), ("true", "references", "truth"))
        ]
        note = f"SODA {100 * one['SODA']:.0f}"
        line = timeline(one["clip_id"], picture=strips.get(one["clip_id"]), lanes=lanes, duration_s=seconds, note=note)
        made.append(tag("div", line, _listed(one)))
    return made


def _spans(events: list[dict[str, Any]], *, duration_s: float) -> list[tuple[float, float, str]]:
    return [(one["start_s"] / duration_s, min(one["end_s"] / duration_s, 1.0), one["caption"]) for one in events]


def _listed(clip: dict[str, Any]) -> Html:
    """Return the events of a clip beside the references that SODA matches them with, in the order of time."""
    found, truth = clip["events"], clip["references"]
    spans = [np.array([[one["start_s"], one["end_s"]] for one in every]).reshape(-1, 2) for every in (found, truth)]
    texts = [[ptb_tokens(one["caption"]) for one in every] for every in (found, truth)]
    values = overlap_of(spans[0], second=spans[1]) * caption_matrix(texts[0], references=texts[1]) if found else None
    pairs = matched_in_order(values) if values is not None else []
    rows, i, j = [], 0, 0
    for row, column in [*pairs, (len(found), len(truth))]:
        alone = [(one["start_s"], (one, None)) for one in found[i:row]]
        alone += [(one["start_s"], (None, one)) for one in truth[j:column]]
        rows += [both for _, both in sorted(alone, key=lambda one: one[0])]
        rows += [(found[row], truth[column])] if row < len(found) else []
        i, j = row + 1, column + 1
    head = [tag("th", name, scope="col", class_="text") for name in ("found", "true")]
    body = [tag("tr", *(tag("td", _told(one), class_="text") for one in both)) for both in rows]
    return tag("div", tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body)), class_="wide events")


def _told(event: dict[str, Any] | None) -> Html:
    if event is None:
        return Html()
    times = tag("small", f"{clock(event['start_s'])} to {clock(event['end_s'])}", class_="note")
    return join([times, " ", event["caption"]])
