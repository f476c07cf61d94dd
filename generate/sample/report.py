"""The report of a judged generator: JSON, page and the table on the terminal."""

from pathlib import Path
from typing import Any

import numpy as np

from ...evaluate.reports.pictures import evenly_spread
from ...evaluate.results import to_json
from ...pages.markup import Html, join, tag
from ...pages.page import paragraph, section, write_page
from ...pages.tables import Row, Tile, protocol_list, table, tiles
from ...pages.thumbnails import clip_figure
from .judge import ROWS
from .painter import Clips
from .written import write_frames, write_moving

EXAMPLES = 16
"""How many captions the page shows, each with the real and the generated clip."""
EDITS = 12
"""How many edits the page shows."""
_COLUMNS = {"R@1": "R@1, %", "R@5": "R@5, %", "MdR": "median rank"}


def write_score(
    out: Path,
    *,
    figures: dict[str, Any],
    made: dict[str, Clips],
    protocol: dict[str, Any],
    seconds: float,
    edits: list[dict[str, Any]] | None = None,
    edited: tuple[Clips, Clips] | None = None,
) -> Path:
    """Write `generation.json` and `index.html`; the folder opens from disk without a network.

    Args:
      out: folder, made if absent.
      figures: of `judge.score_generator`, with `edits` of `judge.edit_figures` if there are.
      made: the clips of each row.
      protocol: how the figures were made.
      seconds: length of a clip.
      edits: of each edit `clip_id`, `what`, `old`, `new`.
      edited: the clips before and after them.

    Returns:
      The path of the page.
    """
    media = out / "media"
    media.mkdir(parents=True, exist_ok=True)
    for old in media.glob("*.webp"):
        old.unlink()
    listed = figures | {"protocol": protocol} | ({"edits_made": edits} if edits else {})
    (out / "generation.json").write_text(to_json(listed), encoding="utf-8")
    sections = [_tiles(figures), _table(figures), _examples(media, figures=figures, made=made, seconds=seconds)]
    if edits and edited is not None:
        sections += [_edit_table(figures["edits"]), _edits(media, edits=edits, clips=edited)]
    return write_page(
        out / "index.html",
        kind="video generation",
        title=f"{protocol['dataset']} · {protocol['split']}",
        subtitle=f"{len(figures['clips']):,} captions, judged by {protocol['judge']}",
        sections=[*sections, section("Protocol", protocol_list(protocol))],
        footer=join(["The same figures are in ", tag("a", "generation.json", href="generation.json"), "."]),
        variables={"shape": "1"},
    )


def print_score(figures: dict[str, Any], *, page: Path) -> None:
    """Print the table of a report on standard output."""
    from rich.console import Console
    from rich.table import Table

    shown = Table("clip -> caption")
    for name in _COLUMNS.values():
        shown.add_column(name, justify="right")
    for row in _rows(figures, direction="v2t"):
        shown.add_row(row.name, *map(str, row.cells))
    console = Console()
    console.print(shown)
    edits = figures.get("edits", {}).get("all")
    if edits:
        console.print(
            f"edits: the new caption is preferred in {edits['after']:.1f} % (before: {edits['before']:.1f} %), "
            f"{edits['kept']:.1f} % of the pixels kept, {edits['n']} edits",
            soft_wrap=True,
            highlight=False,
        )
    console.print(f"report: {page}", soft_wrap=True, highlight=False)


def _tiles(figures: dict[str, Any]) -> Html:
    def tile(key: str, note: str) -> Tile:
        block = figures[key]["v2t"]
        return Tile(name=f"R@1, {ROWS[key]}", value=f"{block['R@1']:.1f}", unit="%", note=note)

    def sure(key: str) -> str:
        own = figures[key]["v2t"]
        return f"95 %: {own['R@1_low']:.0f} to {own['R@1_high']:.0f}; chance: {figures['chance']:g} %"

    return tiles(
        [
            *([tile("best", sure("best"))] if "best" in figures else []),
            tile("generated", sure("generated")),
            tile("autoencoder", "what the autoencoder alone can paint"),
            tile("real", "the bound: what the judge makes of real clips"),
        ]
    )


