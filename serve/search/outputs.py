"""Hits as a table, JSON, CSV and playlists."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ...base.errors import UserError
from ...data.manifest import write_whole
from ...pages.timelines import clock
from .cutlists import edl_text, otio_text
from .engine import Hit, Results
from .query import Term

WRITERS = (".json", ".csv", ".m3u", ".m3u8", ".edl", ".otio")
"""Kinds of files that hits are written to, by suffix."""


def as_json(results: Results, *, terms: Sequence[Term]) -> dict[str, Any]:
    """Return hits as JSON values; times are seconds of the file."""
    return {
        "query": [term.shown() for term in terms],
        "unit": results.unit,
        "search": results.search,
        "moments": results.moments,
        "seconds": round(results.seconds, 4),
        "hits": [hit_json(hit, rank=rank) for rank, hit in enumerate(results.hits, start=1)],
    }


def hit_json(hit: Hit, *, rank: int) -> dict[str, Any]:
    """Return a hit as JSON values."""
    file = hit.file
    return {
        "rank": rank,
        "path": file.path,
        "file": file.id,
        "moment": hit.moment,
        "score": round(hit.score, 6),
        "spans": [_span(span.start_s, span.end_s, span.score) for span in hit.spans],
        "strip": [_span(span.start_s, span.end_s, span.score) for span in hit.strip],
        "cosines": [None if value is None else round(value, 6) for value in hit.terms],
        "duration_s": file.duration_s,
        "fps": file.fps,
        "captions": list(file.captions),
        "labels": list(file.labels),
        "alike": [{"path": other.file.path, "score": round(other.score, 6)} for other in hit.alike],
    }


def _span(start_s: float, end_s: float, score: float) -> dict[str, float]:
    return {"start_s": round(start_s, 3), "end_s": round(end_s, 3), "score": round(score, 6)}


def write_results(path: Path, *, results: Results, terms: Sequence[Term]) -> None:
    """Write hits to a file whose suffix names its kind.

    Raises:
      UserError: a suffix that is none of `WRITERS`.
    """
    check_suffix(path)
    write_whole(path, parts=[results_text(path.suffix.lower(), results=results, terms=terms)])


def results_text(suffix: str, *, results: Results, terms: Sequence[Term]) -> str:
    """Return hits in the form that a suffix of `WRITERS` names."""
    title = " ".join(term.shown() for term in terms)
    if suffix == ".json":
        return json.dumps(as_json(results, terms=terms), indent=1, ensure_ascii=False) + "\n"
    if suffix == ".csv":
        return csv_text(results)
    if suffix == ".edl":
        return edl_text(results.hits, title=title)
    if suffix == ".otio":
        return otio_text(results.hits, title=title)
    return m3u_text(results.hits)


def check_suffix(path: Path) -> None:
    """Raise UserError for a file of a kind that is not written."""
    if path.suffix.lower() not in WRITERS:
        raise UserError(f"--out {path}: hits are written as {', '.join(WRITERS)}; got {path.suffix or 'no suffix'}")


def csv_text(results: Results) -> str:
    """Return hits as a table with one line for each stretch, best file first."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["rank", "score", "path", "start_s", "end_s", "labels", "caption"])
    for rank, hit in enumerate(results.hits, start=1):
        rest = [" ".join(hit.file.labels), (hit.file.captions or ("",))[0]]
        for span in hit.spans:
            times = [f"{span.start_s:.3f}", f"{span.end_s:.3f}"]
            writer.writerow([rank, f"{span.score:.6f}", hit.file.path, *times, *rest])
    return out.getvalue()


def m3u_text(hits: Sequence[Hit]) -> str:
    """Return a playlist of the stretches, best first; VLC plays each from its start to its end."""
    lines = ["#EXTM3U"]
    for hit in hits:
        for span in hit.spans:
            name = Path(hit.file.path).name.replace("\n", " ")
            lines.append(f"#EXTINF:{max(1, round(span.end_s - span.start_s))},{name} {clock(span.start_s)}")
            lines.append(f"#EXTVLCOPT:start-time={span.start_s:.3f}")
            lines.append(f"#EXTVLCOPT:stop-time={span.end_s:.3f}")
            lines.append(Path(hit.file.path).as_uri() if "\n" in hit.file.path else hit.file.path)
    return "\n".join(lines) + "\n"


def print_table(results: Results, *, terms: Sequence[Term]) -> None:
    """Print hits for people."""
    if not results.hits:
        print("nothing found")
        return
    table = Table(title=" ".join(term.shown() for term in terms), title_justify="left")
    table.add_column("")
    table.add_column("score", justify="right")
    table.add_column("moments")
    table.add_column("file", overflow="fold")
    texts = any(hit.file.captions or hit.file.labels for hit in results.hits)
    if texts:
        table.add_column("caption, labels", overflow="fold")
    for rank, hit in enumerate(results.hits, start=1):
        file = hit.file
        moments = "\n".join(f"{clock(span.start_s)} - {clock(span.end_s)}" for span in hit.spans)
        cells = [str(rank), f"{hit.score:.3f}", moments, _plain(file.path)]
        if texts:
            cells.append(_plain("; ".join([*file.captions[:1], *file.labels])))
        table.add_row(*cells)
    Console().print(table)
    for rank, hit in enumerate(results.hits, start=1):
        if hit.alike:
            print(f"nearly the same as {rank}: {', '.join(Path(one.file.path).name for one in hit.alike)}")


def _plain(text: str) -> str:
    """Return a text that rich does not read as markup."""
    from rich.markup import escape

    return escape(text)
