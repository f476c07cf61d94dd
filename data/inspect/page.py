"""The page of `twinreel inspect`: one file that opens from disk, without network, fonts or scripts."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from rich.filesize import decimal

from ... import __version__
from ..manifest import write_whole
from .contact_sheet import write_sheet
from .histograms import histogram
from .overview import COUNTED, SPREADS, overview, remarks

_TEMPLATE = Path(__file__).parent / "templates" / "inspect.html"
_MARKS = ("first", "second", "third", "fourth")  # classes of the style, one per split, as the charts have


def write_page(
    out: Path,
    *,
    figures: dict[str, Any],
    rows: dict[str, list[dict[str, Any]]],
    folder: Path,
    shards: Sequence[dict[str, Any]],
    count: int,
    seed: int,
) -> Path:
    """Write `out/index.html` and the contact sheet, `out/sheet.jpg`, which the page holds too.

    Args:
      out: the folder; made if absent.
      figures: what `inspect` found.
      rows: lines of clips.jsonl by split.
      folder: the prepared folder.
      shards: its record files, from prepare.json.
      count: clips on the sheet; 0 = no sheet.
      seed: of their choice.

    Returns:
      The path of the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    sheet = out / "sheet.jpg"
    shown = write_sheet(sheet, folder=folder, shards=shards, rows=rows, count=count, seed=seed) if count else 0
    sections = [
        _counts(figures["splits"]),
        _remarks(figures),
        _sheet(sheet, shown=shown, seed=seed) if shown else "",
        _histograms(figures),
        _lists(figures),
        _rejects(figures["rejects"]),
        _duplicates(figures["duplicates"]),
        _options(figures),
    ]
    clips = sum(found["clips"] for found in figures["splits"].values())
    page = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(figures["folder"]),
        subtitle=escape(f"{clips:,} clips · {decimal(figures['bytes'])} in {figures['shards']} shards · "
                        f"from {figures['source']}"),
        body="\n".join(part for part in sections if part),
        version=escape(__version__),
    )  # fmt: skip
    write_whole(out / "index.html", parts=[page])
    return out / "index.html"


def _table(head: Sequence[str], lines: Sequence[tuple[str, Sequence[str]]], *, text: bool = False) -> str:
    """A table whose first column names the rows; cells are HTML already; `text`: the last column holds words."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = []
    for name, cells in lines:
        made = [f"<td>{cell}</td>" for cell in cells]
        if text and made:
            made[-1] = f'<td class="text">{cells[-1]}</td>'
        body.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(made)}</tr>')
    kind = ' class="full"' if text else ""
    rows = "".join(body)
    return f'<div class="wide"><table{kind}><thead><tr><td></td>{top}</tr></thead><tbody>{rows}</tbody></table></div>'


def _counts(splits: dict[str, Any]) -> str:
    return f"<section><h2>What is there</h2>{_table(list(splits), overview(splits))}</section>"


def _remarks(figures: dict[str, Any]) -> str:
    lines = "".join(f"<p>{escape(line)}</p>" for line in remarks(figures))
    return f"<section><h2>Worth a look</h2>{lines}</section>" if lines else ""


def _sheet(path: Path, *, shown: int, seed: int) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return (
        f"<section><h2>Contact sheet</h2><p>The middle frames of {shown} clips drawn at random (seed {seed}), each "
        f'with its split and first caption.</p><figure class="sheet"><img alt="middle frames of {shown} clips" '
        f'src="data:image/jpeg;base64,{data}"></figure></section>'
    )


def _histograms(figures: dict[str, Any]) -> str:
    splits = figures["splits"]
    charts = []
    for key, name in SPREADS.items():
        spreads = {split: found[key] for split, found in splits.items() if found[key]["counts"]}
        if spreads:
            limit = max(found["context_length"] for found in splits.values()) if key == "tokens" else None
            charts.append(f"<figure>{histogram(spreads, title=name, name=key, limit=limit)}</figure>")
    note = f"Tokens by {figures['tokenizer']}; the dotted line is the context length, beyond which captions are cut."
    return (
        f'<section><h2>How it is spread</h2><div class="charts">{"".join(charts)}</div>'
        f'<p class="aside" style="margin-top:18px">Shares of each split, in %. {escape(note)}</p></section>'
    )


def _lists(figures: dict[str, Any]) -> str:
    parts = []
    for key, name in COUNTED.items():
        lists = []
        for number, (split, found) in enumerate(figures["splits"].items()):
            if not found[key]:
                continue
            mark, top = _MARKS[number % len(_MARKS)], max(found[key].values())
            lines = "".join(
                f'<li class="{mark}" style="--share:{100 * count / top:.1f}%"><span>{escape(value)}</span>'
                f"<span>{count:,}</span></li>"
                for value, count in found[key].items()
            )
            lists.append(f"<div><h3>{escape(split)}</h3><ul>{lines}</ul></div>")
        if lists:
            parts.append(
                f'<section><h2>{escape(name.capitalize())}</h2><div class="lists">{"".join(lists)}</div></section>'
            )
    how = f'<p class="aside">Languages: {escape(figures["languages_by"])}. A short caption is easily mistaken.</p>'
    return "".join(parts) + how


def _rejects(rejects: dict[str, Any]) -> str:
    if not rejects:
        return "<section><h2>Rejected clips</h2><p>None: every clip of the source is here.</p></section>"
    lines = [
        (reason, (f"{entry['clips']:,}", "<br>".join(map(escape, entry["examples"]))))
        for reason, entry in rejects.items()
    ]
    table = _table(("clips", "for example"), lines, text=True)
    return f"<section><h2>Rejected clips</h2>{table}</section>"


def _duplicates(found: dict[str, Any] | None) -> str:
    if found is None:
        return "<section><h2>Duplicates</h2><p>Not known: this folder has no fingerprints.</p></section>"
    text = (
        f"<p>{found['exact']:,} exact and {found['near']:,} near pairs; {found['within_split']:,} within a split, "
        f"{found['across_splits']:,} across splits. {found['flat']:,} clips without any shape (black, plain) are "
        "compared by their bytes only.</p>"
    )
    leaks = "".join(
        f'<p class="bad">{count:,} clips of {escape(split)} have a duplicate in train.</p>'
        for split, count in found["leaks"].items()
    )
    lines = [
        (line["kind"] + (", leak" if line["leak"] else ""), (f"{line['distance']:g}", _names(line["clips"])))
        for line in found["first"]
    ]
    table = _table(("bits apart", "clips"), lines, text=True) if lines else ""
    return f"<section><h2>Duplicates</h2>{text}{leaks}{table}</section>"


def _names(clips: Sequence[dict[str, str]]) -> str:
    return " and ".join(escape(f"{clip['split']} {clip['clip_id']}") for clip in clips)


def _options(figures: dict[str, Any]) -> str:
    lines = [(key.replace("_", " "), (escape(str(value)),)) for key, value in figures["options"].items()]
    return f"<section><h2>How it was prepared</h2>{_table(('value',), lines, text=True)}</section>"