def _table(figures: dict[str, Any]) -> Html:
    parts = []
    for direction, title in (("v2t", "clip to caption"), ("t2v", "caption to clip")):
        rows = _rows(figures, direction=direction)
        parts += [tag("h3", title), table(list(_COLUMNS.values()), rows=rows, narrow=True)]
    text = (
        "Each clip is embedded by a dual tower that the generator was not trained with, and its caption is looked for "
        "among all captions. Ties are resolved in expectation."
    )
    return section("Figures", *parts, paragraph(text, class_="aside"))


def _rows(figures: dict[str, Any], *, direction: str) -> list[Row]:
    def cells(block: dict[str, Any]) -> list[str]:
        return [f"{block[name]:.1f}" for name in _COLUMNS]

    n = len(figures["clips"])
    chance = [f"{100 / n:.1f}", f"{min(500 / n, 100):.1f}", f"{(n + 1) / 2:.1f}"]
    rows = [
        Row(name=name, cells=cells(figures[key][direction]), mark="main" if key == "generated" else "")
        for key, name in ROWS.items()
        if key in figures
    ]
    return [*rows, Row(name="chance", cells=chance, mark="bound")]


def _examples(media: Path, *, figures: dict[str, Any], made: dict[str, Clips], seconds: float) -> Html:
    made_by = "best" if "best" in figures else "generated"
    where = np.array(figures[made_by]["ranks"])
    order = np.argsort(where, kind="stable")
    shown = evenly_spread(order, record=np.arange(len(where)), count=EXAMPLES)
    cards = []
    for number, i in enumerate(shown):
        caption = figures["clips"][i]["caption"]
        for key, note in (("real", "real"), (made_by, f"generated, rank {where[i]:g}")):
            name = f"{number:02d}_{key}.webp"
            write_moving(media / name, frames=made[key][i], seconds=seconds)
            mark = "" if key == "real" else "right" if where[i] == 1 else "wrong"
            cards.append(clip_figure(f"media/{name}", note=note, caption=caption, mark=mark))
    text = (
        f"{len(shown)} of {len(where)} captions, evenly spread from the best to the worst rank: the real clip, then "
        f"{'the best of several generated ones' if made_by == 'best' else 'the generated one'}. Green: its caption is "
        "the first of all."
    )
    return section("Examples", paragraph(text), tag("div", *cards, class_="grid"))


def _edit_table(edits: dict[str, dict[str, float]]) -> Html:
    head = ["new caption preferred, %", "before the edit, %", "pixels kept, %", "edits"]
    rows = [
        Row(
            name=name,
            cells=[f"{one['after']:.1f}", f"{one['before']:.1f}", f"{one['kept']:.1f}", one["n"]],
            mark="main" if name == "all" else "",
        )
        for name, one in edits.items()
    ]
    text = (
        "Real clips, edited from their captions to captions that differ in a single attribute. Preferred: the judge "
        "scores the new caption above the old one. Kept: pixels that are exactly those of the clip."
    )
    return section("Edits by text", table(head, rows=rows, narrow=True), paragraph(text, class_="aside"))


def _edits(media: Path, *, edits: list[dict[str, Any]], clips: tuple[Clips, Clips]) -> Html:
    cards = []
    for number in np.unique(np.linspace(0, len(edits) - 1, min(EDITS, len(edits))).round().astype(int)).tolist():
        one = edits[number]
        for key, video, text in (("before", clips[0], one["old"]), ("after", clips[1], one["new"])):
            name = f"edit_{number:03d}_{key}.webp"
            write_frames(media / name, frames=video[number])
            note = f"{one['what']}, {key}"
            cards.append(clip_figure(f"media/{name}", note=note, caption=text, mark="strip"))
    return section("Examples of edits", tag("div", *cards, class_="grid"))
