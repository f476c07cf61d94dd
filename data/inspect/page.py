"""The page of `twinreel inspect`: one file that opens from disk, without network, fonts or scripts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from ...pages.charts import COLOURS, Counts, histogram
from ...pages.markup import Html, join, tag
from ...pages.page import paragraph, section, write_page
from ...pages.tables import Row, count_lists, protocol_list, table
from ...pages.thumbnails import SheetClip, clip_figure, jpeg_uri, write_contact_sheet
from .contact_sheet import sheet_clips
from .overview import COUNTED, SPREADS, overview, remarks


def write_inspection(
    out: Path,
    *,
    figures: dict[str, Any],
    rows: dict[str, list[dict[str, Any]]],
    folder: Path,
    shards: Sequence[dict[str, Any]],
    count: int,
    seed: int,
) -> Path:
    """Write `out/index.html` and the contact sheet as a picture, `out/sheet.jpg`; the page does not need the picture.

    Args:
      out: the folder; made if absent.
      figures: the content of `inspect.json`.
      rows: lines of clips.jsonl by split.
      folder: the prepared folder.
      shards: its record files, from prepare.json.
      count: clips on the sheet; 0 = no sheet.
      seed: of their choice.

    Returns:
      The path of the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    shown = sheet_clips(folder, shards=shards, rows=rows, count=count, seed=seed) if count else []
    if shown:
        write_contact_sheet(out / "sheet.jpg", clips=shown)
    clips = sum(found["clips"] for found in figures["splits"].values())
    return write_page(
        out / "index.html",
        kind="prepared folder",
        title=figures["folder"],
        subtitle=(
            f"{clips:,} clips · {decimal(figures['bytes'])} in {figures['shards']} shards · from {figures['source']}"
        ),
        sections=[
            _counts(figures["splits"]),
            _remarks(figures),
            _sheet(shown, seed=seed),
            _histograms(figures),
            _lists(figures),
            _rejects(figures["rejects"]),
            _duplicates(figures["duplicates"]),
            section("Preparation", protocol_list(figures["options"])),
        ],
        footer=_footer(sheet=bool(shown)),
    )


def _footer(*, sheet: bool) -> Html:
    parts = ["The same figures are in ", tag("a", "inspect.json", href="inspect.json")]
    if sheet:
        parts += [", the contact sheet as one picture in ", tag("a", "sheet.jpg", href="sheet.jpg")]
    return join([*parts, "."])


def _counts(splits: dict[str, Any]) -> Html:
    rows = [Row(name=name, cells=cells) for name, cells in overview(splits)]
    return section("Overview", table(list(splits), rows=rows, narrow=True))


def _remarks(figures: dict[str, Any]) -> Html:
    lines = remarks(figures)
    return section("Remarks", *map(paragraph, lines)) if lines else Html()


def _sheet(clips: Sequence[SheetClip], *, seed: int) -> Html:
    if not clips:
        return Html()
    cards = [
        clip_figure(
            jpeg_uri(clip.jpeg) if clip.jpeg else None,
            note=clip.group,
            caption=clip.caption,
            alt=f"middle frame of a clip of {clip.group}",
        )
        for clip in clips
    ]
    text = (
        f"The middle frames of {len(clips)} clips drawn at random (seed {seed}), each with its split and first caption."
    )
    return section("Contact sheet", paragraph(text), tag("div", *cards, class_="grid"))


def _histograms(figures: dict[str, Any]) -> Html:
    splits = figures["splits"]
    charts = []
    for key, name in SPREADS.items():
        series = [
            Counts(name=split, counts=found[key]["counts"], edges=found[key]["edges"], colour=colour)
            for (split, found), colour in zip(splits.items(), _repeat(COLOURS, times=len(splits)), strict=True)
            if found[key]["counts"]
        ]
        if series:
            limit = max(found["context_length"] for found in splits.values()) if key == "tokens" else None
            charts.append(tag("figure", histogram(series, title=name, name=key, limit=limit)))
    note = (
        f"Shares of each split, in %. Tokens are counted by {figures['tokenizer']}; the dotted line is the context "
        "length, beyond which captions are cut."
    )
    return section("Distributions", tag("div", *charts, class_="charts small"), paragraph(note, class_="aside"))


def _repeat(colours: Sequence[str], *, times: int) -> list[str]:
    return [colours[number % len(colours)] for number in range(times)]


def _lists(figures: dict[str, Any]) -> Html:
    parts = []
    for key, name in COUNTED.items():
        lists = count_lists({split: found[key] for split, found in figures["splits"].items()})
        if lists:
            how = f"Languages: {figures['languages_by']}. Short captions are often misidentified."
            note = paragraph(how, class_="aside") if key == "languages" else ""
            parts.append(section(name.capitalize(), lists, note))
    return join(parts)


def _rejects(rejects: dict[str, Any]) -> Html:
    if not rejects:
        return section("Rejected clips", paragraph("None: every clip of the source was prepared."))
    rows = [
        Row(name=reason, cells=[f"{entry['clips']:,}", join(entry["examples"], by="<br>")])
        for reason, entry in rejects.items()
    ]
    return section("Rejected clips", table(["clips", "examples"], rows=rows, words=True))


def _duplicates(found: dict[str, Any] | None) -> Html:
    if found is None:
        return section("Duplicates", paragraph("Unknown: this folder has no fingerprints."))
    flat = f" {found['flat']:,} uniform clips (black, one colour) are compared by their bytes only." * (
        found["flat"] > 0
    )
    text = paragraph(
        f"{found['exact']:,} exact and {found['near']:,} near pairs; {found['within_split']:,} within a split, "
        f"{found['across_splits']:,} across splits.{flat}"
    )
    leaks = [
        paragraph(f"{count:,} clips of {split} have a duplicate in train.", class_="bad")
        for split, count in found["leaks"].items()
    ]
    rows = [
        Row(
            name=line["kind"] + (", leak" if line["leak"] else ""),
            cells=[f"{line['distance']:g}", " and ".join(f"{c['split']} {c['clip_id']}" for c in line["clips"])],
        )
        for line in found["first"]
    ]
    return section("Duplicates", text, *leaks, table(["bits apart", "clips"], rows=rows, words=True) if rows else "")
